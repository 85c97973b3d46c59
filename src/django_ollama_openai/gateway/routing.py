"""From the public name of a model to the backend that has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import conf
from ..backends import BaseBackend, backends
from ..exceptions import InvalidRequest, ModelNotFound
from .mount import Mount

__all__ = ["Route", "resolve_model"]


@dataclass(slots=True, frozen=True)
class Route:
    """Where requests for the public name ``name`` go: to ``model`` of the backend ``alias``. It is
    ``promised`` if the site's settings name it, and not the request alone."""

    name: str
    alias: str
    model: str
    options: dict[str, Any]
    promised: bool

    @property
    def backend(self) -> BaseBackend:
        return backends[self.alias]


def resolve_model(name: str | None, mount: Mount) -> Route:
    """The route for the model a request names, or for the site's default model.

    Raises:
        InvalidRequest: it names none, and there is no default.
        ModelNotFound: the site does not offer it.
    """
    settings = conf.get()
    name = name or settings.DEFAULT_MODEL
    if not name:
        raise InvalidRequest(
            "Missing required parameter: 'model'. This site has no default model.", param="model"
        )
    if not settings.allows_model(name):
        raise ModelNotFound(name)
    config = settings.MODELS.get(name, conf.ModelConfig())
    return Route(
        name=name,
        alias=config.BACKEND or mount.backend,
        model=config.MODEL or name,
        options=config.OPTIONS,
        promised=name in settings.MODELS or name == settings.DEFAULT_MODEL,
    )
