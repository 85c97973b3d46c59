"""Renew the leases of running requests from one thread of the process."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final
from uuid import UUID

from ...._connections import close_connections
from ..stores import BaseStore, StoreDown

__all__ = ["add", "remove"]

#: A third of the time for which a lease lives.
SECONDS: Final = 20.0

logger = logging.getLogger("django_ollama_openai")


class _Renewals:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[UUID, BaseStore] = {}
        self.thread: threading.Thread | None = None

    def run(self) -> None:
        while True:
            threading.Event().wait(SECONDS)
            with self.lock:
                if not self.running:
                    self.thread = None
                    return
                stores = set(self.running.values())
                running = dict(self.running)
            for store in stores:
                try:
                    store.renew([request for request, each in running.items() if each is store])
                except StoreDown:
                    logger.warning("The leases of running requests could not be renewed")
            close_connections()


_renewals = _Renewals()


def _renew_after_fork() -> None:
    global _renewals
    _renewals = _Renewals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def add(request: UUID, store: BaseStore) -> None:
    """Renew the leases of ``request`` in ``store`` from now on."""
    with _renewals.lock:
        _renewals.running[request] = store
        if _renewals.thread is None:
            _renewals.thread = threading.Thread(
                target=_renewals.run, name="ollama-openai-leases", daemon=True
            )
            _renewals.thread.start()


def remove(request: UUID) -> None:
    """Stop renewing the leases of ``request``."""
    with _renewals.lock:
        _renewals.running.pop(request, None)
