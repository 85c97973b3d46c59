"""The response of ``GET health``."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

__all__ = ["Health"]

Readiness: TypeAlias = Literal["ok", "unavailable"]


class BackendHealth(TypedDict):
    status: Readiness
    latency_ms: float
    running: int
    queued: int


class Health(TypedDict):
    """The readiness of all backends. Authenticated callers also get each backend by its alias."""

    status: Readiness
    backends: NotRequired[dict[str, BackendHealth]]
