"""All other paths below the mount."""

from __future__ import annotations

from typing import Never

from .._gateway.admission import Incoming
from .._gateway.flow import Flow
from ..exceptions import NotFound
from .endpoint import Endpoint

__all__ = ["not_found"]


class _NotFound(Endpoint):
    """Answers every method with a 404 in OpenAI's envelope, where Django's would be HTML."""

    def _answer(self, incoming: Incoming) -> Flow[Never]:
        request = incoming.request
        hint = "" if "/v1/" in request.path else " A base_url for OpenAI's clients ends with '/v1'."
        raise NotFound(f"Unknown request URL: {request.method} {request.path}.{hint}")


not_found = _NotFound()
