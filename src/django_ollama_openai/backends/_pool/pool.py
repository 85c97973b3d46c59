"""The backend that spreads requests over others."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from pydantic import NonNegativeFloat, PositiveFloat, validate_call

from ... import _conf
from ..._closing import aclosed, closed
from ..._translation.model_cards import ModelCard
from ..._wire.chat import ChatCompletionRequest
from ..._wire.completions import CompletionRequest
from ..._wire.delta import Delta, Embeddings
from ..._wire.embeddings import EmbeddingsRequest
from ..._wire.engine import EngineRequest
from ...exceptions import GatewayError, UpstreamTimeout
from .._base import BaseBackend
from .._fan_out import afan_out, fan_out
from .._handler import backends
from .._leases import Leases, aonce, astream, once, stream
from .._slots import QueueTicket
from .leases import PoolRequest
from .monitor import Monitor
from .selection import Health, Member, conflicts, versions

__all__ = ["PoolBackend"]

logger = logging.getLogger("django_ollama_openai")

T = TypeVar("T")

#: Maximum time for members to list their models, or to answer a ping: less than ``health`` waits
#: for a backend.
ANSWER_SECONDS: Final = 4


class PoolBackend(BaseBackend):
    """Spreads requests over several backends.

    Args:
        members: Their aliases in ``BACKENDS``. If they have different models of the same name, that
            of the first is used.
        loading_cost: The number of running requests that loading the model counts as. A member that
            has loaded the model is preferred until it is that much busier than another.
        probe_interval: Seconds between checks of the members' models and loaded models, while there
            are requests.

    Each member keeps its own ``MAX_CONCURRENCY``, which also counts requests that name the member.
    ``MAX_QUEUE`` and ``QUEUE_TIMEOUT`` of the pool's entry limit the requests that wait for a
    member.
    """

    @validate_call
    def __init__(
        self,
        *,
        members: list[str],
        loading_cost: NonNegativeFloat = 4,
        probe_interval: PositiveFloat = 5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.members = tuple(members)
        _check_entry(self.alias, self.members)
        self._loading_cost = loading_cost
        self._probe_interval = probe_interval
        self._lock = threading.Lock()
        self._pool_members: PoolMembers | None = None
        self._conflicts: dict[str, dict[str, str]] = {}

    def engines(self) -> tuple[str, ...]:
        return self.members

    def limit_requests(self, limit: int | None, *, max_queue: int, timeout: float) -> None:
        # Each member has a limit of its own.
        super().limit_requests(None, max_queue=max_queue, timeout=timeout)

    def _members(self) -> PoolMembers:
        pool_members = self._pool_members
        if pool_members is None:
            # Not in the constructor: no other backend can be made while the pool is.
            with self._lock:
                pool_members = self._pool_members
                if pool_members is None:
                    members = [Member(alias, backends[alias]) for alias in self.members]
                    monitor = Monitor(
                        self.alias, members, self._probe_interval, self._log_conflicts
                    )
                    pool_members = self._pool_members = PoolMembers(members, monitor)
        return pool_members

    # Answers

    def leases(self, request: EngineRequest, ticket: QueueTicket) -> Leases:
        """Yield a lease for each member to try, the best first, until one has answered."""
        pool_members = self._members()
        members = pool_members.supporting(type(request))
        if not members:
            self.check_support(request)
        tries = PoolRequest(
            self,
            members,
            str(request.model),
            loading_cost=self._loading_cost,
            monitor=pool_members.monitor,
        )
        return tries.leases(ticket)

    def chat(self, request: ChatCompletionRequest) -> Delta:
        return self._answer(request, lambda backend: backend.chat(request))

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        return await self._aanswer(request, lambda backend: backend.achat(request))

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        leases = self.leases(request, QueueTicket())
        return stream(leases, lambda lease: [lease.backend.stream_chat(request)])

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        leases = self.leases(request, QueueTicket())
        return astream(leases, lambda lease: [lease.backend.astream_chat(request)])

    def complete(self, request: CompletionRequest) -> Delta:
        return self._answer(request, lambda backend: backend.complete(request))

    async def acomplete(self, request: CompletionRequest) -> Delta:
        return await self._aanswer(request, lambda backend: backend.acomplete(request))

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        leases = self.leases(request, QueueTicket())
        return stream(leases, lambda lease: [lease.backend.stream_complete(request)])

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        leases = self.leases(request, QueueTicket())
        return astream(leases, lambda lease: [lease.backend.astream_complete(request)])

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        return self._answer(request, lambda backend: backend.embed(request))

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        return await self._aanswer(request, lambda backend: backend.aembed(request))

    def _answer(self, request: EngineRequest, call: Callable[[BaseBackend], T]) -> T:
        leases = self.leases(request, QueueTicket())
        (answer,) = stream(leases, lambda lease: [once(partial(call, lease.backend))])
        return answer

    async def _aanswer(
        self, request: EngineRequest, call: Callable[[BaseBackend], Awaitable[T]]
    ) -> T:
        leases = self.leases(request, QueueTicket())
        answers = astream(leases, lambda lease: [aonce(partial(call, lease.backend))])
        (answer,) = [each async for each in answers]
        return answer

    # Capabilities

    @property
    def supports_chat(self) -> bool:  # type: ignore[override]
        return bool(self._members().supporting(ChatCompletionRequest))

    @property
    def supports_completions(self) -> bool:  # type: ignore[override]
        return bool(self._members().supporting(CompletionRequest))

    @property
    def supports_embeddings(self) -> bool:  # type: ignore[override]
        return bool(self._members().supporting(EmbeddingsRequest))

    @property
    def supported_parameters(self) -> frozenset[str]:  # type: ignore[override]
        """The parameters that every member supports: any of them may get the request."""
        return self._members().parameters

    def unsupported_parameters(self, request: EngineRequest) -> list[str]:
        names = super().unsupported_parameters(request)
        for backend in self._members().particular:
            names += backend.unsupported_parameters(request)
        return list(dict.fromkeys(names))

    # Models

    def list_models(self) -> list[ModelCard]:
        """Return the models of all members. A member that fails is left out, unless all fail."""
        pool_members = self._members()
        pool_members.monitor.note_traffic()
        calls = {member: member.backend.list_models for member in pool_members.reachable()}
        return pool_members.union(dict(fan_out(calls, ANSWER_SECONDS)))

    async def alist_models(self) -> list[ModelCard]:
        pool_members = self._members()
        await pool_members.monitor.anote_traffic()
        calls = {member: member.backend.alist_models for member in pool_members.reachable()}
        results = afan_out(calls, ANSWER_SECONDS)
        async with aclosed(results):
            return pool_members.union({member: result async for member, result in results})

    def version_conflicts(self) -> dict[str, dict[str, str]]:
        """Return the models that members have in different versions, by the engine's names of them:
        the digest of each member, by its alias. This sends requests to the members; those that do
        not respond within some seconds are left out."""
        members = self._members().members
        calls = {each: each.backend.list_models for each in members}
        results = dict(fan_out(calls, ANSWER_SECONDS))
        held = {}
        for member in members:
            cards = results.get(member)
            if isinstance(cards, list):
                held[member.alias] = versions(cards)
        return conflicts(held)

    def unhealthy_members(self) -> frozenset[str]:
        """Return the aliases of the members that get no requests at the moment, as far as this
        process knows. It sends nothing, and returns none before the pool's first request."""
        pool_members = self._pool_members
        members = () if pool_members is None else pool_members.members
        return frozenset(each.alias for each in members if each.health is Health.UNHEALTHY)

    # Life

    def ping(self) -> None:
        """Return if any member is ready; raise the last exception if none is."""
        failure: Exception = _too_late()
        results = fan_out(
            {member: member.backend.ping for member in self._members().members}, ANSWER_SECONDS
        )
        with closed(results):
            for _, result in results:
                if result is None:
                    return
                failure = result
        raise failure

    async def aping(self) -> None:
        failure: Exception = _too_late()
        results = afan_out(
            {member: member.backend.aping for member in self._members().members}, ANSWER_SECONDS
        )
        async with aclosed(results):
            async for _, result in results:
                if result is None:
                    return
                failure = result
        raise failure

    def close(self) -> None:
        with self._lock:
            pool_members = self._pool_members
        if pool_members is not None:
            pool_members.monitor.close()

    def _log_conflicts(self) -> None:
        """Log the conflicts that are new."""
        versions = {member.alias: member.versions for member in self._members().members}
        known, self._conflicts = self._conflicts, conflicts(versions)
        for model, digests in self._conflicts.items():
            if known.get(model) != digests:
                logger.warning(
                    "The members of the pool %r have different versions of the model %r: %s. "
                    "Requests go to those that have the same as the first that can be reached. "
                    "Pull it on the others.",
                    self.alias,
                    model,
                    ", ".join(f"{alias} {digest[:12]}" for alias, digest in digests.items()),
                )


