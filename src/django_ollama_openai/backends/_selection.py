"""Which member of a pool gets a request: what is known of the members, and the order that follows
from it. Nothing in here waits."""

from __future__ import annotations

import enum
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from .._translation.model_cards import ModelCard
from ._base import BaseBackend
from ._slots import Slots

__all__ = ["Member", "Standing", "able", "conflicts", "ranked", "versions"]

SETBACK_COST: Final = 4
"""How many requests one that has failed counts for. A member that fails at once has little to do,
and would attract more and more of them."""

SETBACK_SECONDS: Final = 5
"""How long after the last failure they count."""

MAX_REMEMBERED: Final = 1000
"""Names of models that are remembered as being loaded; clients choose them."""


class Standing(enum.IntEnum):
    """Whether a member is worth a request; the lower the better."""

    IN = 0
    DOUBTFUL = 1
    """It has not been seen yet, or a connection to it broke off and it has not answered since."""
    OUT = 2


class Member:
    """One backend of a pool, and what the pool knows of it."""

    def __init__(self, alias: str, backend: BaseBackend) -> None:
        self.alias = alias
        self.backend = backend
        self.slots: Slots = backend.slots
        self.standing = Standing.DOUBTFUL
        self.failed_at = 0.0
        """When it failed last, by :func:`time.monotonic`."""
        self.used = 0
        """The number of its last request, among those of all members."""
        self.versions: dict[str, str] = {}
        """Which versions of its models it has, by the engine's names of them."""
        self._models: dict[str, str | None] | None = None
        self._loaded: frozenset[str] | None = None
        self._asked: set[str] = set()
        self._running: Counter[str] = Counter()
        self._setbacks = 0
        self._set_back_at = 0.0

    # What it has

    @property
    def is_known(self) -> bool:
        """Whether it has told what models it has."""
        return self._models is not None

    def has(self, model: str) -> bool:
        """Whether it is known to have ``model``."""
        return self._models is not None and model in self._models

    def is_without(self, model: str) -> bool:
        """Whether it is known not to have ``model``."""
        return self._models is not None and model not in self._models

    def digest(self, model: str) -> str | None:
        """Which version of ``model`` it has, if that is known and the engine tells versions."""
        return None if self._models is None else self._models.get(model)

    def has_loaded(self, model: str) -> bool:
        """Whether ``model`` is in its memory or on the way there. An engine that does not tell
        counts as one that has everything in memory."""
        if self._loaded is None:
            return True
        return model in self._loaded or model in self._asked or self._running[model] > 0

    # What becomes known

    def listed(self, cards: Iterable[ModelCard]) -> None:
        """It has told its models."""
        cards = list(cards)
        self._models = {
            name: card.metadata.get("digest") for card in reversed(cards) for name in card.names
        }
        self.versions = versions(cards)

    def lacks(self, model: str) -> None:
        """It has been asked for ``model``, and has said that it does not have it."""
        if self._models is not None and model in self._models:
            self._models = {name: digest for name, digest in self._models.items() if name != model}

    def loaded(self, names: frozenset[str] | None) -> None:
        """It has told which models are in memory."""
        self._loaded = names
        self._asked = set()

    def is_set_back(self) -> None:
        """A request has failed at it."""
        self._setbacks = self.setbacks() + 1
        self._set_back_at = time.monotonic()

    def has_answered(self) -> None:
        """A request has not, or it is back."""
        self._setbacks = 0

    def setbacks(self) -> int:
        """How many have failed lately, since one has not."""
        if self._setbacks and time.monotonic() - self._set_back_at > SETBACK_SECONDS:
            self._setbacks = 0
        return self._setbacks

    def begins(self, model: str) -> None:
        """It gets a request for ``model``."""
        self.used = next(_uses)
        self._running[model] += 1
        if len(self._asked) < MAX_REMEMBERED:
            self._asked.add(model)

    def ends(self, model: str) -> None:
        """It has done with one."""
        self._running[model] -= 1
        if not self._running[model]:
            del self._running[model]


_uses = itertools.count(1)


def able(members: Sequence[Member], model: str) -> list[Member]:
    """Those that may have ``model``: all but those that have told that they do not. If none has
    told that it does, all: it may have come there since."""
    if not any(member.has(model) for member in members):
        return list(members)
    return [member for member in members if member.has(model) or not member.is_known]


def ranked(
    members: Sequence[Member], model: str, *, tried: Collection[Member], loading_cost: float
) -> list[Member]:
    """Those that are to get a request for ``model`` now, the best first.

    Nobody gets one who is out while another is in. The least busy comes first, where a model that
    has to be loaded counts as ``loading_cost`` requests, and a recent failure as some, too; of
    several the one that has had none for longest.
    """
    left = [
        member for member in _of_one_version(able(members, model), model) if member not in tried
    ]
    if not left:
        return []
    best = min(member.standing for member in left)
    left = [member for member in left if member.standing is best]
    if len(left) > 1:
        left.sort(key=lambda member: _costs(member, model, loading_cost))
    return left


def _costs(member: Member, model: str, loading_cost: float) -> tuple[float, float]:
    load = member.slots.running + member.slots.queued
    load += member.setbacks() * SETBACK_COST
    return load + (0 if member.has_loaded(model) else loading_cost), member.used


def _of_one_version(members: list[Member], model: str) -> list[Member]:
    """Those that have the same version of ``model`` as the first that can be reached: a
    conversation is not to go on with another. Engines that tell no versions have any."""
    for first in members:
        version = first.digest(model)
        if version is not None and first.standing is not Standing.OUT:
            return [
                member
                for member in members
                if member.has(model) and member.digest(model) in (version, None)
            ]
    return members


def versions(cards: Iterable[ModelCard]) -> dict[str, str]:
    """The versions of the models of a member, by the engine's names of them."""
    digests = {card.id: card.metadata.get("digest") for card in cards}
    return {name: digest for name, digest in digests.items() if isinstance(digest, str)}


def conflicts(versions: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Of the versions of the models of each member, by its alias, the models that are not the same
    everywhere: the versions by the alias."""
    held: dict[str, dict[str, str]] = {}
    for alias, models in versions.items():
        for model, digest in models.items():
            held.setdefault(model, {})[alias] = digest
    return {model: each for model, each in sorted(held.items()) if len(set(each.values())) > 1}
