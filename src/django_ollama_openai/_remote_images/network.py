"""Connections to allowed addresses only, with time limits, which end when the work is cancelled."""

from __future__ import annotations

import functools
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import httpcore

from .. import _cancellation
from .rules import Address, FetchRules, ImageNotFetched

__all__ = ["PinnedNetwork"]


class PinnedNetwork(httpcore.NetworkBackend):
    """The network of one :func:`~.fetch.fetch_images` call; its time limits begin with it.

    Use it in the thread that creates it: processor time is measured for that thread.
    """

    def __init__(self, rules: FetchRules) -> None:
        self._rules = rules
        self._deadline = time.monotonic() + rules.total_timeout
        self._busy_until = time.thread_time() + rules.busy_timeout

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        deadline = time.monotonic() + self.seconds_left(self._rules.connect_timeout)
        try:
            addresses = _resolve(host, deadline, self._rules)
            self._require_allowed(addresses)
            return _Stream(self._connect(addresses, port, deadline), self)
        except TimeoutError:
            raise
        except OSError as error:
            raise _unreachable() from error

    def seconds_left(self, limit: float) -> float:
        """Return how long the next step may take: at most ``limit`` seconds.

        Raises:
            TimeoutError: No time is left for all images.
        """
        if time.thread_time() > self._busy_until:
            raise TimeoutError
        return min(limit, _seconds_until(self._deadline))

    @contextmanager
    def blocking(self, sock: socket.socket) -> Iterator[None]:
        """Let one read or write of ``sock`` block within the limits."""
        with _blocking(sock, self.seconds_left(self._rules.idle_timeout)):
            yield

    def _connect(self, addresses: Sequence[Address], port: int, deadline: float) -> socket.socket:
        """Return a connection to the first of ``addresses`` that accepts it.

        Raises:
            OSError: None accepts it; the failure of the last one.
        """
        *others, last = addresses[: self._rules.max_addresses]
        for address in others:
            # Half of the time is left for the addresses after a dead one.
            with suppress(OSError):
                return self._connect_to(address, port, _seconds_until(deadline) / 2)
        return self._connect_to(last, port, _seconds_until(deadline))

    def _connect_to(self, address: Address, port: int, seconds: float) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            with _blocking(sock, seconds):
                sock.connect((str(address), port))
            self._require_allowed([ipaddress.ip_address(sock.getpeername()[0])])
        except BaseException:
            sock.close()
            raise
        return sock

    def _require_allowed(self, addresses: Sequence[Address]) -> None:
        if not addresses or not all(map(self._rules.is_allowed, addresses)):
            raise _unreachable()


def _unreachable() -> ImageNotFetched:
    return ImageNotFetched(
        "The image cannot be fetched: its server is unknown, cannot be reached, or is not on the "
        "public internet."
    )


class _Stream(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket, network: PinnedNetwork) -> None:
        self._sock = sock
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._network.blocking(self._sock):
            return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._network.blocking(self._sock):
            self._sock.sendall(buffer)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            # The handshake comes after, because a cancellation has to shut the new socket down.
            self._sock = tls = ssl_context.wrap_socket(
                self._sock, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            with self._network.blocking(tls):
                tls.do_handshake()
        except BaseException:
            self.close()
            raise
        return self


@contextmanager
def _blocking(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Let ``sock`` block for at most ``seconds``, and shut it down if the work is cancelled."""
    sock.settimeout(seconds)
    with _cancellation.interruptible_io(sock):
        yield


def _seconds_until(deadline: float) -> float:
    """Return the seconds until ``deadline``, a time of ``time.monotonic()``.

    Raises:
        TimeoutError: It has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _resolve(host: str, deadline: float, rules: FetchRules) -> list[Address]:
    """Return all addresses of ``host``.

    Raises:
        OSError: It has none.
        TimeoutError: They are not known before ``deadline``.
    """
    with suppress(ValueError):
        return [ipaddress.ip_address(host)]
    infos = _look_up(host, deadline, _lookups(rules.max_lookups))
    return [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in infos]


@functools.cache
def _lookups(limit: int) -> threading.BoundedSemaphore:
    """Return the semaphore of this process for ``limit`` lookups at once."""
    return threading.BoundedSemaphore(limit)


def _look_up(host: str, deadline: float, lookups: threading.BoundedSemaphore) -> list[Any]:
    """Return the result of :func:`socket.getaddrinfo`.

    It has no time limit and cannot be interrupted, so it runs in a thread that is abandoned when
    it takes too long.
    """
    results: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            results.put(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except Exception as error:
            results.put(error)
        finally:
            lookups.release()

    if not lookups.acquire(timeout=_seconds_until(deadline)):
        raise TimeoutError
    try:
        threading.Thread(target=look_up, name="ollama-openai-lookup", daemon=True).start()
    except BaseException:
        lookups.release()
        raise
    with _cancellation.interruptible(lambda: results.put([])):
        try:
            result = results.get(timeout=_seconds_until(deadline))
        except queue.Empty:
            raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result
