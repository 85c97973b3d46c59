"""The policy of the app: every request to an engine reserves what it may use of all limits."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, Final

from django.db import DatabaseError, InterfaceError

from ..._gateway.flow import Flow, arun, call, run
from ..._ids import uuid7
from ...auth import Caller
from ...exceptions import AuthenticationFailed, GatewayError, Unavailable
from ...policies import Admission, BasePolicy, Hold, Outcome
from . import _key_cache
from ._limits import renewal, resolve
from ._limits.answers import add_headers, refusal
from ._limits.reservation import Reservation, claims_of
from ._limits.resolve import AppliedLimit
from .authentication import KeyCaller
from .conf import access_settings
from .models import Unit
from .pricing import BaseQuote, pricer
from .stores import BaseStore, Epochs, StoreDown, Verdict
from .stores._configured import limit_store

__all__ = ["LimitPolicy"]

logger = logging.getLogger("django_ollama_openai")

#: How often a reservation is tried while limits change.
ATTEMPTS: Final = 5
LOG_SECONDS: Final = 60.0


class LimitPolicy(BasePolicy):
    """Reserves what a request may use of all limits that apply, and settles with its usage.

    Also refuses a key that was revoked in another process, if the store announces changes.
    """

    def admit(self, admission: Admission[Any]) -> Hold | None:
        return run(_admit(admission, limit_store()))

    async def aadmit(self, admission: Admission[Any]) -> Hold | None:
        store = limit_store()
        if store.announces:
            return await arun(_admit(admission, store))
        # One thread for the limits and the reservation.
        return await super().aadmit(admission)


def _admit(admission: Admission[Any], store: BaseStore) -> Flow[Hold | None]:
    caller, route = admission.caller, admission.route
    key = caller if store.announces and isinstance(caller, KeyCaller) else None
    if route is None and key is None:
        return None
    request = uuid7()
    limits: Sequence[AppliedLimit] | None = None
    try:
        for _ in range(ATTEMPTS):
            epoch, limits, quote = None, None, None
            if route is not None:
                epoch, limits = yield from _limits(caller, route.name, store)
                limits, quote = yield from _priced(limits, route.name)
            if not limits and not store.announces:
                return None
            claims = claims_of(limits or (), admission, quote)
            verdict = yield from call(store.reserve, store.areserve, request, claims, epoch)
            if not verdict.is_stale:
                break
            resolve.cache.start_epoch(_epochs(verdict).limits)
        else:
            raise StoreDown("Limits are changing too often.")
    except StoreDown as error:
        if limits or (limits is None and route is not None):
            _when_down(error)
        return None
    limits = limits or ()
    hold = Reservation(request, store, limits, verdict.held, admission.prompt_tokens, quote)
    if key is not None:
        problem = yield from _problem_of_key(key, _epochs(verdict).keys)
        if problem is not None:
            yield from call(hold.settle, hold.asettle, Outcome(error=problem))
            raise problem
    add_headers(admission.headers, limits, claims, verdict.figures)
    if verdict.refused is not None:
        number, wait = verdict.refused
        raise refusal(limits[number], claims[number], verdict.figures[number], wait, admission)
    if not verdict.held:
        return None
    renewal.add(request, store, verdict.held)
    return hold


def _limits(
    caller: Caller, model: str, store: BaseStore
) -> Flow[tuple[str | None, Sequence[AppliedLimit]]]:
    """Return the limits that apply, and the epoch in which they were read.

    Raises:
        StoreDown: They cannot be read.
    """
    subjects = resolve.subjects_of(caller)
    try:
        if not store.announces:
            return None, resolve.applied_limits(subjects, model)
        seconds = access_settings().KEY_CACHE_SECONDS
        known = resolve.cache.get((subjects, model), seconds)
        if known is None:
            known = yield from call(resolve.load, resolve.aload, subjects, model)
    except (DatabaseError, InterfaceError) as error:
        raise StoreDown from error
    return known.epoch, known.value


def _priced(
    limits: Sequence[AppliedLimit], model: str
) -> Flow[tuple[Sequence[AppliedLimit], BaseQuote | None]]:
    """Return ``limits`` and the price of the request; if it has none, without limits on cost.

    Raises:
        StoreDown: Prices cannot be read.
    """
    others = [each for each in limits if each.limit.unit != Unit.COST]
    known = pricer()
    if len(others) == len(limits) or known is None:
        return others, None
    try:
        quote = yield from call(known.quote, known.aquote, model)
    except (DatabaseError, InterfaceError) as error:
        raise StoreDown from error
    return (others if quote is None else limits), quote


def _epochs(verdict: Verdict) -> Epochs:
    if verdict.epochs is None:
        raise TypeError("A store that announces changes has to return its epochs.")
    return verdict.epochs


def _problem_of_key(key: KeyCaller, epoch: str) -> Flow[GatewayError | None]:
    """Return the error if the key is no longer valid, after a change since it was read."""
    if key.epoch == epoch:
        return None
    _key_cache.cache.start_epoch(epoch)
    try:
        is_usable = yield from call(_key_cache.is_usable, _key_cache.ais_usable, key.digest)
    except (DatabaseError, InterfaceError) as error:
        logger.error("An API key could not be checked", exc_info=error)
        return Unavailable("API keys cannot be checked at the moment. Try again later.")
    return None if is_usable else AuthenticationFailed("Incorrect API key provided.")


def _when_down(error: StoreDown) -> None:
    """Admit the request, or refuse it, as ``WHEN_DOWN`` says.

    Raises:
        Unavailable: It is refused.
    """
    is_refused = access_settings().WHEN_DOWN == "refuse"
    _log_down(error, "refused" if is_refused else "admitted")
    if is_refused:
        raise Unavailable("Limits cannot be checked at the moment. Try again later.") from error


_logged_at = -math.inf


def _log_down(error: StoreDown, outcome: str) -> None:
    """Log once a minute that the store cannot be used, and the outcome of requests."""
    global _logged_at
    moment = time.monotonic()
    if moment - _logged_at >= LOG_SECONDS:
        _logged_at = moment
        logger.error("The store of limits cannot be used; requests are %s: %s", outcome, error)
