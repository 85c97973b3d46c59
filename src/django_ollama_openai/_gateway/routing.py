"""Resolve the public name of a model to a backend and the backend's own name of the model."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from .. import _conf
from ..auth import Caller
from ..backends import BaseBackend, backends
from ..exceptions import InvalidRequest, ModelNotFound
from .mount import Mount

__all__ = ["Route", "fallback_routes", "resolve_model"]

#: A caller without limits.
UNLIMITED: Final = Caller()

#: Characters of a name. No engine has longer ones, and policies may remember names.
MAX_NAME: Final = 1024


@dataclass(frozen=True)
class Route:
    """The destination of requests for the public name ``name``: ``model`` of the backend ``alias``,
    and the ``fallbacks``, in their order, if that fails before its first delta. The route is
    ``configured`` if the site's settings name the model, and not only the request."""

    name: str
    alias: str
    model: str
    options: dict[str, Any]
    configured: bool
    fallbacks: tuple[Route, ...] = ()

    @cached_property
    def backend(self) -> BaseBackend:
        """The backend.

        Raises:
            InvalidBackendError: Its entry in ``BACKENDS`` is missing or invalid.
        """
        return backends[self.alias]


def resolve_model(
    name: str | None, mount: Mount, settings: _conf.Settings, caller: Caller = UNLIMITED
) -> Route:
    """Return the route for the model that a request names, or for the site's default model.

    Fallbacks that ``caller`` may not use are left out.

    Raises:
        InvalidRequest: It names none, and there is no default that ``caller`` may use.
        ModelNotFound: The site does not offer it, or ``caller`` may not use it.
    """
    chosen = name or settings.DEFAULT_MODEL
    if name and len(name) > MAX_NAME:
        raise ModelNotFound(name)
    if chosen and settings.allows_model(chosen) and caller.may_use(chosen):
        return _route(chosen, mount, settings, fallback_routes(chosen, mount, settings, caller))
    if name:
        raise ModelNotFound(name)
    # A default that the caller may not use must not be named.
    raise InvalidRequest(
        "Missing required parameter: 'model'. There is no default model.", param="model"
    )


def fallback_routes(
    name: str, mount: Mount, settings: _conf.Settings, caller: Caller = UNLIMITED
) -> tuple[Route, ...]:
    """Return the routes of the fallbacks of ``name``, a model or a pattern in ``MODELS``."""
    return tuple(
        _route(fallback, mount, settings)
        for fallback in _fallbacks(name, settings)
        if caller.may_use(fallback)
    )


def _route(
    name: str, mount: Mount, settings: _conf.Settings, fallbacks: tuple[Route, ...] = ()
) -> Route:
    config = settings.model(name)
    return Route(
        name=name,
        alias=config.BACKEND or mount.backend,
        model=config.MODEL or name,
        options=config.OPTIONS,
        configured=name in settings.MODELS or name == settings.DEFAULT_MODEL,
        fallbacks=fallbacks,
    )


def _fallbacks(name: str, settings: _conf.Settings) -> list[str]:
    """Return the fallbacks of the model itself, then their own; each once, even if they refer to
    each other."""
    names: dict[str, None] = {}
    left = deque(settings.model(name).FALLBACKS)
    while left:
        fallback = left.popleft()
        if fallback != name and fallback not in names:
            names[fallback] = None
            left += settings.model(fallback).FALLBACKS
    return list(names)
