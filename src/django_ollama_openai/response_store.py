"""Stores of responses, for ``store`` and ``previous_response_id`` of ``POST v1/responses``.

This app stores nothing by itself. A site, or another app, names a subclass of
:class:`BaseResponseStore` in ``RESPONSE_STORE``.
"""

from __future__ import annotations

from typing import Any

from . import _conf
from ._connections import run_and_close
from ._threads import run_sync
from .auth import Caller

__all__ = ["BaseResponseStore", "response_store"]


class BaseResponseStore:
    """Stores responses. It must check that the caller owns a response: ids come from clients."""

    def load(self, response_id: str, caller: Caller) -> list[dict[str, Any]] | None:
        """Return the conversation up to the end of the response ``response_id``: the items of its
        input, earlier responses included, and those of its output; ``None`` if there is no such
        response, or if it is not the caller's.
        """
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    async def aload(self, response_id: str, caller: Caller) -> list[dict[str, Any]] | None:
        """Async version of :meth:`load`; runs it in a thread unless overridden."""
        return await run_sync(run_and_close, self.load, response_id, caller)

    def save(self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller) -> None:
        """Store ``response``, a finished response object of OpenAI's. The client gets the end of it
        afterwards. ``items`` is its input, earlier responses included.
        """
        raise NotImplementedError(f"{type(self).__name__} must define save()")

    async def asave(
        self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller
    ) -> None:
        """Async version of :meth:`save`; runs it in a thread unless overridden."""
        await run_sync(run_and_close, self.save, response, items, caller)


def response_store() -> BaseResponseStore | None:
    """Return the site's store; ``None`` if it has none."""
    path = _conf.get().RESPONSE_STORE
    return None if path is None else _conf.make(path, BaseResponseStore, "RESPONSE_STORE")
