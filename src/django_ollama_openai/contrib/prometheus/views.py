"""The view of ``GET metrics``."""

from __future__ import annotations

from django.http import HttpResponse
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from ...auth import Caller
from ...endpoints import Admission, Endpoint
from ...exceptions import PermissionDenied
from .metrics import BackendsCollector, is_multiprocess

__all__ = ["metrics"]

metrics = Endpoint(tags={"Site": "The gateway itself"})


@metrics.get(scope="metrics", name="metrics", media_type="text/plain")
def list_metrics(admission: Admission[None]) -> HttpResponse:
    """List all metrics in the default registry, including the site's own."""
    if not _may_read_metrics(admission.caller):
        raise PermissionDenied("The metrics are only for API keys and for staff of this site.")
    # A plain function runs in a thread, since it may read many files.
    content, content_type = _render(admission.request.headers.get("Accept", ""))
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


def _registry() -> CollectorRegistry:
    if not is_multiprocess():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(BackendsCollector())
    return registry
