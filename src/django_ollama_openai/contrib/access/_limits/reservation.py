"""The reservation of a request, and its settlement with the actual use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from ....exceptions import ClientTimeout
from ....policies import Admission, Hold, Outcome
from ..models import Unit
from ..pricing import BaseQuote
from ..stores import BaseStore, Claim, Held, Settlement, StoreDown
from ..stores._base import now
from . import renewal
from .resolve import COST_SCALE, AppliedLimit

__all__ = ["Reservation", "claims_of"]

#: The most completion tokens of a choice that are reserved: clients ask for far more than they use.
MAX_RESERVED: Final = 1000


def claims_of(
    limits: Sequence[AppliedLimit], admission: Admission[Any], quote: BaseQuote | None
) -> list[Claim]:
    """Return the claims of the request, one for each of ``limits``; those on cost need its
    price, ``quote``."""
    moment = now()
    completion = _estimated_completion(admission)
    amounts = {
        Unit.REQUESTS: 1,
        Unit.CONCURRENT: 1,
        Unit.TOKENS: admission.prompt_tokens + completion,
    }
    if quote is not None:
        # At least the smallest amount, which no limit that is used up has left.
        cost = quote.estimate(admission.prompt_tokens, completion)
        amounts[Unit.COST] = max(1, _scaled(cost))
    return [
        Claim(
            each.account,
            each.rule(moment),
            amounts[Unit(each.limit.unit)],
            is_leased=each.limit.unit != Unit.REQUESTS,
        )
        for each in limits
    ]


def _estimated_completion(admission: Admission[Any]) -> int:
    """Return the tokens to reserve for what the choices may add to those of the prompt."""
    choice = max(1, min(MAX_RESERVED, admission.max_completion_tokens or 0))
    return admission.choices * choice


def _scaled(cost: Decimal) -> int:
    """Return ``cost`` as accounts have it, rounded up."""
    return math.ceil(cost * COST_SCALE)


@dataclass(slots=True)
class Reservation(Hold):
    """The reservation of one request in all its limits."""

    request: UUID
    store: BaseStore
    limits: Sequence[AppliedLimit]
    held: Sequence[Held]
    prompt_tokens: int
    quote: BaseQuote | None = None

    def settle(self, outcome: Outcome) -> None:
        if settlements := self._end(outcome):
            try:
                self.store.settle(self.request, settlements)
            except StoreDown as error:
                renewal.settle_later(self.request, self.store, settlements, error)

    async def asettle(self, outcome: Outcome) -> None:
        if settlements := self._end(outcome):
            try:
                await self.store.asettle(self.request, settlements)
            except StoreDown as error:
                renewal.settle_later(self.request, self.store, settlements, error)

    def _end(self, outcome: Outcome) -> list[Settlement]:
        """Stop renewing the leases, and return the settlements."""
        renewal.remove(self.request)
        counts = _counts(outcome)
        prompt, completion = self._tokens(outcome) if counts else (0, 0)
        used = {
            Unit.REQUESTS: int(counts),
            Unit.CONCURRENT: 0,
            Unit.TOKENS: prompt + completion,
            Unit.COST: self._cost(outcome, prompt, completion) if counts else 0,
        }
        return [
            Settlement(held, used[Unit(applied.limit.unit)])
            for applied, held in zip(self.limits, self.held, strict=False)
            # A request that counts as one has been counted.
            if held.claim.is_leased or not counts
        ]

    def _tokens(self, outcome: Outcome) -> tuple[int, int]:
        """Return the tokens of the prompt and of the completion that count."""
        if _has_failed(outcome):
            return 0, 0
        usage = outcome.usage
        # If the client disconnects, the engine does not report the tokens of the prompt.
        prompt = usage.prompt_tokens or (self.prompt_tokens if usage.estimated else 0)
        return prompt, usage.completion_tokens

    def _cost(self, outcome: Outcome, prompt: int, completion: int) -> int:
        if self.quote is None or _has_failed(outcome):
            return 0
        return _scaled(self.quote.cost(outcome, prompt, completion))


def _has_failed(outcome: Outcome) -> bool:
    return outcome.error is not None and not _client_has_left(outcome)


def _counts(outcome: Outcome) -> bool:
    """Return whether the request has reached an engine, and was not invalid."""
    error = outcome.error
    return outcome.answered_by is not None and (
        error is None or error.status >= 500 or _client_has_left(outcome)
    )


def _client_has_left(outcome: Outcome) -> bool:
    """Return whether the client has stopped reading, which counts as a disconnect."""
    return isinstance(outcome.error, ClientTimeout)
