"""Policies that note in the log of the signals what they hold and settle."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from django_ollama_openai.policies import Admission, BasePolicy, Hold, Outcome
from tests.project.apps import LOG

__all__ = ["AsyncLedger", "Ledger"]


class Ledger(BasePolicy):
    """Takes the seconds that the headers ``x-admit`` and ``x-settle`` name."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        _note("admitted", admission.request_id)
        time.sleep(_seconds(admission, "x-admit"))
        return Entry(admission)


class AsyncLedger(BasePolicy):
    """Does the same without threads."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        return Ledger().admit(admission)

    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        _note("admitted", admission.request_id)
        await asyncio.sleep(_seconds(admission, "x-admit"))
        return AsyncEntry(admission)


class Entry(Hold):
    def __init__(self, admission: Admission[Any]) -> None:
        self._request_id = admission.request_id
        self._wait = _seconds(admission, "x-settle")

    def settle(self, outcome: Outcome) -> None:
        _note("settling", self._request_id)
        time.sleep(self._wait)
        self._settled(outcome)

    def _settled(self, outcome: Outcome) -> None:
        _note(
            "settled",
            self._request_id,
            reason=outcome.finish_reason,
            code=None if outcome.error is None else outcome.error.code,
        )


class AsyncEntry(Entry):
    async def asettle(self, outcome: Outcome) -> None:
        _note("settling", self._request_id)
        await asyncio.sleep(self._wait)
        self._settled(outcome)


def _seconds(admission: Admission[Any], header: str) -> float:
    return float(admission.request.headers.get(header, 0))


def _note(event: str, request_id: str, **more: Any) -> None:
    with open(LOG, "a") as log:
        log.write(json.dumps({"event": event, "request_id": request_id, **more}) + "\n")
