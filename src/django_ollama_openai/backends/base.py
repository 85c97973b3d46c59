"""What a backend is: an OpenAI request in, deltas out, in Django's pairs of methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from ..exceptions import ModelNotFound
from ..pump import End, Pump
from ..translation.model_cards import ModelCard
from ..wire.chat import ChatCompletionRequest
from ..wire.delta import Delta, fold

__all__ = ["BaseBackend"]

T = TypeVar("T")

OPTIONAL_PARAMETERS: dict[str, Callable[[Any], bool]] = {
    "tools": bool,
    "tool_choice": lambda value: value not in (None, "auto"),
    "parallel_tool_calls": lambda value: value is False,
    "response_format": lambda value: value is not None and value.type != "text",
    "reasoning_effort": lambda value: value is not None,
    "n": lambda value: value not in (None, 1),
    "logprobs": bool,
    "logit_bias": bool,
    "audio": lambda value: value is not None,
    "functions": bool,
    "function_call": lambda value: value is not None,
    "modalities": lambda value: value not in (None, ["text"]),
    "prediction": lambda value: value is not None,
    "verbosity": lambda value: value is not None,
    "web_search_options": lambda value: value is not None,
}
"""Parameters that change the answer and that not every backend honours: whether a value asks for
something at all."""


class BaseBackend:
    """The base of all backends.

    A subclass defines :meth:`stream_chat` and :meth:`list_models`. Everything else follows from
    them, and is overridden where the engine has a better way: an engine with an asynchronous
    client overrides :meth:`astream_chat`, one that answers in one piece :meth:`chat` and
    :meth:`achat`.

    There is one instance per alias and process; it serves many requests at once and keeps no
    state of any of them. The constructor's keywords are the alias's ``OPTIONS``, and ``host`` or
    ``base_url`` if the entry has ``HOST`` or ``BASE_URL``.
    """

    supported_parameters: frozenset[str] = frozenset()
    """Those of the optional parameters (``tools``, ``response_format``, ``logprobs``, …) that
    this backend honours. A request that uses another is refused, or the parameter is dropped, as
    ``UNSUPPORTED_PARAMETERS`` says."""

    def __init__(self, *, alias: str = "default") -> None:
        self.alias = alias

    def __repr__(self) -> str:
        # Hosts and options may hold credentials.
        return f"<{type(self).__name__}: {self.alias}>"

    # Chat

    def prepare_chat(
        self, payload: dict[str, Any], request: ChatCompletionRequest
    ) -> dict[str, Any]:
        """A hook: change ``payload``, the body about to go to the engine, and return it.

        It serves the synchronous and the asynchronous methods, so it must not block.
        """
        return payload

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        """Answer ``request`` piece by piece.

        ``request.model`` is the engine's name of the model. An iterator that ends without an
        error has ended with a finish reason. When the reader stops early the iterator is closed.

        Raises:
            GatewayError: whatever the client is to be told; any other error is a 500.
        """
        raise NotImplementedError(f"{type(self).__name__} must define stream_chat()")

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        """The same under ASGI; runs :meth:`stream_chat` in a thread unless overridden."""
        return _iterate_in_thread(lambda: self.stream_chat(request))

    def chat(self, request: ChatCompletionRequest) -> Delta:
        """Answer ``request`` in one piece; joins :meth:`stream_chat` unless overridden."""
        return fold(self.stream_chat(request))

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        """The same under ASGI; joins :meth:`astream_chat` unless overridden."""
        return fold([delta async for delta in self.astream_chat(request)])

    def unsupported_parameters(self, request: ChatCompletionRequest) -> list[str]:
        """The parameters of ``request`` that would change the answer and are not honoured."""
        return [
            name
            for name, is_asked_for in OPTIONAL_PARAMETERS.items()
            if name not in self.supported_parameters and is_asked_for(getattr(request, name))
        ]

    # Models

    def list_models(self) -> list[ModelCard]:
        """The models that the engine has."""
        raise NotImplementedError(f"{type(self).__name__} must define list_models()")

    async def alist_models(self) -> list[ModelCard]:
        """The same under ASGI; runs :meth:`list_models` in a thread unless overridden."""
        return await asyncio.to_thread(self.list_models)

    def get_model(self, name: str) -> ModelCard:
        """One model.

        Raises:
            ModelNotFound: the engine does not have it.
        """
        return self.find_model(name, self.list_models())

    async def aget_model(self, name: str) -> ModelCard:
        """The same under ASGI."""
        return self.find_model(name, await self.alist_models())

    def find_model(self, name: str, cards: list[ModelCard]) -> ModelCard:
        """The one of ``cards`` that the engine means by ``name``.

        Raises:
            ModelNotFound: none is.
        """
        for card in cards:
            if name in card.names:
                return card
        raise ModelNotFound(name)

    # Life

    def ping(self) -> None:
        """Return if the engine is ready to answer, raise an error if it is not."""
        self.list_models()

    async def aping(self) -> None:
        """The same under ASGI."""
        await self.alist_models()

    def close(self) -> None:
        """Let go of connections, threads and models. The backend is not used afterwards."""


async def _iterate_in_thread(source: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """The items of a synchronous iterator that blocks, without blocking the event loop."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | End] = asyncio.Queue()

    def deliver(item: T | End) -> None:
        # The loop is closed when the server has shut down; nobody waits for the item then.
        if not loop.is_closed():
            loop.call_soon_threadsafe(items.put_nowait, item)

    pump = Pump(source, deliver)
    pump.start()
    try:
        while True:
            item = await items.get()
            if isinstance(item, End):
                if item.error is not None:
                    raise item.error
                return
            pump.taken()
            yield item
    finally:
        pump.cancel()