class PoolMembers:
    """The members of a pool, with what follows from their classes."""

    def __init__(self, members: Sequence[Member], monitor: Monitor) -> None:
        self.members = members
        self.monitor = monitor
        backends = [member.backend for member in members]
        self.parameters = frozenset.intersection(
            *(backend.supported_parameters for backend in backends)
        )
        #: The backends that decide for each request which parameters they do not support.
        self.particular = [
            backend
            for backend in backends
            if type(backend).unsupported_parameters is not BaseBackend.unsupported_parameters
        ]
        self._supporting: dict[type[EngineRequest], list[Member]] = {
            ChatCompletionRequest: [each for each in members if each.backend.supports_chat],
            CompletionRequest: [each for each in members if each.backend.supports_completions],
            EmbeddingsRequest: [each for each in members if each.backend.supports_embeddings],
        }

    def supporting(self, kind: type[EngineRequest]) -> Sequence[Member]:
        """Return the members that answer requests of the class ``kind``."""
        return self._supporting.get(kind, self.members)

    def reachable(self) -> Sequence[Member]:
        """Return the members that are not unhealthy; all, if all are."""
        healthy = [each for each in self.members if each.health is not Health.UNHEALTHY]
        return healthy or self.members

    def union(self, results: Mapping[Member, list[ModelCard] | Exception]) -> list[ModelCard]:
        """Return the models of all members; of several with one name that of the first."""
        union: list[ModelCard] = []
        names: set[str] = set()
        failures: list[Exception] = []
        for member in self.members:
            cards = results.get(member, _too_late())
            if isinstance(cards, Exception):
                failures.append(cards)
                if not isinstance(cards, GatewayError):
                    logger.error("Listing the models of %r crashed", member.alias, exc_info=cards)
                continue
            member.note_models(cards)
            new = [card for card in cards if names.isdisjoint(card.names)]
            names.update(name for card in new for name in card.names)
            union += new
        if len(failures) == len(self.members):
            raise failures[0]
        return union


