"""Renew the leases of running requests from one thread of the process."""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ...._connections import close_connections
from ..stores import BaseStore, Held, StoreDown

__all__ = ["add", "remove"]

#: A third of the time for which a lease lives.
SECONDS: Final = 20.0

logger = logging.getLogger("django_ollama_openai")


class _Renewals:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[UUID, tuple[BaseStore, Sequence[Held]]] = {}
        self.thread: threading.Thread | None = None

    def run(self) -> None:
        while True:
            threading.Event().wait(SECONDS)
            with self.lock:
                if not self.running:
                    self.thread = None
                    return
                running = dict(self.running)
            by_store: dict[BaseStore, dict[UUID, Sequence[Held]]] = defaultdict(dict)
            for request, (store, held) in running.items():
                by_store[store][request] = held
            for store, leases in by_store.items():
                try:
                    store.renew(leases)
                except StoreDown:
                    logger.warning("The leases of running requests could not be renewed")
            close_connections()


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
        if _renewals.thread is None:
            _renewals.thread = threading.Thread(
                target=_renewals.run, name="ollama-openai-leases", daemon=True
            )
            _renewals.thread.start()


def remove(request: UUID) -> None:
    """Stop renewing the leases of ``request``."""
    with _renewals.lock:
        _renewals.running.pop(request, None)
