"""The price of a request: which one is valid, and its exact arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal, localcontext

from ..access._limits.resolve import fits
from .models import Price

__all__ = ["PriceBook", "cost"]

#: Digits of the sums of a month, which are more than Python's 28.
PRECISION = 60


class PriceBook:
    """All prices at one moment."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._by_pattern: dict[str, list[Price]] = defaultdict(list)
        for price in sorted(prices, key=lambda price: price.starts_at, reverse=True):
            self._by_pattern[price.model].append(price)
        self._patterns = sorted(self._by_pattern, key=_particularity, reverse=True)
        self._fitting: dict[str, list[str]] = {}

    @classmethod
    def load(cls) -> PriceBook:
        """Read all prices from the database."""
        return cls(Price.objects.all())

    def price_of(self, model: str, moment: datetime) -> Price | None:
        """Return the price of ``model`` that is valid at ``moment``: of all patterns that fit and
        have one, that of the most particular pattern. ``None`` if there is none."""
        patterns = self._fitting.get(model)
        if patterns is None:
            patterns = [pattern for pattern in self._patterns if fits(pattern, model)]
            self._fitting[model] = patterns
        for pattern in patterns:
            for price in self._by_pattern[pattern]:
                if price.starts_at <= moment:
                    return price
        return None


def _particularity(pattern: str) -> tuple[bool, int, str]:
    """Return a key that sorts a name after all patterns, and a pattern after those with fewer
    characters that stand for themselves."""
    literal = sum(character not in "*?[]" for character in pattern)
    return literal == len(pattern), literal, pattern


def cost(
    price: Price,
    *,
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    engine_time: int,
    requests: int = 1,
) -> Decimal:
    """Return the exact cost of requests at ``price``.

    ``prompt_tokens`` include ``cached_tokens``; ``engine_time`` is in milliseconds.
    """
    cached = price.input if price.cached is None else price.cached
    with localcontext(prec=PRECISION):
        tokens: Decimal = (
            (prompt_tokens - cached_tokens) * price.input
            + cached_tokens * cached
            + completion_tokens * price.output
        )
        seconds: Decimal = engine_time * price.second
        total: Decimal = tokens.scaleb(-6) + seconds.scaleb(-3) + requests * price.request
        return total
