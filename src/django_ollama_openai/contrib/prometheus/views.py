"""``GET metrics``."""

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
    """List the metrics of the site, for Prometheus.

    They are all those of the library's default registry, the site's own among them.
    """
    if not _may_look_behind(admission.caller):
        raise PermissionDenied("The metrics are for API keys, and for the staff of this site.")
    # It may read many files; a plain function does not hold up streams.
    content, content_type = _render(admission.request.headers.get("Accept", ""))
    return HttpResponse(content, content_type=content_type)


def _may_look_behind(caller: Caller) -> bool:
    """Whether the caller is more than a user of the site: a key, or somebody of its staff, or one
    whom an authenticator has given the scope by its name."""
    is_staff = bool(getattr(caller.user, "is_staff", False))
    return caller.key_id is not None or is_staff or caller.scopes is not None


def _render(accept: str) -> tuple[bytes, str]:
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # a version that is no number
        encode, content_type = choose_encoder("")
    return encode(_registry()), content_type


def _registry() -> CollectorRegistry:
    if not is_multiprocess():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(BackendsCollector())
    return registry
