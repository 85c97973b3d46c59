"""``GET health``: whether the site is alive, and whether its backends are ready."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest

from .. import _conf
from .._pump import aclosed
from ..backends import backends
from ..backends._fan_out import afan_out, elapsed_ms, fan_out
from ..exceptions import GatewayError
from .flow import Flow, call
from .gates import authenticate
from .mount import Mount
from .routing import fallback_routes

__all__ = ["check_health"]

READY_WITHIN_SECONDS: Final = 5
REPORT_SECONDS: Final = 1


@dataclass(slots=True, frozen=True)
class _Readiness:
    ready: bool
    latency_ms: float


_TOO_LATE: Final = _Readiness(False, READY_WITHIN_SECONDS * 1000)

_last: tuple[float, _conf.Settings, dict[str, _Readiness]] | None = None
"""The last report, until when it holds, and of what. Anybody may ask, so the backends are not asked
each time."""

_asking = threading.Lock()
_aasking: dict[asyncio.AbstractEventLoop, asyncio.Task[dict[str, _Readiness]]] = {}


def check_health(request: HttpRequest) -> Flow[tuple[bool, dict[str, Any]]]:
    """Whether every backend is ready, and a report; callers who are not known see its status
    only. Of a backend that is made of others it is for itself to say how many of them it takes, and
    one that others stand in for may be down."""
    report = yield from call(_check, _acheck)
    mount = Mount.of(request)
    members = {each for alias in report for each in backends[alias].engines() if each != alias}
    ready = all(
        readiness.ready or alias in members or _has_stand_ins(alias, report, mount)
        for alias, readiness in report.items()
    )
    health: dict[str, Any] = {"status": "ok" if ready else "unavailable"}
    if (yield from _is_known(request)):
        latency = "latencyMs" if mount.case == "camel" else "latency_ms"
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


def _has_stand_ins(alias: str, report: dict[str, _Readiness], mount: Mount) -> bool:
    """Whether all models that ``MODELS`` sends to the backend fall back on one that is ready."""
    sent = [name for name, entry in _conf.get().MODELS.items() if alias == entry.BACKEND]
    return (
        alias != mount.backend
        and bool(sent)
        and all(
            any(report[route.alias].ready for route in fallback_routes(name, mount))
            for name in sent
        )
    )


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
    started = time.perf_counter()
    report = dict.fromkeys(backends, _TOO_LATE)
    asks = {alias: backends[alias].ping for alias in report}
    for alias, answer in fan_out(asks, READY_WITHIN_SECONDS):
        report[alias] = _readiness(answer, started)
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
    started = time.perf_counter()
    report = dict.fromkeys(backends, _TOO_LATE)
    asked = afan_out({alias: backends[alias].aping for alias in report}, READY_WITHIN_SECONDS)
    async with aclosed(asked):
        async for alias, answer in asked:
            report[alias] = _readiness(answer, started)
    _keep(report)
    return report


def _readiness(answer: Exception | None, started: float) -> _Readiness:
    return _Readiness(answer is None, elapsed_ms(started))


def _recent() -> dict[str, _Readiness] | None:
    if _last is None:
        return None
    expires, settings, report = _last
    return report if expires > time.monotonic() and settings is _conf.get() else None


def _keep(report: dict[str, _Readiness]) -> None:
    global _last
    _last = (time.monotonic() + REPORT_SECONDS, _conf.get(), report)
