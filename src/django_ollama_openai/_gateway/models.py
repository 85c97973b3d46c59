"""The models that a mount offers."""

from __future__ import annotations

from typing import Any

from .. import _conf
from .._translation.model_cards import ModelCard
from .._wire.case import camel_keys
from ..backends import BaseBackend, backends
from ..exceptions import GatewayError, ModelNotFound
from .admission import Admission
from .failures import told
from .flow import Flow, call
from .mount import Mount
from .routing import Route, resolve_model

__all__ = ["list_models", "retrieve_model"]


def list_models(admission: Admission[None]) -> Flow[dict[str, Any]]:
    """OpenAI's list object: the names in ``MODELS`` first, then what the mount's backend has, then
    what the patterns in ``MODELS`` let through to others."""
    mount, request_id = admission.mount, admission.request_id
    settings = _conf.get()
    named = [name for name in settings.MODELS if not _conf.is_pattern(name)]
    routes = [resolve_model(name, mount) for name in named if settings.allows_model(name)]
    open_aliases = [mount.backend]
    open_aliases += [
        entry.BACKEND
        for name, entry in settings.MODELS.items()
        if entry.BACKEND is not None and entry.MODEL is None and _conf.is_pattern(name)
    ]
    ways = [way for route in routes for way in _ways(route)]
    cards = yield from _cards([*open_aliases, *(way.alias for way in ways)], request_id)
    data = []
    for route in routes:
        for way in _ways(route):
            card = _card_of(way, cards.get(way.alias, []))
            if card is not None:
                data.append(card.as_openai(name=route.name, backend=way.alias))
                break
    for alias in dict.fromkeys(open_aliases):
        for card in cards.get(alias, []):
            own = [name for name in card.names if _leads_to(name, alias, mount)]
            if own:
                data.append(card.as_openai(name=own[0], backend=alias))
    listing = {"object": "list", "data": data}
    return camel_keys(listing) if mount.case == "camel" else listing


def retrieve_model(admission: Admission[None], name: str) -> Flow[dict[str, Any]]:
    """OpenAI's model object.

    Raises:
        ModelNotFound: the site does not offer it, or its backend does not have it.
    """
    mount, request_id = admission.mount, admission.request_id
    route = resolve_model(name, mount)
    failure: GatewayError | None = None
    for way in _ways(route):
        backend = way.backend
        try:
            card = yield from call(backend.get_model, backend.aget_model, way.model)
        except ModelNotFound:
            continue
        except GatewayError as error:
            failure = failure or told(error, way.alias, request_id)
            continue
        model = card.as_openai(name=name, backend=way.alias)
        return camel_keys(model) if mount.case == "camel" else model
    raise failure or ModelNotFound(name)


def _ways(route: Route) -> tuple[Route, ...]:
    """Where a request for the model may go, the first first."""
    return (route, *route.fallbacks)


def _cards(aliases: list[str], request_id: str) -> Flow[dict[str, list[ModelCard]]]:
    """The models of each backend. One that fails hides its own models only, unless all fail."""
    cards: dict[str, list[ModelCard]] = {}
    failure: GatewayError | None = None
    for alias in dict.fromkeys(aliases):
        backend: BaseBackend = backends[alias]
        try:
            cards[alias] = yield from call(backend.list_models, backend.alist_models)
        except Exception as error:
            unavailable = told(error, alias, request_id)
            failure = failure or unavailable
    if failure is not None and not cards:
        raise failure
    return cards


def _leads_to(name: str, alias: str, mount: Mount) -> bool:
    """Whether clients get the model that the backend ``alias`` has by ``name`` under that name."""
    settings = _conf.get()
    if name in settings.MODELS or not settings.allows_model(name):
        return False
    route = resolve_model(name, mount)
    return (route.alias, route.model) == (alias, name)


def _card_of(route: Route, cards: list[ModelCard]) -> ModelCard | None:
    try:
        return route.backend.find_model(route.model, cards)
    except ModelNotFound:
        return None
