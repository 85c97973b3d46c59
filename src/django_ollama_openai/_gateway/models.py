"""The models that a mount offers."""

from __future__ import annotations

from typing import Any

from .. import _conf
from .._translation.model_cards import ModelCard
from .._wire.case import camel_keys
from ..backends import BaseBackend, backends
from ..exceptions import GatewayError, ModelNotFound
from .admission import Admission
from .failures import to_client_error
from .flow import Flow, call
from .routing import Route, resolve_model

__all__ = ["list_models", "retrieve_model"]


def list_models(admission: Admission[None]) -> Flow[dict[str, Any]]:
    """Return OpenAI's list object: the names in ``MODELS`` first, then the models of the mount's
    backend, then those of other backends that a pattern in ``MODELS`` matches.

    Models that the caller may not use are left out.
    """
    caller, mount, settings = admission.caller, admission.mount, admission.settings
    routes = [
        resolve_model(name, mount, settings, caller)
        for name in settings.MODELS
        if not _conf.is_pattern(name) and settings.allows_model(name) and caller.may_use(name)
    ]
    open_aliases = [mount.backend]
    open_aliases += [
        entry.BACKEND
        for name, entry in settings.MODELS.items()
        if entry.BACKEND is not None and entry.MODEL is None and _conf.is_pattern(name)
    ]
    destinations = [each.alias for route in routes for each in _routes_to_try(route)]
    cards = yield from _cards([*open_aliases, *destinations], admission.request_id)
    data = []
    for route in routes:
        for each in _routes_to_try(route):
            card = _card_of(each, cards.get(each.alias, []))
            if card is not None:
                data.append(card.as_openai(name=route.name, backend=each.alias))
                break
    for alias in dict.fromkeys(open_aliases):
        for card in cards.get(alias, []):
            names = [name for name in card.names if _resolves_to(name, alias, admission)]
            if names:
                data.append(card.as_openai(name=names[0], backend=alias))
    listing = {"object": "list", "data": data}
    return camel_keys(listing) if mount.case == "camel" else listing


def retrieve_model(admission: Admission[None], name: str) -> Flow[dict[str, Any]]:
    """Return OpenAI's model object.

    Raises:
        ModelNotFound: The site does not offer it, the caller may not use it, or no backend has it.
    """
    mount = admission.mount
    route = resolve_model(name, mount, admission.settings, admission.caller)
    failure: GatewayError | None = None
    for each in _routes_to_try(route):
        backend = each.backend
        try:
            card = yield from call(backend.get_model, backend.aget_model, each.model)
        except ModelNotFound:
            continue
        except GatewayError as error:
            failure = failure or to_client_error(error, each.alias, admission.request_id)
            continue
        model = card.as_openai(name=name, backend=each.alias)
        return camel_keys(model) if mount.case == "camel" else model
    raise failure or ModelNotFound(name)


def _routes_to_try(route: Route) -> tuple[Route, ...]:
    """Return ``route`` and its fallbacks, in their order."""
    return (route, *route.fallbacks)


def _cards(aliases: list[str], request_id: str) -> Flow[dict[str, list[ModelCard]]]:
    """Return the models of each backend. One that fails hides its own models only, unless all
    fail."""
    cards: dict[str, list[ModelCard]] = {}
    failure: GatewayError | None = None
    for alias in dict.fromkeys(aliases):
        backend: BaseBackend = backends[alias]
        try:
            cards[alias] = yield from call(backend.list_models, backend.alist_models)
        except Exception as error:
            unavailable = to_client_error(error, alias, request_id)
            failure = failure or unavailable
    if failure is not None and not cards:
        raise failure
    return cards


def _resolves_to(name: str, alias: str, admission: Admission[None]) -> bool:
    """Return whether clients get the model ``name`` of the backend ``alias`` under that name."""
    settings, caller = admission.settings, admission.caller
    if name in settings.MODELS or not (settings.allows_model(name) and caller.may_use(name)):
        return False
    route = resolve_model(name, admission.mount, settings, caller)
    return (route.alias, route.model) == (alias, name)


def _card_of(route: Route, cards: list[ModelCard]) -> ModelCard | None:
    try:
        return route.backend.find_model(route.model, cards)
    except ModelNotFound:
        return None
