"""A store in Redis: one script for a reservation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Literal
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.commands.core import AsyncScript, Script

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

__all__ = ["RedisStore"]

SCRIPT: Final = files(__package__).joinpath("_redis.lua").read_text()
#: Seconds for which a server that has not answered is not called for optional operations.
DOWN_SECONDS: Final = 1.0
KINDS: Final[dict[Kind, int]] = {"bucket": 1, "calendar": 2, "concurrent": 3}


class RedisStore(BaseStore):
    """Keeps accounts in Redis or Valkey. A reservation is one script, and needs no thread.

    It announces changes: a new limit and a revoked key hold in all processes at once.

    Args:
        url: The address, such as ``redis://127.0.0.1:6379/0``.
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
        self._options = {"socket_timeout": timeout, "socket_connect_timeout": timeout, **options}
        self._client = redis.Redis.from_url(url, **self._options)
        self._script: Script = self._client.register_script(SCRIPT)
        self._down_until = 0.0
        # Connections belong to the event loop that has made them.
        self._scripts: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncScript] = (
            WeakKeyDictionary()
        )

    def announce(self, what: Literal["limits", "keys"]) -> None:
        try:
            self._client.set(f"{self._prefix}:{what}", uuid4().hex)
        except redis.RedisError as error:
            raise StoreDown from error

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
    ) -> list[Any]:
        try:
            return _list(self._script(*self._call(operation, request, parts, epoch)))
        except redis.RedisError as error:
            raise self._down() from error

    async def _arun(
        self,
        operation: str,
        request: UUID,
        parts: Sequence[Settlement],
        epoch: str | None = None,
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        script = self._scripts.get(loop)
        if script is None:
            client = redis.asyncio.Redis.from_url(self._url, **self._options)
            script = self._scripts[loop] = client.register_script(SCRIPT)
        try:
            return _list(await script(*self._call(operation, request, parts, epoch)))
        except redis.RedisError as error:
            raise self._down() from error

    def _down(self) -> StoreDown:
        self._down_until = time.monotonic() + DOWN_SECONDS
        return StoreDown()

    def _call(
        self, operation: str, request: UUID, parts: Sequence[Settlement], epoch: str | None
    ) -> tuple[list[Any], list[Any]]:
        """Return the keys and the arguments of the script."""
        keys: list[Any] = [f"{self._prefix}:limits", f"{self._prefix}:keys"]
        moment = 0 if self._clock is None else self._clock()
        arguments: list[Any] = [
            operation,
            request.hex,
            LEASE_MICROSECONDS,
            moment,
            "" if epoch is None else "known",
            epoch or "",
        ]
        for part in parts:
            claim, rule = part.held.claim, part.held.claim.rule
            keys += [f"{self._prefix}:{claim.account}", f"{self._prefix}:{claim.account}:leases"]
            arguments += [
                KINDS[rule.kind],
                rule.amount,
                rule.begin,
                rule.length,
                int(claim.is_leased),
                claim.amount,
                part.actual,
                part.held.period,
            ]
        return keys, arguments


def _unheld(claims: Sequence[Claim]) -> list[Settlement]:
    return [Settlement(Held(claim, 0), 0) for claim in claims]


def _list(answer: Any) -> list[Any]:
    """Return the answer of the script: two epochs, the number of the refused claim, 0 for none and
    -1 if limits have changed, the microseconds to wait, and four numbers for each claim."""
    return [each.decode() if isinstance(each, bytes) else each for each in answer]


def _verdict(claims: Sequence[Claim], answer: Sequence[Any]) -> Verdict:
    limits, keys, worst, wait, *rest = answer
    epochs = Epochs(limits, keys)
    if int(worst) < 0:
        return Verdict((), epochs=epochs, is_stale=True)
    figures = _figures(rest)
    if int(worst):
        return Verdict(figures, refused=(int(worst) - 1, int(wait)), epochs=epochs)
    periods = map(int, rest[3::4])
    held = [Held(claim, period) for claim, period in zip(claims, periods, strict=True)]
    return Verdict(figures, held, epochs=epochs)


def _figures(numbers: Sequence[Any]) -> list[Figures]:
    return [
        Figures(int(used), int(remaining), int(reset))
        for used, remaining, reset in zip(numbers[::4], numbers[1::4], numbers[2::4], strict=True)
    ]
