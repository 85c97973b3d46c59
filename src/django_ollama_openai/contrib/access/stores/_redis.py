"""A store in Redis: one script for a reservation."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, NoScriptError
from redis.retry import Retry

from .._limits.ledger import Figures, Kind
from ._base import (
    LEASE_MICROSECONDS,
    BaseStore,
    Claim,
    Epochs,
    Held,
    Settlement,
    StoreDown,
    Verdict,
)
from ._redis_pipe import Pipe, packed

__all__ = ["RedisStore"]

SCRIPT: Final = files(__package__).joinpath("_redis.lua").read_bytes()
DIGEST: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
#: Seconds for which a server that has not answered is not called for optional operations.
DOWN_SECONDS: Final = 1.0
KINDS: Final[dict[Kind, int]] = {"bucket": 1, "calendar": 2, "concurrent": 3}


class RedisStore(BaseStore):
    """Keeps accounts in Redis or Valkey. A reservation is one script, and needs no thread.

    It announces changes: a new limit and a revoked key hold in all processes at once.

    Args:
        url: The address, such as ``redis://127.0.0.1:6379/0``; of a cluster that of any node.
        prefix: The first part of all keys. It is a hash tag, so that one node of a cluster has all
            of them, as a script requires.
        timeout: Seconds for a connection and for an answer.
        clock: Returns the time in microseconds since 1970; Redis' own clock if absent.
    """

    announces = True

    def __init__(
        self,
        *,
        url: str,
        prefix: str = "{ollama-openai}",
        timeout: float = 2,
        clock: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        self._clock = clock
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._options = {**options, "socket_connect_timeout": timeout, "decode_responses": True}
        self._down_until = 0.0
        # Connections belong to the event loop that has made them.
        self._pipes: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[str, Pipe]] = (
            WeakKeyDictionary()
        )
        self._use(url)
        # Unknown options are an error now, and not at the first request.
        self._client.connection_pool.make_connection()

    def _use(self, url: str) -> None:
        """Use the server at ``url`` from now on."""
        # A script whose answer is missing may have been executed: it is not repeated.
        once = Retry(NoBackoff(), 0)
        options = {**self._options, "socket_timeout": self._timeout, "retry": once}
        self._client, self._used_url = redis.Redis.from_url(url, **options), url

    def _move(self, error: MovedError) -> None:
        """Use the node of a cluster that has the keys: with their hash tag they are all on one."""
        scheme, address, *rest = urlsplit(self._url)
        credentials = "".join(address.rpartition("@")[:2])
        host = f"[{error.host}]" if ":" in error.host else error.host
        self._use(urlunsplit((scheme, f"{credentials}{host}:{error.port}", *rest)))

    def announce(self, what: Literal["limits", "keys"]) -> None:
        command = (b"SET", f"{self._prefix}:{what}".encode(), uuid4().hex.encode())
        try:
            self._execute(*command)
        except redis.RedisError as error:
            raise self._down() from error

    def reserve(self, request: UUID, claims: Sequence[Claim], epoch: str | None = None) -> Verdict:
        self._skip_if_down(claims)
        return _verdict(claims, self._run("reserve", request, _unheld(claims), epoch))

    async def areserve(
        self, request: UUID, claims: Sequence[Claim], epoch: str | None = None
    ) -> Verdict:
        self._skip_if_down(claims)
        return _verdict(claims, await self._arun("reserve", request, _unheld(claims), epoch))

    def settle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        self._run("settle", request, settlements)

    async def asettle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        await self._arun("settle", request, settlements)

    def renew(self, running: Mapping[UUID, Sequence[Held]]) -> None:
        for request, held in running.items():
            self._run("renew", request, [Settlement(each, 0) for each in held])

    def read(self, claims: Sequence[Claim]) -> Sequence[Figures]:
        return _figures(self._run("read", UUID(int=0), _unheld(claims))[4:])

    def _skip_if_down(self, claims: Sequence[Claim]) -> None:
        """Spare a request that claims nothing the wait for a server that has just not answered.

        Raises:
            StoreDown: The server is not to be called.
        """
        if not claims and time.monotonic() < self._down_until:
            raise StoreDown

    def _run(
        self,
        operation: str,
        request: UUID,
        parts: Sequence[Settlement],
        epoch: str | None = None,
    ) -> list[str]:
        call = self._call(operation, request, parts, epoch)
        try:
            try:
                answer = self._execute(b"EVALSHA", DIGEST, *call)
            except NoScriptError:
                answer = self._execute(b"EVAL", SCRIPT, *call)
        except redis.RedisError as error:
            raise self._down() from error
        return str(answer).split()

    def _execute(self, *command: bytes) -> Any:
        try:
            return self._send(*command)
        except MovedError as error:
            self._move(error)
        return self._send(*command)

    def _send(self, *command: bytes) -> Any:
        execute: Callable[..., Any] = self._client.execute_command
        return execute(*command)

    async def _arun(
        self,
        operation: str,
        request: UUID,
        parts: Sequence[Settlement],
        epoch: str | None = None,
    ) -> list[str]:
        call = self._call(operation, request, parts, epoch)
        try:
            try:
                answer = await self._aexecute(b"EVALSHA", DIGEST, *call)
            except NoScriptError:
                answer = await self._aexecute(b"EVAL", SCRIPT, *call)
        except redis.RedisError as error:
            raise self._down() from error
        return str(answer).split()

    async def _aexecute(self, *command: bytes) -> Any:
        try:
            return await self._pipe().call(packed(*command))
        except MovedError as error:
            self._move(error)
        return await self._pipe().call(packed(*command))

    def _pipe(self) -> Pipe:
        loop = asyncio.get_running_loop()
        url, pipe = self._pipes.get(loop, ("", None))
        if pipe is None or url != self._used_url:
            if pipe is not None:
                pipe.close()
            once = AsyncRetry(NoBackoff(), 0)
            # The pipe has the timeouts.
            options = {**self._options, "socket_timeout": None, "retry": once}
            pipe = Pipe(redis.asyncio.Redis.from_url(self._used_url, **options), self._timeout)
            self._pipes[loop] = self._used_url, pipe
        return pipe

    def _down(self) -> StoreDown:
        self._down_until = time.monotonic() + DOWN_SECONDS
        if self._used_url != self._url:
            # Another node of the cluster may have the keys now.
            self._use(self._url)
        return StoreDown()

    def _call(
        self, operation: str, request: UUID, parts: Sequence[Settlement], epoch: str | None
    ) -> list[bytes]:
        """Return the number of keys, the keys, and the arguments of the script."""
        prefix = self._prefix
        keys = [f"{prefix}:limits", f"{prefix}:keys"]
        moment = 0 if self._clock is None else self._clock()
        known = "" if epoch is None else f"={epoch}"
        arguments = [operation, request.hex, f"{moment} {LEASE_MICROSECONDS}", known]
        for part in parts:
            claim, rule = part.held.claim, part.held.claim.rule
            account = f"{prefix}:{claim.account}"
            keys += [account, f"{account}:leases"]
            arguments.append(
                f"{KINDS[rule.kind]} {rule.amount} {rule.begin} {rule.length} {claim.is_leased:d} "
                f"{claim.amount} {part.actual} {part.held.period}"
            )
        if operation == "settle":
            keys.append(f"{prefix}:settled:{request.hex}")
        return [each.encode() for each in (str(len(keys)), *keys, *arguments)]


def _unheld(claims: Sequence[Claim]) -> list[Settlement]:
    return [Settlement(Held(claim, 0), 0) for claim in claims]


def _verdict(claims: Sequence[Claim], answer: Sequence[str]) -> Verdict:
    """Return what the script has answered: two epochs, the number of the refused claim, 0 for none
    and -1 if limits have changed, the microseconds to wait, and four numbers for each claim."""
    limits, keys, worst, wait, *rest = answer
    epochs = Epochs(limits, keys)
    refused = int(worst)
    if refused < 0:
        return Verdict((), epochs=epochs, is_stale=True)
    figures = _figures(rest)
    if refused:
        return Verdict(figures, refused=(refused - 1, int(wait)), epochs=epochs)
    periods = map(int, rest[3::4])
    held = [Held(claim, period) for claim, period in zip(claims, periods, strict=True)]
    return Verdict(figures, held, epochs=epochs)


def _figures(numbers: Sequence[str]) -> list[Figures]:
    return [
        Figures(int(used), int(remaining), int(reset))
        for used, remaining, reset in zip(numbers[::4], numbers[1::4], numbers[2::4], strict=True)
    ]
