"""The prices of requests, for limits of ``cost`` in the app for access."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.db.models.signals import post_delete, post_save

from ..._threads import in_separate_thread
from ...policies import Outcome
from ..access.pricing import BasePricer, BaseQuote
from ._prices import PriceBook, cost
from .conf import usage_settings
from .models import Price

__all__ = ["Pricer", "connect"]

#: Seconds for which a process caches prices. Its own changes hold at once.
CACHE_SECONDS: Final = 1.0


class Pricer(BasePricer):
    """Prices in the currency of budgets; others are as none."""

    def quote(self, model: str) -> BaseQuote | None:
        return _quote(_book(), model)

    async def aquote(self, model: str) -> BaseQuote | None:
        known = _cache.get()
        return _quote(await in_separate_thread(_book) if known is None else known, model)


def _quote(book: PriceBook, model: str) -> BaseQuote | None:
    quote = Quote(book, model, datetime.now(UTC))
    return None if quote.price(model) is None else quote


class Quote(BaseQuote):
    """The prices when a request began; a fallback may have another one than the model."""

    def __init__(self, book: PriceBook, model: str, moment: datetime) -> None:
        self._book = book
        self._model = model
        self._moment = moment

    def price(self, model: str) -> Price | None:
        """Return the price of ``model`` in the currency of budgets."""
        price = self._book.price_of(model, self._moment)
        is_other = price is not None and price.currency != usage_settings().CURRENCY
        return None if is_other else price

    def estimate(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        price = self.price(self._model)
        if price is None:
            return Decimal(0)
        return cost(
            price,
            prompt_tokens=prompt_tokens,
            cached_tokens=0,
            completion_tokens=completion_tokens,
            engine_time=0,
        )

    def cost(self, outcome: Outcome, prompt_tokens: int, completion_tokens: int) -> Decimal:
        price = None if outcome.answered_by is None else self.price(outcome.answered_by)
        if price is None:
            return Decimal(0)
        timings = outcome.timings
        return cost(
            price,
            prompt_tokens=prompt_tokens,
            cached_tokens=min(outcome.usage.cached_tokens, prompt_tokens),
            completion_tokens=completion_tokens,
            engine_time=max(0, round(1000 * timings.total) - round(1000 * timings.queued)),
        )


class _Cache:
    def __init__(self) -> None:
        self._book: PriceBook | None = None
        self._until = 0.0
        self.changes = 0

    def get(self) -> PriceBook | None:
        return self._book if time.monotonic() < self._until else None

    def put(self, book: PriceBook, changes: int) -> None:
        """Keep ``book``, unless prices have changed since it was read."""
        if changes == self.changes:
            self._book, self._until = book, time.monotonic() + CACHE_SECONDS

    def clear(self, **kwargs: Any) -> None:
        self.changes += 1
        self._until = 0.0


_cache = _Cache()


def _book() -> PriceBook:
    found = _cache.get()
    if found is None:
        changes = _cache.changes
        found = PriceBook.load()
        _cache.put(found, changes)
    return found


def connect() -> None:
    """Follow changes of prices."""
    post_save.connect(_cache.clear, sender=Price)
    post_delete.connect(_cache.clear, sender=Price)
