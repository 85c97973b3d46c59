"""``GET metrics``."""

from __future__ import annotations

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from ..._gateway.admission import Admission, Incoming, admit, carry_out
from ..._gateway.flow import Flow, call
from ..._threads import run_sync
from ..._views.endpoint import endpoint
from ...auth import Caller
from ...exceptions import PermissionDenied
from .metrics import BackendsCollector, is_multiprocess

__all__ = ["metrics"]


@endpoint("GET")
def metrics(incoming: Incoming) -> Flow[HttpResponseBase]:
    """All metrics of the library's default registry, the site's own among them."""
    admission = yield from admit(incoming, endpoint="metrics", scope="metrics")
    return (yield from carry_out(admission, _metrics(admission)))


def _metrics(admission: Admission[None]) -> Flow[HttpResponse]:
    if not _may_look_behind(admission.caller):
        raise PermissionDenied("The metrics are for API keys, and for the staff of this site.")
    accept = admission.request.headers.get("Accept", "")
    content, content_type = yield from call(_render, _arender, accept)
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


async def _arender(accept: str) -> tuple[bytes, str]:
    # It may read many files, and streams go on meanwhile.
    return await run_sync(_render, accept)


def _registry() -> CollectorRegistry:
    if not is_multiprocess():
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(BackendsCollector())
    return registry
