"""The choice of the pool member that gets a request: the facts about the members, and their order.

Nothing here blocks.
"""

from __future__ import annotations

import enum
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from ..._translation.model_cards import ModelCard
from .._base import BaseBackend
from .._slots import Slots

__all__ = ["Health", "Member", "able", "conflicts", "ranked", "versions"]

#: The number of requests that a recent failure counts as. Otherwise a member that fails at once
#: would be idle, and attract more and more requests.
FAILURE_COST: Final = 4

#: The time after the last failure during which failures count.
FAILURE_SECONDS: Final = 5

#: Names of models that are remembered as being loaded; clients choose them.
MAX_REMEMBERED: Final = 1000


class Health(enum.IntEnum):
    """The health of a member; the lower the better."""

    HEALTHY = 0
    #: It was not probed yet, or it lost a connection and has not answered since.
    SUSPECT = 1
    UNHEALTHY = 2


class Member:
    """A backend of a pool, and the facts about it.

    Attributes:
        failed_at: When it failed last, by :func:`time.monotonic`.
        answered_at: When it answered a probe last, by the same clock.
        probe_at: When it is to be probed next, by the same clock.
        pause: Seconds until the next probe while it is unhealthy.
        is_silent: Whether its last probe had no answer.
        used: The number of its last request, counted over all members.
        versions: The versions of its models, by the engine's names of them.
    """

    def __init__(self, alias: str, backend: BaseBackend) -> None:
        self.alias = alias
        self.backend = backend
        self.slots: Slots = backend.slots
        self.health = Health.SUSPECT
        self.failed_at = 0.0
        self.answered_at = 0.0
        self.probe_at = 0.0
        self.pause = 0.0
        self.is_silent = False
        self.used = 0
        self.versions: dict[str, str] = {}
        self._models: dict[str, str | None] | None = None
        self._loaded: frozenset[str] | None = None
        self._requested: set[str] = set()
        self._running: Counter[str] = Counter()
        self._failures = 0
        self._last_failure_at = 0.0

    # Models

    @property
    def is_known(self) -> bool:
        """Whether its models are known."""
        return self._models is not None

    def has(self, model: str) -> bool:
        """Return whether it is known to have ``model``."""
        return self._models is not None and model in self._models

    def is_without(self, model: str) -> bool:
        """Return whether it is known not to have ``model``."""
        return self._models is not None and model not in self._models

    def digest(self, model: str) -> str | None:
        """Return its version of ``model``, if that is known and the engine reports versions."""
        return None if self._models is None else self._models.get(model)

    def has_loaded(self, model: str) -> bool:
        """Return whether ``model`` is in memory or being loaded. An engine that does not report
        that counts as having everything in memory."""
        if self._loaded is None:
            return True
        return model in self._loaded or model in self._requested or self._running[model] > 0

    # Events

    def note_models(self, cards: Iterable[ModelCard]) -> None:
        """Note that it has the models ``cards``."""
        cards = list(cards)
        self._models = {
            name: card.metadata.get("digest") for card in reversed(cards) for name in card.names
        }
        self.versions = versions(cards)

    def note_missing(self, model: str) -> None:
        """Note that it responded that it does not have ``model``."""
        if self._models is not None and model in self._models:
            self._models = {name: digest for name, digest in self._models.items() if name != model}

    def note_loaded(self, names: frozenset[str] | None) -> None:
        """Note which models are in memory; ``None`` if the engine does not report that."""
        self._loaded = names
        self._requested = set()

    def note_failure(self) -> None:
        """Note that a request failed."""
        self._failures = self.failures() + 1
        self._last_failure_at = time.monotonic()

    def note_success(self) -> None:
        """Note that a request succeeded, or that the member is healthy again."""
        self._failures = 0

    def failures(self) -> int:
        """Return how many requests failed lately without one that succeeded."""
        if self._failures and time.monotonic() - self._last_failure_at > FAILURE_SECONDS:
            self._failures = 0
        return self._failures

    def note_begin(self, model: str) -> None:
        """Note that it gets a request for ``model``."""
        self.used = next(_uses)
        self._running[model] += 1
        if len(self._requested) < MAX_REMEMBERED:
            self._requested.add(model)

    def note_end(self, model: str) -> None:
        """Note that a request for ``model`` is over."""
        self._running[model] -= 1
        if not self._running[model]:
            del self._running[model]


_uses = itertools.count(1)


def able(members: Sequence[Member], model: str) -> list[Member]:
    """Return the members that may have ``model``: all but those known not to have it. If none is
    known to have it, all: it may have been pulled since."""
    if not any(member.has(model) for member in members):
        return list(members)
    return [member for member in members if member.has(model) or not member.is_known]


def ranked(
    members: Sequence[Member], model: str, *, tried: Collection[Member], loading_cost: float
) -> list[Member]:
    """Return the members that may get a request for ``model`` now, the best first.

    Only members of the best health among them are returned. The least busy comes first, where a
    model that has to be loaded counts as ``loading_cost`` requests, and a recent failure as some,
    too; of several, the one without a request for longest.
    """
    left = [
        member for member in _of_one_version(able(members, model), model) if member not in tried
    ]
    if not left:
        return []
    best = min(member.health for member in left)
    left = [member for member in left if member.health is best]
    if len(left) > 1:
        left.sort(key=lambda member: _costs(member, model, loading_cost))
    return left


def _costs(member: Member, model: str, loading_cost: float) -> tuple[float, float]:
    load = member.slots.running + member.slots.queued
    load += member.failures() * FAILURE_COST
    return load + (0 if member.has_loaded(model) else loading_cost), member.used


def _of_one_version(members: list[Member], model: str) -> list[Member]:
    """Return the members with the version of ``model`` that the first reachable one has, so that a
    conversation does not go on with another. Engines that report no versions have any."""
    for first in members:
        version = first.digest(model)
        if version is not None and first.health is not Health.UNHEALTHY:
            return [
                member
                for member in members
                if member.has(model) and member.digest(model) in (version, None)
            ]
    return members


def versions(cards: Iterable[ModelCard]) -> dict[str, str]:
    """Return the versions of the models ``cards``, by the engine's names of them."""
    digests = {card.id: card.metadata.get("digest") for card in cards}
    return {name: digest for name, digest in digests.items() if isinstance(digest, str)}


def conflicts(versions: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return the models that are not the same everywhere, each with its version by alias.

    ``versions`` has the versions of the models of each member, by its alias.
    """
    held: dict[str, dict[str, str]] = {}
    for alias, models in versions.items():
        for model, digest in models.items():
            held.setdefault(model, {})[alias] = digest
    return {model: each for model, each in sorted(held.items()) if len(set(each.values())) > 1}
