"""``GET health``: whether the site is alive, and whether its backends are ready."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest

from .. import conf
from ..backends import BaseBackend, backends
from ..exceptions import GatewayError
from .flow import Flow, call
from .gates import authenticate
from .mount import Mount
from .survey import elapsed_ms, survey

__all__ = ["check_health"]

READY_WITHIN_SECONDS: Final = 5
REPORT_SECONDS: Final = 1


@dataclass(slots=True, frozen=True)
class _Readiness:
    ready: bool
    latency_ms: float


_last: tuple[float, conf.Settings, dict[str, _Readiness]] | None = None
"""The last report, until when it holds, and of what. Anybody may ask, so the backends are not asked
each time."""

_asking = threading.Lock()
_aasking: dict[asyncio.AbstractEventLoop, asyncio.Task[dict[str, _Readiness]]] = {}


def check_health(request: HttpRequest) -> Flow[tuple[bool, dict[str, Any]]]:
    """Whether every backend is ready, and a report; callers who are not known see its status
    only."""
    report = yield from call(_check, _acheck)
    ready = all(readiness.ready for readiness in report.values())
    health: dict[str, Any] = {"status": "ok" if ready else "unavailable"}
    if (yield from _is_known(request)):
        latency = "latencyMs" if Mount.of(request).case == "camel" else "latency_ms"
        health["backends"] = {
            alias: {
                "status": "ok" if readiness.ready else "unavailable",
                latency: readiness.latency_ms,
                # Of this moment, whatever the age of the rest.
                "running": backends[alias].slots.running,
                "queued": backends[alias].slots.queued,
            }
            for alias, readiness in report.items()
        }
    return ready, health


def _is_known(request: HttpRequest) -> Flow[bool]:
    try:
        caller = yield from authenticate(request)
    except GatewayError:
        return False
    return caller.user is not None or caller.key_id is not None


def _check() -> dict[str, _Readiness]:
    # However many ask at once, the backends are asked once.
    with _asking:
        return _recent() or _ask_all()


def _ask_all() -> dict[str, _Readiness]:
    answers = survey(lambda backend: backend.ping(), backends, READY_WITHIN_SECONDS)
    report = {
        alias: _Readiness(answer.error is None, answer.latency_ms)
        for alias, answer in answers.items()
    }
    _keep(report)
    return report


async def _acheck() -> dict[str, _Readiness]:
    report = _recent()
    if report is not None:
        return report
    loop = asyncio.get_running_loop()
    asking = _aasking.get(loop)
    if asking is None:
        asking = _aasking[loop] = loop.create_task(_aask_all())
        asking.add_done_callback(lambda _: _aasking.pop(loop, None))
    # Others wait for it too, so it outlives a client that hangs up.
    return await asyncio.shield(asking)


async def _aask_all() -> dict[str, _Readiness]:
    aliases = list(backends)
    answers = await asyncio.gather(*(_aask(backends[alias]) for alias in aliases))
    report = dict(zip(aliases, answers, strict=True))
    _keep(report)
    return report


async def _aask(backend: BaseBackend) -> _Readiness:
    started = time.perf_counter()
    error: Exception | None = None
    try:
        await asyncio.wait_for(backend.aping(), READY_WITHIN_SECONDS)
    except Exception as raised:
        error = raised
    return _Readiness(error is None, elapsed_ms(started))


def _recent() -> dict[str, _Readiness] | None:
    if _last is None:
        return None
    expires, settings, report = _last
    return report if expires > time.monotonic() and settings is conf.get() else None


def _keep(report: dict[str, _Readiness]) -> None:
    global _last
    _last = (time.monotonic() + REPORT_SECONDS, conf.get(), report)
