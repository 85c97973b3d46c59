"""One connection to Redis for all requests of an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import Any

import redis
import redis.asyncio

__all__ = ["Pipe", "packed"]


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
        self._client = client
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._connecting = asyncio.Lock()
        self._connection: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: The commands that wait for an answer, and when they were sent.
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()

    async def call(self, command: bytes) -> Any:
        """Send a :func:`packed` command, and return its answer.

        Raises:
            RedisError: The answer is an error, is late, or does not come.
        """
        if self._connection is None:
            await self._connect()
        answer = self._loop.create_future()
        self._waiting.append((self._loop.time(), answer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._check)
        # The command is written before this waits.
        await self._connection.send_packed_command(command, check_health=False)
        return await answer

    async def _connect(self) -> None:
        async with self._connecting:
            if self._connection is not None:
                return
            connection = self._client.connection_pool.make_connection()
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.connect()
            except TimeoutError as error:
                await connection.disconnect(nowait=True)
                raise redis.TimeoutError("Redis does not accept a connection.") from error
            self._connection = connection
            # It outlives the request, whose context is of no concern to it.
            self._reader = self._loop.create_task(self._read(connection), context=Context())

    async def _read(self, connection: Any) -> None:
        error: Exception = redis.ConnectionError("The event loop has ended.")
        try:
            while True:
                try:
                    answer = await connection.read_response()
                except redis.ResponseError as refusal:
                    _, waiting = self._waiting.popleft()
                    if not waiting.done():
                        waiting.set_exception(refusal)
                else:
                    _, waiting = self._waiting.popleft()
                    if not waiting.done():
                        waiting.set_result(answer)
        except redis.RedisError as failure:
            error = failure
        finally:
            self._fail(error)
            await connection.disconnect(nowait=True)

    def _check(self) -> None:
        """Give the connection up if the oldest command has waited for too long."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][0] + self._timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
            return
        self._fail(redis.TimeoutError("Redis does not answer."))
        if self._reader is not None:
            self._reader.cancel()

    def _fail(self, error: Exception) -> None:
        """Forget the connection; all that waits for it gets ``error``."""
        failed, self._waiting = self._waiting, deque()
        self._connection = None
        for _, waiting in failed:
            if not waiting.done():
                waiting.set_exception(error)
