"""``GET health``: readiness of the site and its backends."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest

from .. import _conf
from .._closing import aclosed
from ..backends import backends
from ..backends._fan_out import afan_out, elapsed_ms, fan_out
from ..exceptions import GatewayError
from .admission import authenticate
from .flow import Flow, call
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
"""The time until which the last report is valid, its settings, and the report. Health is public, so
the backends are not probed for each request."""

_asking = threading.Lock()
_aasking: dict[asyncio.AbstractEventLoop, asyncio.Task[dict[str, _Readiness]]] = {}


def check_health(request: HttpRequest) -> Flow[tuple[bool, dict[str, Any]]]:
    """Return whether the site is ready, and a report; anonymous callers only see its status.

    The site is ready if every backend is, except members of pools, for which their pool answers,
    and backends whose models have fallbacks on one that is ready.
    """
    report = yield from call(_check, _acheck)
    settings = _conf.get()
    mount = Mount.of(request, settings)
    members = {each for alias in report for each in backends[alias].engines() if each != alias}
    ready = all(
        readiness.ready or alias in members or _has_fallbacks(alias, report, mount, settings)
        for alias, readiness in report.items()
    )
    health: dict[str, Any] = {"status": "ok" if ready else "unavailable"}
    if (yield from _is_known(request, settings)):
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


def _has_fallbacks(
    alias: str, report: dict[str, _Readiness], mount: Mount, settings: _conf.Settings
) -> bool:
    """Return whether all models that ``MODELS`` sends to the backend have a fallback on one that is
    ready."""
    sent = [name for name, entry in settings.MODELS.items() if alias == entry.BACKEND]
    return (
        alias != mount.backend
        and bool(sent)
        and all(
            any(report[route.alias].ready for route in fallback_routes(name, mount, settings))
            for name in sent
        )
    )


def _is_known(request: HttpRequest, settings: _conf.Settings) -> Flow[bool]:
    try:
        caller = yield from authenticate(request, settings)
    except GatewayError:
        return False
    return caller.owner is not None


def _check() -> dict[str, _Readiness]:
    # Simultaneous requests share one probe of each backend.
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
    # Other requests wait for it too, so it outlives a disconnect.
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
