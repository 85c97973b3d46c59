"""Renew the leases of running requests from one thread of the process, and settle what could not be
settled while the store was down."""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ...._connections import close_connections
from ..stores import BaseStore, Held, Settlement, StoreDown

__all__ = ["add", "remove", "settle_later"]

#: A third of the time for which a lease lives.
SECONDS: Final = 20.0
#: Requests whose settlement is kept at most until the store can be used again.
MAX_UNSETTLED: Final = 10_000

logger = logging.getLogger("django_ollama_openai")


class _Renewals:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[UUID, tuple[BaseStore, Sequence[Held]]] = {}
        self.unsettled: dict[UUID, tuple[BaseStore, Sequence[Settlement]]] = {}
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread unless it runs; the caller has the lock."""
        if self.thread is None:
            self.thread = threading.Thread(
                target=self.run, name="ollama-openai-leases", daemon=True
            )
            self.thread.start()

    def run(self) -> None:
        while True:
            threading.Event().wait(SECONDS)
            with self.lock:
                if not self.running and not self.unsettled:
                    self.thread = None
                    return
                running, unsettled = dict(self.running), dict(self.unsettled)
            try:
                self.settle(unsettled)
                self.renew(running)
            except StoreDown as error:
                logger.warning("The leases of requests could not be renewed: %s", error)
            except Exception:
                logger.exception("The leases of requests could not be renewed")
            close_connections()

    def renew(self, running: dict[UUID, tuple[BaseStore, Sequence[Held]]]) -> None:
        by_store: dict[BaseStore, dict[UUID, Sequence[Held]]] = defaultdict(dict)
        for request, (store, held) in running.items():
            by_store[store][request] = held
        for store, leases in by_store.items():
            store.renew(leases)

    def settle(self, unsettled: dict[UUID, tuple[BaseStore, Sequence[Settlement]]]) -> None:
        for request, (store, settlements) in unsettled.items():
            store.settle(request, settlements)
            with self.lock:
                del self.unsettled[request]


_renewals = _Renewals()


def _renew_after_fork() -> None:
    global _renewals
    _renewals = _Renewals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def add(request: UUID, store: BaseStore, held: Sequence[Held]) -> None:
    """Renew the leases of ``request`` in ``store``, which are among ``held``, from now on."""
    leased = [each for each in held if each.claim.is_leased]
    if not leased:
        return
    with _renewals.lock:
        _renewals.running[request] = store, leased
        _renewals.start()


def remove(request: UUID) -> None:
    """Stop renewing the leases of ``request``."""
    with _renewals.lock:
        _renewals.running.pop(request, None)


def settle_later(
    request: UUID, store: BaseStore, settlements: Sequence[Settlement], error: StoreDown
) -> None:
    """Settle ``request`` when ``store``, which has failed with ``error``, can be used again."""
    with _renewals.lock:
        is_kept = len(_renewals.unsettled) < MAX_UNSETTLED
        if is_kept:
            _renewals.unsettled[request] = store, settlements
            _renewals.start()
    logger.warning(
        "The limits of request %s cannot be settled; this is %s: %s",
        request,
        "repeated" if is_kept else "given up, since too many others wait",
        error,
    )
