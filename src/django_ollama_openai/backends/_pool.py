"""Several backends as one."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from pydantic import NonNegativeFloat, PositiveFloat, validate_call

from .. import _conf
from .._closing import aclosed, closed
from .._translation.model_cards import ModelCard
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from ..exceptions import GatewayError, UpstreamTimeout
from ._asking import aanswers, answers
from ._base import BaseBackend
from ._failover import Attempts
from ._handler import backends
from ._monitor import Monitor
from ._selection import Member, Standing, conflicts, versions
from ._slots import Slot, Slots, Wait

__all__ = ["PoolBackend"]

logger = logging.getLogger("django_ollama_openai")

T = TypeVar("T")

ASK_SECONDS: Final = 4
"""How long members may take to list their models, or to say that they are ready. It is less than
``health`` waits for a backend."""


class PoolBackend(BaseBackend):
    """Spreads requests over several backends.

    Args:
        members: Their aliases in ``BACKENDS``. If they have different models of the same name, that
            of the first is used.
        loading_cost: The number of running requests that loading the model counts as. A member that
            has loaded the model is preferred until it is that much busier than another.
        look_seconds: Seconds between checks of the members' models and loaded models, while there
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
        look_seconds: PositiveFloat = 5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.members = tuple(members)
        _check_entry(self.alias, self.members)
        self.slots = _PoolSlots()
        self._loading_cost = loading_cost
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._crew: _Crew | None = None
        self._conflicts: dict[str, dict[str, str]] = {}

    def make_slots(self, limit: int | None, *, max_queue: int, timeout: float) -> Slots:
        # The limit is that of each member.
        return _PoolSlots(max_queue=max_queue, timeout=timeout)

    def _members(self) -> _Crew:
        crew = self._crew
        if crew is None:
            # Not in the constructor: nobody can be made while the pool is.
            with self._lock:
                crew = self._crew
                if crew is None:
                    crew = self._crew = self._gathered()
        return crew

    def _gathered(self) -> _Crew:
        members = [Member(alias, backends[alias]) for alias in self.members]
        monitor = Monitor(self.alias, members, self._look_seconds)
        monitor.on_look = self._tell_conflicts
        return _Crew(members, monitor)

    # Answers

    def chat(self, request: ChatCompletionRequest) -> Delta:
        return self._answer(request, lambda backend: backend.chat(request))

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        return await self._aanswer(request, lambda backend: backend.achat(request))

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        return self._stream(request, lambda backend: backend.stream_chat(request))

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        return self._astream(request, lambda backend: backend.astream_chat(request))

    def complete(self, request: CompletionRequest) -> Delta:
        return self._answer(request, lambda backend: backend.complete(request))

    async def acomplete(self, request: CompletionRequest) -> Delta:
        return await self._aanswer(request, lambda backend: backend.acomplete(request))

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        return self._stream(request, lambda backend: backend.stream_complete(request))

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        return self._astream(request, lambda backend: backend.astream_complete(request))

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        return self._answer(request, lambda backend: backend.embed(request))

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        return await self._aanswer(request, lambda backend: backend.aembed(request))

    def _answer(self, request: EngineRequest, ask: Callable[[BaseBackend], T]) -> T:
        self._members().monitor.attend()
        attempts = self._attempts(request)
        for attempt in attempts:
            with attempt as backend:
                return ask(backend)
        raise attempts.told()

    async def _aanswer(
        self, request: EngineRequest, ask: Callable[[BaseBackend], Awaitable[T]]
    ) -> T:
        await self._members().monitor.aattend()
        attempts = self._attempts(request)
        for attempt in attempts:
            async with attempt as backend:
                return await ask(backend)
        raise attempts.told()

    def _stream(
        self, request: EngineRequest, ask: Callable[[BaseBackend], Iterator[Delta]]
    ) -> Iterator[Delta]:
        self._members().monitor.attend()
        attempts = self._attempts(request)
        for attempt in attempts:
            with attempt as backend:
                deltas = ask(backend)
                with closed(deltas):
                    for delta in deltas:
                        attempt.begun = True
                        yield delta
                return
        raise attempts.told()

    async def _astream(
        self, request: EngineRequest, ask: Callable[[BaseBackend], AsyncIterator[Delta]]
    ) -> AsyncIterator[Delta]:
        await self._members().monitor.aattend()
        attempts = self._attempts(request)
        for attempt in attempts:
            async with attempt as backend:
                deltas = ask(backend)
                async with aclosed(deltas):
                    async for delta in deltas:
                        attempt.begun = True
                        yield delta
                return
        raise attempts.told()

    def _attempts(self, request: EngineRequest) -> Attempts:
        crew = self._members()
        members = crew.having(type(request))
        if not members:
            self.check_support(request)
        # Once: with what is asked after it the request waits anew.
        wait, _ = _wait.get(), _wait.set(None)
        return Attempts(
            members,
            str(request.model),
            queue=self.slots,
            wait=wait,
            loading_cost=self._loading_cost,
            observer=crew.monitor,
        )

    # Capabilities

    @property
    def supports_chat(self) -> bool:  # type: ignore[override]
        return bool(self._members().having(ChatCompletionRequest))

    @property
    def supports_completions(self) -> bool:  # type: ignore[override]
        return bool(self._members().having(CompletionRequest))

    @property
    def supports_embeddings(self) -> bool:  # type: ignore[override]
        return bool(self._members().having(EmbeddingsRequest))

    @property
    def supported_parameters(self) -> frozenset[str]:  # type: ignore[override]
        """What every member honours: any may get the request."""
        return self._members().parameters

    def unsupported_parameters(self, request: EngineRequest) -> list[str]:
        names = super().unsupported_parameters(request)
        for backend in self._members().particular:
            names += backend.unsupported_parameters(request)
        return list(dict.fromkeys(names))

    # Models

    def list_models(self) -> list[ModelCard]:
        """The models of all members; those of one that fails are left out, unless all fail."""
        crew = self._members()
        crew.monitor.attend()
        asks = {member: member.backend.list_models for member in crew.reachable()}
        return crew.union(dict(answers(asks, ASK_SECONDS)))

    async def alist_models(self) -> list[ModelCard]:
        crew = self._members()
        await crew.monitor.aattend()
        asks = {member: member.backend.alist_models for member in crew.reachable()}
        asked = aanswers(asks, ASK_SECONDS)
        async with aclosed(asked):
            return crew.union({member: answer async for member, answer in asked})

    def version_conflicts(self) -> dict[str, dict[str, str]]:
        """The models that members have in different versions, by the engine's names of them: the
        digest that each member has, by its alias. The members are asked, which takes some seconds
        where one is silent; those that do not answer are left out."""
        members = self._members().members
        found = dict(answers({each: each.backend.list_models for each in members}, ASK_SECONDS))
        told = {each: found[each] for each in members if each in found}
        return conflicts(
            {
                member.alias: versions(answer)
                for member, answer in told.items()
                if not isinstance(answer, Exception)
            }
        )

    def members_out(self) -> frozenset[str]:
        """The members that get no requests at the moment, as far as this process knows: it asks
        nobody, and knows of none before the pool's first request."""
        crew = self._crew
        members = () if crew is None else crew.members
        return frozenset(each.alias for each in members if each.standing is Standing.OUT)

    # Life

    def ping(self) -> None:
        """Return if any member is ready."""
        asks = {member: member.backend.ping for member in self._members().members}
        failure: Exception = _too_late()
        asked = answers(asks, ASK_SECONDS)
        with closed(asked):
            for _, answer in asked:
                if answer is None:
                    return
                failure = answer
        raise failure

    async def aping(self) -> None:
        asks = {member: member.backend.aping for member in self._members().members}
        failure: Exception = _too_late()
        asked = aanswers(asks, ASK_SECONDS)
        async with aclosed(asked):
            async for _, answer in asked:
                if answer is None:
                    return
                failure = answer
        raise failure

    def close(self) -> None:
        with self._lock:
            crew = self._crew
        if crew is not None:
            crew.monitor.close()

    def _tell_conflicts(self) -> None:
        """Log those that were not there at the last look."""
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


