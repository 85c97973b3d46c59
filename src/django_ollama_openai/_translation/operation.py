"""Declare an operation of the API: one method of one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .._wire.base import WireModel
from .._wire.engine import EngineRequest
from .._wire.query import QueryParameters
from ..exceptions import (
    GatewayError,
    ModelNotFound,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)

__all__ = ["ENGINE_ERRORS", "JSON", "Operation"]

JSON: Final = "application/json"
ENGINE_ERRORS: Final = (ModelNotFound, UpstreamError, Unavailable, UpstreamTimeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of an endpoint, for the gates and the OpenAPI document.

    The caller needs ``scope``; ``None`` admits all callers, without credentials. ``owner`` refuses
    callers that cannot own anything. ``body`` and ``query`` validate the request. ``response`` is
    the type of the response, which decides on its spelling, and ``event`` that of the events of its
    stream. ``errors`` are those that the operation raises itself, beside those of the gates.
    ``captured`` describes the arguments of the path. ``further`` are further statuses with the
    same answer, each with its description. ``media_type`` is that of an answer that is no JSON.
    With ``makes_chat`` the handler makes the request for the engine, and passes the last gates with
    :func:`~django_ollama_openai.endpoints.admit_chat`.
    """

    scope: str | None
    name: str = ""
    operation_id: str = ""
    owner: bool = False
    body: type[WireModel] | None = None
    query: type[QueryParameters] | None = None
    response: Any = None
    event: Any = None
    status: int = 200
    summary: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    errors: tuple[type[GatewayError], ...] = ()
    captured: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[int, str] = field(default_factory=dict)
    media_type: str = JSON
    optional_credentials: bool = False
    makes_chat: bool = False

    @property
    def uses_engine(self) -> bool:
        """Whether an engine answers the request, whose errors the operation then has."""
        return self.makes_chat or (self.body is not None and issubclass(self.body, EngineRequest))
