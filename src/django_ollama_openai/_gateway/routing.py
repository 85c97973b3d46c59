"""From the public name of a model to the backend that has it, and to what is asked instead."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from .. import _conf
from ..backends import BaseBackend, backends
from ..exceptions import InvalidRequest, ModelNotFound
from .mount import Mount

__all__ = ["Route", "fallback_routes", "resolve_model"]


@dataclass(slots=True, frozen=True)
class Route:
    """Where requests for the public name ``name`` go: to ``model`` of the backend ``alias``, and to
    the ``fallbacks``, in their order, if that fails before its first delta. It is ``promised`` if
    the site's settings name it, and not the request alone."""

    name: str
    alias: str
    model: str
    options: dict[str, Any]
    promised: bool
    fallbacks: tuple[Route, ...] = ()

    @property
    def backend(self) -> BaseBackend:
        return backends[self.alias]


def resolve_model(name: str | None, mount: Mount) -> Route:
    """The route for the model a request names, or for the site's default model.

    Raises:
        InvalidRequest: it names none, and there is no default.
        ModelNotFound: the site does not offer it.
    """
    settings = _conf.get()
    name = name or settings.DEFAULT_MODEL
    if not name:
        raise InvalidRequest(
            "Missing required parameter: 'model'. This site has no default model.", param="model"
        )
    if not settings.allows_model(name):
        raise ModelNotFound(name)
    route = _route(name, mount, settings)
    fallbacks = fallback_routes(name, mount)
    return replace(route, fallbacks=fallbacks) if fallbacks else route


def fallback_routes(name: str, mount: Mount) -> tuple[Route, ...]:
    """What the model or the pattern ``name`` of ``MODELS`` falls back on."""
    settings = _conf.get()
    return tuple(_route(each, mount, settings) for each in _fallbacks(name, settings))


def _route(name: str, mount: Mount, settings: _conf.Settings) -> Route:
    config = settings.model(name)
    return Route(
        name=name,
        alias=config.BACKEND or mount.backend,
        model=config.MODEL or name,
        options=config.OPTIONS,
        promised=name in settings.MODELS or name == settings.DEFAULT_MODEL,
    )


def _fallbacks(name: str, settings: _conf.Settings) -> list[str]:
    """First those of the model itself, then theirs; each once, however they name each other."""
    found: dict[str, None] = {}
    left = deque(settings.model(name).FALLBACKS)
    while left:
        fallback = left.popleft()
        if fallback != name and fallback not in found:
            found[fallback] = None
            left += settings.model(fallback).FALLBACKS
    return list(found)
