"""One connection to Redis for all requests of an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

import redis
import redis.asyncio

__all__ = ["Pipe", "packed"]

T = TypeVar("T")


def packed(*parts: bytes) -> bytes:
    """Return a command as Redis reads it."""
    body = b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])
    return b"*%d\r\n%b" % (len(parts), body)


class Pipe:
    """Sends commands over one connection, each without waiting for the answers of those before.

    Commands have to be short for the server, since it answers in their order. Compared to a pool,
    this saves most of a command's CPU time. Nothing is repeated: a command whose answer is missing
    may have been executed. The client's own ``socket_timeout`` has to be ``None``.

    Args:
        client: Makes the connection, which is the first time and after a failure.
        timeout: Seconds for a connection, and for an answer.
    """

    def __init__(self, client: redis.asyncio.Redis, timeout: float) -> None:
        self._make_connection: Callable[[], Any] = client.connection_pool.make_connection
        self._timeout = timeout
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None

    async def call(self, command: bytes) -> Any:
        """Send a :func:`packed` command, and return its answer.

        Raises:
            RedisError: The answer is an error, is late, or does not come.
        """
        link = self._link
        if link is None or not link.is_open:
            if self._connecting is None:
                self._connecting = _start(self._connect())
            # All that wait for the connection get its error.
            link = await asyncio.shield(self._connecting)
        return await link.call(command)

    def close(self) -> None:
        """Close the connection; what waits for answers gets an error."""
        if self._link is not None:
            self._link.close()

    async def _connect(self) -> _Link:
        connection = self._make_connection()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise redis.TimeoutError("Redis does not accept a connection.") from error
        finally:
            self._connecting = None
        self._link = _Link(connection, self._timeout)
        return self._link


class _Link:
    """An open connection, and the commands that wait for its answers."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._is_sending = False
        #: When the commands were sent, and their answers.
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._reader = _start(self._read())

    @property
    def is_open(self) -> bool:
        return not self._is_lost and bool(self._connection.is_connected)

    async def call(self, command: bytes) -> Any:
        answer = self._loop.create_future()
        self._waiting.append((self._loop.time(), answer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._check)
        self._unsent.append(command)
        if not self._is_sending:
            await self._send()
        return await answer

    def close(self) -> None:
        self._reader.cancel()

    async def _send(self) -> None:
        """Write all that is unsent. There is one writer at a time: asyncio of Python 3.13.0 loses
        track of a socket that is written to again before its loss is known."""
        self._is_sending = True
        try:
            # What else is ready in this round of the loop shares the write: it is most of the cost.
            await asyncio.sleep(0)
            while self._unsent:
                unsent, self._unsent = self._unsent, []
                await self._connection.send_packed_command(unsent, check_health=False)
        except redis.RedisError as error:
            self._lose(error)
        except BaseException:
            # The request is cancelled, and with it what it was sending.
            self._lose(redis.ConnectionError("A command was interrupted."))
            raise
        finally:
            self._is_sending = False

    async def _read(self) -> None:
        lost: redis.RedisError = redis.ConnectionError("The event loop ends.")
        try:
            while True:
                answer = refusal = None
                try:
                    answer = await self._connection.read_response()
                except redis.ResponseError as error:
                    refusal = error
                _, waiting = self._waiting.popleft()
                if waiting.done():
                    # Its request has been cancelled.
                    continue
                if refusal is None:
                    waiting.set_result(answer)
                else:
                    waiting.set_exception(refusal)
        except redis.RedisError as error:
            lost = error
        finally:
            self._lose(lost)
            await self._connection.disconnect(nowait=True)

    def _check(self) -> None:
        """Give the connection up if the oldest command has waited for too long."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + self._timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
            return
        self._lose(redis.TimeoutError("Redis does not answer."))
        self._reader.cancel()

    def _lose(self, error: redis.RedisError) -> None:
        """Use the connection no more; all that waits for it gets ``error``."""
        self._is_lost = True
        self._unsent.clear()
        failed, self._waiting = self._waiting, deque()
        for _, waiting in failed:
            if not waiting.done():
                waiting.set_exception(error)


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run ``work`` in a task, without the context of the request, which it outlives."""
    return asyncio.get_running_loop().create_task(work, context=Context())
