"""What a backend is: an OpenAI request in, deltas out, in Django's pairs of methods."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from .._pump import iterate_in_thread
from .._translation.model_cards import ModelCard
from .._translation.tool_choice import honoured
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings, fold
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from .._wire.text_input import tokens_unsupported
from ..exceptions import InvalidRequest, ModelNotFound
from ._leases import Lease, Leases
from ._slots import QueueTicket, Slots

__all__ = ["BaseBackend"]

OPTIONAL_PARAMETERS: dict[str, Callable[[Any], bool]] = {
    "image_url": bool,
    "input_audio": bool,
    "tools": bool,
    "tool_choice": lambda value: value not in (None, "auto"),
    "parallel_tool_calls": lambda value: value is False,
    "response_format": lambda value: value is not None and value.type != "text",
    "reasoning_effort": lambda value: value is not None,
    # A number of alternatives, which may be 0, where it is not a boolean.
    "logprobs": lambda value: value is not None and value is not False,
    "logit_bias": bool,
    "audio": lambda value: value is not None,
    "modalities": lambda value: value not in (None, ["text"]),
    "prediction": lambda value: value is not None,
    "web_search_options": lambda value: value is not None,
    # Of completions
    "suffix": bool,
    "best_of": lambda value: value is not None,
    # Of embeddings
    "dimensions": lambda value: value is not None,
    # Ollama's
    "options": lambda value: value is not None and bool(value.dump_known()),
    "think": lambda value: value is not None,
    "truncate": lambda value: value is True,
    "shift": lambda value: value is True,
}
"""Parameters that change the answer and that not every backend honours: whether a value asks for
something at all."""


@functools.cache
def _optional_parameters(
    kind: type[EngineRequest],
) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """Those of them that a request of this kind has."""
    # Not those of a request: unknown keys that came along are attributes of it, too.
    return tuple(
        (name, is_asked_for)
        for name, is_asked_for in OPTIONAL_PARAMETERS.items()
        if name in kind.model_fields or hasattr(kind, name)
    )


class BaseBackend:
    """The base of all backends.

    A subclass defines :meth:`stream_chat` and :meth:`list_models`; one that completes texts or
    embeds them also :meth:`stream_complete` or :meth:`embed`, and says so. Everything else follows
    from them, and is overridden where the engine has a better way: an engine with an asynchronous
    client overrides :meth:`astream_chat`, one that answers in one piece :meth:`chat` and
    :meth:`achat`.

    There is one instance per alias and process; it serves many requests at once and keeps no
    state of any of them. The constructor's keywords are the alias's ``OPTIONS``, and ``host`` or
    ``base_url`` if the entry has ``HOST`` or ``BASE_URL``.
    """

    @property
    def address(self) -> str:
        """The address of the engine without credentials, for operators; empty if it has none."""
        return ""

    advice: str = "start it, or check its address"
    """The remedy for operators if no engine can be reached at :attr:`address`."""

    supports_chat: bool = True
    """Whether there is :meth:`stream_chat`. Like the two below it is an attribute of the class, or
    of the instance where it depends on an option."""

    supports_completions: bool = False
    """Whether there is :meth:`stream_complete`."""

    supports_embeddings: bool = False
    """Whether there is :meth:`embed`."""

    supported_parameters: frozenset[str] = frozenset()
    """Those of the optional parameters (``tools``, ``response_format``, ``logprobs``, …) that
    this backend honours. A request that uses another is refused, or the parameter is dropped, as
    ``UNSUPPORTED_PARAMETERS`` says. ``tool_choice`` and ``parallel_tool_calls`` are seen to by the
    gateway where a backend has ``tools`` (and ``response_format``) and does not name them. With
    ``token_input`` arrays of tokens may stand for text; they are refused otherwise, since there
    would be nothing left."""

    def __init__(self, *, alias: str = "default") -> None:
        self.alias = alias
        self.slots = Slots()
        """Limits the requests that the engine works on. There is no limit until
        :meth:`limit_requests` is called, as ``backends`` does."""

    def limit_requests(self, limit: int | None, *, max_queue: int, timeout: float) -> None:
        """Set the limits of :attr:`slots`, from ``MAX_CONCURRENCY`` and the like."""
        self.slots.configure(limit, max_queue=max_queue, timeout=timeout)

    def leases(self, request: EngineRequest, ticket: QueueTicket) -> Leases:
        """Yield a lease for each engine to try with ``request``, until one has answered.

        The error of a lease that failed is thrown into the generator, which raises it or yields
        another lease. If the lease ``has_begun`` the error is final. Each lease has a slot while
        it is used; ``ticket`` is the standing of the request in queues.
        """
        yield Lease(self, ticket)

    def engines(self) -> tuple[str, ...]:
        """Return the aliases of the backends whose engines answer: its own, or those that this
        backend consists of."""
        return (self.alias,)

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
        return iterate_in_thread(lambda: self.stream_chat(request))

    def chat(self, request: ChatCompletionRequest) -> Delta:
        """Answer ``request`` in one piece; joins :meth:`stream_chat` unless overridden."""
        return fold(self.stream_chat(request))

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        """The same under ASGI; joins :meth:`astream_chat` unless overridden."""
        return fold([delta async for delta in self.astream_chat(request)])

    # Completions

    def prepare_completion(
        self, payload: dict[str, Any], request: CompletionRequest
    ) -> dict[str, Any]:
        """A hook as :meth:`prepare_chat`, for the completion of a text."""
        return payload

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        """Complete one prompt piece by piece, as :meth:`stream_chat` does.

        ``request.prompt`` is a text, or an array of tokens if ``supported_parameters`` has
        ``token_input``. What ``echo``, ``n`` and ``best_of`` ask for is no concern of backends.
        """
        self.check_support(request)
        raise NotImplementedError(f"{type(self).__name__} must define stream_complete()")

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        """The same under ASGI; runs :meth:`stream_complete` in a thread unless overridden."""
        return iterate_in_thread(lambda: self.stream_complete(request))

    def complete(self, request: CompletionRequest) -> Delta:
        """Complete one prompt at once; joins :meth:`stream_complete` unless overridden."""
        return fold(self.stream_complete(request))

    async def acomplete(self, request: CompletionRequest) -> Delta:
        """The same under ASGI; joins :meth:`astream_complete` unless overridden."""
        return fold([delta async for delta in self.astream_complete(request)])

    # Embeddings

    def prepare_embed(self, payload: dict[str, Any], request: EmbeddingsRequest) -> dict[str, Any]:
        """A hook as :meth:`prepare_chat`, for embeddings."""
        return payload

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        """The vectors of ``request.inputs()``, in order."""
        self.check_support(request)
        raise NotImplementedError(f"{type(self).__name__} must define embed()")

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        """The same under ASGI; runs :meth:`embed` in a thread unless overridden."""
        async with aclosing(iterate_in_thread(lambda: iter([self.embed(request)]))) as results:
            return await anext(results)

    # Capabilities

    def check_support(self, request: EngineRequest) -> None:
        """Refuse what this backend has no way to answer, whatever ``UNSUPPORTED_PARAMETERS`` says.

        Raises:
            InvalidRequest: it does not have the endpoint, or does not take tokens for text.
        """
        match request:
            case ChatCompletionRequest():
                is_supported, endpoint = self.supports_chat, "chat completions"
            case CompletionRequest():
                is_supported, endpoint = self.supports_completions, "completions"
            case EmbeddingsRequest():
                is_supported, endpoint = self.supports_embeddings, "embeddings"
            case _:
                return
        if not is_supported:
            raise InvalidRequest(
                f"This model does not support {endpoint}.",
                param="model",
                code="unsupported_endpoint",
            )
        if "token_input" in self.supported_parameters:
            return
        if isinstance(request, CompletionRequest) and request.token_input:
            raise tokens_unsupported("prompt")
        if isinstance(request, EmbeddingsRequest) and request.token_input:
            raise tokens_unsupported("input")

    def unsupported_parameters(self, request: EngineRequest) -> list[str]:
        """The parameters of ``request`` that would change the answer and are not honoured."""
        supported = self.supported_parameters
        if isinstance(request, ChatCompletionRequest):
            supported |= honoured(request, supported)
        return [
            name
            for name, is_asked_for in _optional_parameters(type(request))
            if name not in supported and is_asked_for(getattr(request, name))
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

    def loaded_models(self) -> frozenset[str] | None:
        """The models that the engine has in memory, by all of their names, so that a request for
        them need not wait until they are loaded; ``None`` if it does not tell. It may block."""
        return None

    # Life

    def ping(self) -> None:
        """Return if the engine is ready to answer, raise an error if it is not."""
        self.list_models()

    async def aping(self) -> None:
        """The same under ASGI."""
        await self.alist_models()

    def close(self) -> None:
        """Let go of connections, threads and models. The backend is not used afterwards."""