class _Crew:
    """The members of a pool, once they are there, and who looks at them."""

    def __init__(self, members: Sequence[Member], monitor: Monitor) -> None:
        self.members = members
        self.monitor = monitor
        backends = [member.backend for member in members]
        self.parameters = frozenset.intersection(
            *(backend.supported_parameters for backend in backends)
        )
        self.particular = [
            backend
            for backend in backends
            if type(backend).unsupported_parameters is not BaseBackend.unsupported_parameters
        ]
        """Those that say of each request which parameters they do not honour."""
        self._having: dict[type[EngineRequest], list[Member]] = {
            ChatCompletionRequest: [each for each in members if each.backend.supports_chat],
            CompletionRequest: [each for each in members if each.backend.supports_completions],
            EmbeddingsRequest: [each for each in members if each.backend.supports_embeddings],
        }

    def having(self, kind: type[EngineRequest]) -> Sequence[Member]:
        """Those that answer requests of this kind."""
        return self._having.get(kind, self.members)

    def reachable(self) -> Sequence[Member]:
        """Those that can be asked something that all know; all, if none is sure to answer."""
        return [each for each in self.members if each.standing is not Standing.OUT] or self.members

    def union(self, found: Mapping[Member, list[ModelCard] | Exception]) -> list[ModelCard]:
        """The models of all members that have told theirs; of the same name that of the first."""
        union: list[ModelCard] = []
        names: set[str] = set()
        failures: list[Exception] = []
        for member in self.members:
            answer = found.get(member, _too_late())
            if isinstance(answer, Exception):
                failures.append(answer)
                if not isinstance(answer, GatewayError):
                    logger.error("Listing the models of %r crashed", member.alias, exc_info=answer)
                continue
            member.listed(answer)
            new = [card for card in answer if names.isdisjoint(card.names)]
            names.update(name for card in new for name in card.names)
            union += new
        if len(failures) == len(self.members):
            raise failures[0]
        return union


def _too_late() -> UpstreamTimeout:
    return UpstreamTimeout("The engine did not answer in time.")


_wait: ContextVar[Wait | None] = ContextVar("pool_wait", default=None)
"""How the request that is answered waits, if that is to be accounted for."""


class _PoolSlots(Slots):
    """Those of a pool: none. What takes one says only how it waits; the slots are the members'."""

    def taken(self, wait: Wait) -> Slot:
        return _NoSlot(self, wait)


class _NoSlot(Slot):
    __slots__ = ()

    def __enter__(self) -> None:
        _wait.set(self._wait)

    async def __aenter__(self) -> None:
        _wait.set(self._wait)

    def __exit__(self, *error: object) -> None:
        # Not reset to what was: this may be another context, if nobody has closed it in time.
        _wait.set(None)

    async def __aexit__(self, *error: object) -> None:
        _wait.set(None)


def _check_entry(alias: str, members: Sequence[str]) -> None:
    """Refuse what cannot be a pool.

    Raises:
        ImproperlyConfigured: saying what is wrong.
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
    except ImportError:  # which is said of its own entry
        return False
    return isinstance(kind, type) and issubclass(kind, PoolBackend)
