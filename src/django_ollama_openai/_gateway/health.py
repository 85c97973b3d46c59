"""``GET health``: readiness of the site and its backends."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .. import _conf
from .._closing import aclosed
from ..backends import backends
from ..backends._fan_out import afan_out, elapsed_ms, fan_out
from ..exceptions import GatewayError
from .admission import Admission, authenticate
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

#: The readiness of each backend, by alias.
_Report: TypeAlias = dict[str, _Readiness]

#: The time until which the last report is valid, its settings, and the report. Health is public, so
#: the backends are not probed for each request.
_last: tuple[float, _conf.Settings, _Report] | None = None

_probing = threading.Lock()
_probes: dict[asyncio.AbstractEventLoop, asyncio.Task[_Report]] = {}


def check_health(admission: Admission[None]) -> Flow[tuple[bool, dict[str, Any]]]:
    """Return whether the site is ready, and a report; anonymous callers only see its status.

    The site is ready if every backend is ready. Members of pools do not count, only their pool; nor
    do backends whose models all have a fallback on a ready one.
    """
    settings, mount = admission.settings, admission.mount
    report = yield from call(_check, _acheck, settings)
    members = {each for alias in report for each in backends[alias].engines() if each != alias}
    ready = all(
        readiness.ready or alias in members or _has_fallbacks(alias, report, mount, settings)
        for alias, readiness in report.items()
    )
    health: dict[str, Any] = {"status": "ok" if ready else "unavailable"}
    if (yield from _has_owner(admission)):
        latency = "latencyMs" if mount.case == "camel" else "latency_ms"
        health["backends"] = {
            alias: {
                "status": "ok" if readiness.ready else "unavailable",
                latency: readiness.latency_ms,
                # Current values, even if the report is older.
                "running": backends[alias].slots.running,
                "queued": backends[alias].slots.queued,
            }
            for alias, readiness in report.items()
        }
    return ready, health


def _has_fallbacks(alias: str, report: _Report, mount: Mount, settings: _conf.Settings) -> bool:
    """Return whether all models of the backend have a fallback on one that is ready."""
    names = [name for name, entry in settings.MODELS.items() if alias == entry.BACKEND]
    return (
        alias != mount.backend
        and bool(names)
        and all(
            any(report[route.alias].ready for route in fallback_routes(name, mount, settings))
            for name in names
        )
    )


def _has_owner(admission: Admission[None]) -> Flow[bool]:
    try:
        caller = yield from authenticate(admission.request, admission.settings)
    except GatewayError:
        return False
    return caller.owner is not None


def _check(settings: _conf.Settings) -> _Report:
    # Simultaneous requests share one probe of each backend.
    with _probing:
        return _recent(settings) or _probe(settings)


def _probe(settings: _conf.Settings) -> _Report:
    started = time.perf_counter()
    report = dict.fromkeys(backends, _TOO_LATE)
    pings = {alias: backends[alias].ping for alias in report}
    for alias, error in fan_out(pings, READY_WITHIN_SECONDS):
        report[alias] = _readiness(error, started)
    return _keep(report, settings)


async def _acheck(settings: _conf.Settings) -> _Report:
    report = _recent(settings)
    if report is not None:
        return report
    loop = asyncio.get_running_loop()
    probe = _probes.get(loop)
    if probe is None:
        probe = _probes[loop] = loop.create_task(_aprobe(settings))
        probe.add_done_callback(lambda _: _probes.pop(loop, None))
    # Other requests wait for it too, so it outlives a disconnect.
    return await asyncio.shield(probe)


async def _aprobe(settings: _conf.Settings) -> _Report:
    started = time.perf_counter()
    report = dict.fromkeys(backends, _TOO_LATE)
    results = afan_out({alias: backends[alias].aping for alias in report}, READY_WITHIN_SECONDS)
    async with aclosed(results):
        async for alias, error in results:
            report[alias] = _readiness(error, started)
    return _keep(report, settings)


def _readiness(error: Exception | None, started: float) -> _Readiness:
    return _Readiness(error is None, elapsed_ms(started))


def _recent(settings: _conf.Settings) -> _Report | None:
    if _last is None:
        return None
    expires, of_settings, report = _last
    return report if expires > time.monotonic() and of_settings is settings else None


def _keep(report: _Report, settings: _conf.Settings) -> _Report:
    global _last
    _last = (time.monotonic() + REPORT_SECONDS, settings, report)
    return report
