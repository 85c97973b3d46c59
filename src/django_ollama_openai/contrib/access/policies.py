"""The policy of the app: every request to an engine reserves what it may use of all limits."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ...exceptions import GatewayError, InsufficientQuota, Overloaded, RateLimited, Unavailable
from ...policies import Admission, BasePolicy, Hold, Outcome
from .._ids import uuid7
from ._limits import renewal
from ._limits.ledger import Figures
from ._limits.resolve import AppliedLimit, applied_limits
from .conf import access_settings
from .models import Per, Unit
from .stores import BaseStore, Claim, Held, Settlement, StoreDown, Verdict
from .stores._base import now

__all__ = ["LimitPolicy"]

logger = logging.getLogger("django_ollama_openai")

#: The most completion tokens of a choice that are reserved: clients ask for far more than they use.
MAX_RESERVED: Final = 1000


class LimitPolicy(BasePolicy):
    """Reserves what a request may use of all limits that apply, and settles with its usage."""

    def admit(self, admission: Admission[Any]) -> Hold | None:
        if admission.route is None:
            return None
        request, store = uuid7(), limit_store()
        try:
            limits = applied_limits(admission.caller, admission.route.name)
            if not limits:
                return None
            claims = _claims(limits, admission)
            verdict = store.reserve(request, claims)
        except StoreDown as error:
            _when_down(error)
            return None
        return _admitted(admission, request, store, limits, claims, verdict)


@functools.cache
def _store(path: str, options: str) -> BaseStore:
    store = import_string(path)(**json.loads(options))
    if not isinstance(store, BaseStore):
        raise ImproperlyConfigured(f"{path!r} is not a subclass of BaseStore.")
    return store


def limit_store() -> BaseStore:
    """Return the store of ``ACCESS["LIMIT_STORE"]``, one for each process."""
    config = access_settings().LIMIT_STORE
    return _store(config.STORE, json.dumps(config.OPTIONS, sort_keys=True))


def _claims(limits: Sequence[AppliedLimit], admission: Admission[Any]) -> list[Claim]:
    moment = now()
    amounts = {
        Unit.REQUESTS: 1,
        Unit.CONCURRENT: 1,
        Unit.TOKENS: _estimated_tokens(admission),
    }
    return [
        Claim(
            each.account,
            each.rule(moment),
            amounts[Unit(each.limit.unit)],
            is_leased=each.limit.unit != Unit.REQUESTS,
        )
        for each in limits
    ]


def _estimated_tokens(admission: Admission[Any]) -> int:
    """Return the tokens to reserve: those of the prompt, and what each choice may add."""
    choice = max(1, min(MAX_RESERVED, admission.max_completion_tokens or 0))
    return admission.prompt_tokens + admission.choices * choice


def _admitted(
    admission: Admission[Any],
    request: UUID,
    store: BaseStore,
    limits: Sequence[AppliedLimit],
    claims: Sequence[Claim],
    verdict: Verdict,
) -> Hold:
    """Return the hold of a request that was admitted.

    Raises:
        GatewayError: It was refused.
    """
    _add_headers(admission.headers, limits, claims, verdict.figures)
    if verdict.refused is not None:
        number, wait = verdict.refused
        raise _refusal(limits[number], claims[number], verdict.figures[number], wait, admission)
    renewal.add(request, store, verdict.held)
    units = [Unit(each.limit.unit) for each in limits]
    return _Reservation(request, store, units, verdict.held, admission.prompt_tokens)


@dataclass(slots=True)
class _Reservation(Hold):
    """What one request has reserved of all its limits."""

    request: UUID
    store: BaseStore
    units: Sequence[Unit]
    held: Sequence[Held]
    prompt_tokens: int

    def settle(self, outcome: Outcome) -> None:
        renewal.remove(self.request)
        used = {
            Unit.REQUESTS: int(_has_reached_engine(outcome)),
            Unit.CONCURRENT: 0,
            Unit.TOKENS: self._tokens(outcome),
        }
        # A request that counts as one has been counted.
        settlements = [
            Settlement(held, used[unit])
            for unit, held in zip(self.units, self.held, strict=True)
            if held.claim.is_leased or used[unit] != held.claim.amount
        ]
        if settlements:
            self.store.settle(self.request, settlements)

    def _tokens(self, outcome: Outcome) -> int:
        if outcome.error is not None:
            return 0
        usage = outcome.usage
        # A client that disconnects gets no count of its prompt, which the engine has read.
        prompt = usage.prompt_tokens or (self.prompt_tokens if usage.estimated else 0)
        return prompt + usage.completion_tokens


def _has_reached_engine(outcome: Outcome) -> bool:
    error = outcome.error
    return error is None or (error.status >= 500 and not isinstance(error, Overloaded))


def _refusal(
    applied: AppliedLimit,
    claim: Claim,
    figures: Figures,
    wait: int,
    admission: Admission[Any],
) -> GatewayError:
    limit, model = applied.limit, admission.route.name if admission.route else ""
    unit = "tokens" if limit.unit == Unit.TOKENS else "requests"
    per = f" per {limit.per}" if limit.per else " at the same time"
    facts = f"Limit {claim.rule.amount}, Used {figures.used}, Requested {claim.amount}."
    if limit.unit == Unit.COST or limit.per in (Per.DAY, Per.WEEK, Per.MONTH):
        return InsufficientQuota(f"You exceeded your quota of {limit}: {facts}")
    if wait < 0:
        return InsufficientQuota(f"This request is too large for {model} on {unit}{per}: {facts}")
    seconds = wait / 10**6
    return RateLimited(
        f"Rate limit reached for {model} on {unit}{per}: {facts} "
        f"Please try again in {_duration(wait)}.",
        type=unit,
        retry_after=seconds,
    )


def _add_headers(
    headers: dict[str, str],
    limits: Sequence[AppliedLimit],
    claims: Sequence[Claim],
    figures: Sequence[Figures],
) -> None:
    """Add OpenAI's headers for the tightest limits of requests and of tokens."""
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        found = [
            (each.remaining, claim.rule.amount, each.reset)
            for applied, claim, each in zip(limits, claims, figures, strict=True)
            if applied.limit.unit == unit
        ]
        if found:
            remaining, amount, reset = min(found)
            headers[f"x-ratelimit-limit-{unit}"] = str(amount)
            headers[f"x-ratelimit-remaining-{unit}"] = str(remaining)
            headers[f"x-ratelimit-reset-{unit}"] = _duration(reset)


def _duration(microseconds: int) -> str:
    """Return a duration as OpenAI writes it: ``12ms``, ``1.2s``, ``6m0s``."""
    milliseconds = -(-microseconds // 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def _when_down(error: StoreDown) -> None:
    """Admit the request, or refuse it, as ``WHEN_DOWN`` says.

    Raises:
        Unavailable: It is refused.
    """
    if access_settings().WHEN_DOWN == "refuse":
        raise Unavailable("Limits cannot be checked at the moment. Try again later.") from error
    logger.error("The store of limits cannot be reached; requests are admitted", exc_info=error)
