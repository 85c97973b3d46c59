"""The view of ``GET metrics``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from ..._gateway.flow import Flow, call
from ..._gateway.gates import authenticate, authorise
from ..._threads import in_thread
from ..._views.endpoint import endpoint
from ...auth import Caller
from ...exceptions import PermissionDenied
from .metrics import BackendsCollector, is_multiprocess

__all__ = ["metrics"]


@endpoint("GET")
def metrics(
    request: HttpRequest, *, request_id: str, captured: dict[str, Any]
) -> Flow[HttpResponseBase]:
    """Respond with all metrics in the default registry, including the site's own."""
    caller = yield from authenticate(request)
    authorise(caller, "metrics")
    if not _may_read_metrics(caller):
        raise PermissionDenied("The metrics are only for API keys and for staff of this site.")
    content, content_type = yield from call(_render, _arender, request.headers.get("Accept", ""))
    return HttpResponse(content, content_type=content_type)


def _may_read_metrics(caller: Caller) -> bool:
    """Return whether the caller is an API key, staff, or has the scope explicitly. Other users of
    the site may not read metrics, though they have all scopes."""
    is_staff = bool(getattr(caller.user, "is_staff", False))
    return caller.key_id is not None or is_staff or caller.scopes is not None


def _render(accept: str) -> tuple[bytes, str]:
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # the version is not a number
        encode, content_type = choose_encoder("")
    return encode(_registry()), content_type


async def _arender(accept: str) -> tuple[bytes, str]:
    # In a thread, since it may read many files.
    return await in_thread(_render, accept)


def _registry() -> CollectorRegistry:
    if not is_multiprocess():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(BackendsCollector())
    return registry
