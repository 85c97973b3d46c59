"""What a pool does when a member fails: pure state, the same under WSGI and ASGI.

:class:`Attempts` is iterated over, and each :class:`Attempt` is a context that has a slot of a
member. It swallows the failures after which there may be another attempt::

    for attempt in attempts:
        with attempt as backend:
            return backend.chat(request)
    raise attempts.told()
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Protocol

import httpx

from ..exceptions import GatewayError, ModelNotFound, Overloaded, UpstreamError, UpstreamUnavailable
from ._base import BaseBackend
from ._http_client import UpstreamStatusError
from ._selection import Member, able, ranked
from ._slots import AnySlot, Slots, Wait

__all__ = [
    "Attempt",
    "Attempts",
    "broke_off",
    "cannot_be_reached",
    "causes",
    "has_answered",
    "operator_message",
]

NOT_BEGUN: Final = (UpstreamUnavailable, Overloaded, ModelNotFound)
"""Failures of a member that has not begun to work on the request."""

MAX_BROKEN: Final = 2
"""How many members may fail while they work on the same request. It may be what kills them."""

_UNREACHED: Final = (httpx.ConnectError, httpx.ConnectTimeout, ConnectionRefusedError)


def cannot_be_reached(error: BaseException) -> bool:
    """Whether there was no connection to the engine at all. A client cannot bring that about while
    the engine is well."""
    return (
        isinstance(error, GatewayError)
        and isinstance(error.__cause__, _UNREACHED)
        and not any(map(_is_of_this_process, causes(error)))
    )


def operator_message(error: GatewayError, backend: BaseBackend | None) -> str:
    """Return the message of ``error`` for operators. If the engine of ``backend`` cannot be
    reached, it has the address and the remedy; ``error.message``, for clients, has neither.
    """
    if backend is None or not backend.address or not cannot_be_reached(error):
        return error.message
    return f"The engine cannot be reached at {backend.address}: {backend.advice}."


def causes(error: BaseException) -> Iterator[BaseException]:
    """What is behind ``error``, the nearest first."""
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_of_this_process(cause: BaseException) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def has_answered(error: BaseException) -> bool:
    """Whether the engine is there, and has answered with a status of its own."""
    return isinstance(error, GatewayError) and isinstance(error.__cause__, UpstreamStatusError)


def broke_off(error: BaseException) -> bool:
    """Whether the connection to the engine broke off. A request that crashes the engine brings that
    about, too, so it says little about the next one. A timeout says nothing: the request may just
    take long."""
    cause = error.__cause__
    return (
        isinstance(error, GatewayError)
        and isinstance(cause, (httpx.TransportError, ConnectionError))
        and not isinstance(cause, (httpx.TimeoutException, httpx.LocalProtocolError))
    )


class Observer(Protocol):
    """Who keeps the standing of members."""

    def failed(self, member: Member, error: Exception) -> None: ...

    def succeeded(self, member: Member) -> None: ...


class Attempts:
    """What was tried for one request, and what may still be.

    ``queue`` limits who waits for slots of ``members``; ``observer`` is told what becomes of them.
    """

    def __init__(
        self,
        members: Sequence[Member],
        model: str,
        *,
        queue: Slots,
        wait: Wait | None,
        loading_cost: float,
        observer: Observer,
    ) -> None:
        self.members = members
        self.model = model
        self.loading_cost = loading_cost
        self.tried: list[Member] = []
        self._queue = queue
        self._wait = wait
        # All choices of a request share it, and what they have broken.
        self._request = wait or Wait()
        self._observer = observer
        self._failure: GatewayError | None = None

    def __iter__(self) -> Iterator[Attempt]:
        while not self.tried or (self._request.broken < MAX_BROKEN and self.ranked()):
            # The next wait is one of its own: a request that had a slot would wait without limit.
            wait, self._wait = self._wait or Wait(), None
            yield Attempt(self, self._queue, wait)

    def ranked(self) -> list[Member]:
        """Who may be tried now, the best first."""
        return ranked(self.members, self.model, tried=self.tried, loading_cost=self.loading_cost)

    def failed(self, member: Member, error: Exception, *, begun: bool) -> bool:
        """``member`` has failed, after its first delta or before; whether another may be tried."""
        self._observer.failed(member, error)
        if isinstance(error, UpstreamError):
            member.is_set_back()
        if begun or not isinstance(error, (*NOT_BEGUN, UpstreamError)):
            return False
        self.tried.append(member)
        if isinstance(error, ModelNotFound):
            member.lacks(self.model)
        elif not isinstance(error, NOT_BEGUN):
            self._request.broken += 1
        # That one lacks the model says little, if another that may have it cannot be asked.
        is_of_no_use = isinstance(error, ModelNotFound) or member.is_without(self.model)
        if self._failure is None or not is_of_no_use:
            self._failure = error
        return True

    def succeeded(self, member: Member) -> None:
        """``member`` has answered."""
        member.has_answered()
        self._observer.succeeded(member)

    def end(self) -> None:
        """Forget what has failed: its traceback holds on to the request."""
        self._failure = None

    def told(self) -> GatewayError:
        """What the client is told when nothing is left to be tried."""
        failure, self._failure = self._failure, None
        return failure or UpstreamUnavailable()


class _Pick:
    """The choice of a member for one attempt."""

    __slots__ = ("_attempts", "member")

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self.member: Member | None = None

    @property
    def lines(self) -> list[Slots]:
        attempts = self._attempts
        members = able(attempts.members, attempts.model)
        return [member.slots for member in members if member not in attempts.tried]

    def ranked(self) -> list[Slots]:
        return [member.slots for member in self._attempts.ranked()]

    def granted(self, slots: Slots) -> None:
        attempts = self._attempts
        (self.member,) = (each for each in attempts.members if each.slots is slots)
        self.member.begins(attempts.model)

    def returned(self, slots: Slots) -> None:
        if self.member is not None:
            self.member.ends(self._attempts.model)


class Attempt:
    """One attempt: a context that has a slot of a member, and gives the member's backend."""

    __slots__ = ("_attempts", "_pick", "_slot", "begun")

    def __init__(self, attempts: Attempts, queue: Slots, wait: Wait) -> None:
        self._attempts = attempts
        self._pick = _Pick(attempts)
        self._slot: AnySlot = queue.taken_of(self._pick, wait)
        self.begun = False
        """Whether the client has something of the answer: what fails now has failed for good."""

    def __enter__(self) -> BaseBackend:
        try:
            self._slot.__enter__()
        except BaseException:
            self._attempts.end()
            raise
        return self._backend()

    async def __aenter__(self) -> BaseBackend:
        try:
            await self._slot.__aenter__()
        except BaseException:
            self._attempts.end()
            raise
        return self._backend()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._slot.__exit__()
        member, attempts = self._pick.member, self._attempts
        if member is not None and isinstance(error, Exception):
            if attempts.failed(member, error, begun=self.begun):
                return True
        elif member is not None and error is None:
            attempts.succeeded(member)
        attempts.end()
        return False

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return self.__exit__(kind, error, traceback)

    def _backend(self) -> BaseBackend:
        if self._pick.member is None:
            raise RuntimeError("There is a slot of nobody")
        return self._pick.member.backend
