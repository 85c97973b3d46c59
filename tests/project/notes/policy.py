from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from django_ollama_openai.endpoints import BatchWriter
from django_ollama_openai.exceptions import Unavailable
from django_ollama_openai.policies import Admission, BasePolicy, Hold, Outcome
from tests.project.notes.conf import notes_settings
from tests.project.notes.models import Use

__all__ = ["RunningPolicy", "uses"]

uses = BatchWriter[Use](Use.objects.bulk_create, name="uses of notes")


class RunningPolicy(BasePolicy):
    """Limits the requests that an owner has running, and has each written down at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def admit(self, admission: Admission[Any]) -> Hold | None:
        owner = admission.caller.owner
        if owner is None:
            return None
        limit = notes_settings().MAX_RUNNING
        with self._lock:
            if self._running[owner] >= limit:
                raise Unavailable(f"You have {limit} requests running.", retry_after=1)
            self._running[owner] += 1
            admission.headers["x-notes-running"] = str(self._running[owner])
        return _Running(self, admission, owner)

    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        return self.admit(admission)

    def release(self, owner: str) -> None:
        """Take back what :meth:`admit` has counted."""
        with self._lock:
            self._running[owner] -= 1


class _Running(Hold):
    def __init__(self, policy: RunningPolicy, admission: Admission[Any], owner: str) -> None:
        self._policy = policy
        self._admission = admission
        self._owner = owner

    def settle(self, outcome: Outcome) -> None:
        self._policy.release(self._owner)
        error = outcome.error and (outcome.error.code or outcome.error.type)
        uses.put(
            Use(
                request_id=self._admission.request_id,
                endpoint=self._admission.endpoint,
                owner=self._owner,
                result=error or outcome.finish_reason or "",
                tokens=outcome.usage.total_tokens,
            )
        )

    async def asettle(self, outcome: Outcome) -> None:
        self.settle(outcome)