def _too_late() -> UpstreamTimeout:
    return UpstreamTimeout("The engine did not answer in time.")


def _check_entry(alias: str, members: Sequence[str]) -> None:
    """Check the entry of a pool in ``BACKENDS``.

    Raises:
        ImproperlyConfigured: Its members or its limit are wrong.
    """
    entries = _conf.get().BACKENDS
    others = ", ".join(repr(each) for each in entries if each != alias) or "no others"
    if not members:
        raise ImproperlyConfigured(f"members: name at least one backend; there are {others}.")
    for member in members:
        if member == alias:
            raise ImproperlyConfigured(f"members: {member!r} is the pool itself.")
        if member not in entries:
            raise ImproperlyConfigured(f"members: there is no {member!r}; there are {others}.")
        if members.count(member) > 1:
            raise ImproperlyConfigured(f"members: {member!r} is named more than once.")
        if _is_pool(entries[member].BACKEND):
            raise ImproperlyConfigured(
                f"members: {member!r} is a pool, too; name its members instead."
            )
    if alias in entries and entries[alias].MAX_CONCURRENCY is not None:
        raise ImproperlyConfigured(
            "MAX_CONCURRENCY: a pool has none; set it in the entries of its members."
        )


def _is_pool(path: str) -> bool:
    try:
        kind = import_string(path)
    except ImportError:  # reported for its own entry
        return False
    return isinstance(kind, type) and issubclass(kind, PoolBackend)
