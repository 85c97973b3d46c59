"""The prices of requests, for limits of ``cost``: another app brings them.

Its ``AppConfig`` names a subclass of :class:`BasePricer` as ``ollama_openai_pricer``, by dotted
path.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache

from django.apps import apps

from ..._threads import in_separate_thread
from ...management.from_apps import create
from ...policies import Outcome

__all__ = ["BasePricer", "BaseQuote", "pricer"]

PRICER = "ollama_openai_pricer"


class BaseQuote:
    """The price of one request, as it was when the request began."""

    def estimate(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return the cost of a request that uses so many tokens."""
        raise NotImplementedError(f"{type(self).__name__} must define estimate()")

    def cost(self, outcome: Outcome, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return the cost of a request that has ended as ``outcome`` says, and used so many
        tokens; 0 if the model that answered has no price."""
        raise NotImplementedError(f"{type(self).__name__} must define cost()")


class BasePricer:
    """Knows the prices of models."""

    def quote(self, model: str) -> BaseQuote | None:
        """Return the price of a request for ``model`` that begins now; ``None`` if it has none."""
        raise NotImplementedError(f"{type(self).__name__} must define quote()")

    async def aquote(self, model: str) -> BaseQuote | None:
        """Async version of :meth:`quote`; runs it in a thread unless overridden."""
        return await in_separate_thread(self.quote, model)


@cache
def pricer() -> BasePricer | None:
    """Return the pricer of the installed apps, if one brings it.

    Raises:
        ImproperlyConfigured: It cannot be imported, or is no pricer.
    """
    for app in apps.get_app_configs():
        path = getattr(app, PRICER, None)
        if path is not None:
            return create(app, path, BasePricer)
    return None
