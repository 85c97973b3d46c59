"""Where responses are kept, for ``store`` and ``previous_response_id`` of ``POST v1/responses``.

This app keeps nothing. A site, or another app, that does names a subclass of
:class:`BaseResponseStore` in ``RESPONSE_STORE``.
"""

from __future__ import annotations

from typing import Any

from . import _conf
from ._threads import run_sync
from .auth import Caller

__all__ = ["BaseResponseStore", "response_store"]


class BaseResponseStore:
    """Keeps responses. Whose they are is the store's to check: ids come from clients."""

    def load(self, response_id: str, caller: Caller) -> list[dict[str, Any]] | None:
        """The conversation up to the end of the response ``response_id``: the items of its input,
        and of all before it, and those of its output. ``None`` if there is no such response, or
        if it is not the caller's to see.
        """
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    async def aload(self, response_id: str, caller: Caller) -> list[dict[str, Any]] | None:
        """The same under ASGI; runs :meth:`load` in a thread unless overridden."""
        return await run_sync(self.load, response_id, caller)

    def save(self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller) -> None:
        """Keep ``response``, OpenAI's response object, which has ended. ``items`` is the input that
        it answers, that of earlier responses included. The client is told afterwards.
        """
        raise NotImplementedError(f"{type(self).__name__} must define save()")

    async def asave(
        self, response: dict[str, Any], items: list[dict[str, Any]], caller: Caller
    ) -> None:
        """The same under ASGI; runs :meth:`save` in a thread unless overridden."""
        await run_sync(self.save, response, items, caller)


def response_store() -> BaseResponseStore | None:
    """The site's store, if it has one."""
    path = _conf.get().RESPONSE_STORE
    return None if path is None else _conf.make(path, BaseResponseStore, "RESPONSE_STORE")
