"""A store in Redis: one script for a reservation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.commands.core import AsyncScript, Script

from .._limits.ledger import Figures, Kind
from ._base import LEASE_MICROSECONDS, BaseStore, Claim, Held, Settlement, StoreDown, Verdict

__all__ = ["RedisStore"]

SCRIPT: Final = files(__package__).joinpath("_redis.lua").read_text()
KINDS: Final[dict[Kind, int]] = {"bucket": 1, "calendar": 2, "concurrent": 3}


class RedisStore(BaseStore):
    """Keeps accounts in Redis or Valkey. A reservation is one script, and needs no thread.

    Args:
        url: The address, such as ``redis://127.0.0.1:6379/0``.
        prefix: The first part of all keys. It is a hash tag, so that one node of a cluster has all
            of them, as a script requires.
        timeout: Seconds for a connection and for an answer.
        clock: Returns the time in microseconds since 1970; Redis' own clock if absent.
    """

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
        self._script: Script = redis.Redis.from_url(url, **self._options).register_script(SCRIPT)
        # Connections belong to the event loop that has made them.
        self._scripts: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncScript] = (
            WeakKeyDictionary()
        )

    def reserve(self, request: UUID, claims: Sequence[Claim]) -> Verdict:
        return _verdict(claims, self._run("reserve", request, _unheld(claims)))

    async def areserve(self, request: UUID, claims: Sequence[Claim]) -> Verdict:
        return _verdict(claims, await self._arun("reserve", request, _unheld(claims)))

    def settle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        self._run("settle", request, settlements)

    async def asettle(self, request: UUID, settlements: Sequence[Settlement]) -> None:
        await self._arun("settle", request, settlements)

    def renew(self, running: Mapping[UUID, Sequence[Held]]) -> None:
        for request, held in running.items():
            self._run("renew", request, [Settlement(each, 0) for each in held])

    def read(self, claims: Sequence[Claim]) -> Sequence[Figures]:
        return _figures(self._run("read", UUID(int=0), _unheld(claims)))

    def _run(self, operation: str, request: UUID, parts: Sequence[Settlement]) -> list[int]:
        try:
            return _numbers(self._script(*self._call(operation, request, parts)))
        except redis.RedisError as error:
            raise StoreDown from error

    async def _arun(self, operation: str, request: UUID, parts: Sequence[Settlement]) -> list[int]:
        loop = asyncio.get_running_loop()
        script = self._scripts.get(loop)
        if script is None:
            client = redis.asyncio.Redis.from_url(self._url, **self._options)
            script = self._scripts[loop] = client.register_script(SCRIPT)
        try:
            return _numbers(await script(*self._call(operation, request, parts)))
        except redis.RedisError as error:
            raise StoreDown from error

    def _call(
        self, operation: str, request: UUID, parts: Sequence[Settlement]
    ) -> tuple[list[Any], list[Any]]:
        """Return the keys and the arguments of the script."""
        keys: list[Any] = []
        moment = 0 if self._clock is None else self._clock()
        arguments: list[Any] = [operation, request.hex, LEASE_MICROSECONDS, moment]
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


def _numbers(answer: Sequence[bytes | str]) -> list[int]:
    return [int(each) for each in answer]


def _verdict(claims: Sequence[Claim], numbers: Sequence[int]) -> Verdict:
    worst, wait, *rest = numbers
    figures = _figures(rest)
    if worst:
        return Verdict(figures, refused=(worst - 1, wait))
    return Verdict(
        figures, [Held(claim, period) for claim, period in zip(claims, rest[3::4], strict=True)]
    )


def _figures(numbers: Sequence[int]) -> list[Figures]:
    return [
        Figures(used, remaining, reset)
        for used, remaining, reset in zip(numbers[::4], numbers[1::4], numbers[2::4], strict=True)
    ]
