"""The base of all backends: OpenAI requests in, deltas out, in pairs of sync and async methods."""

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

#: The parameters that change the answer and that not every backend supports, each with the test
#: whether a value has an effect.
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
    # Parameters of completions
    "suffix": bool,
    "best_of": lambda value: value is not None,
    # Parameters of embeddings
    "dimensions": lambda value: value is not None,
    # Parameters of Ollama
    "options": lambda value: value is not None and bool(value.dump_known()),
    "think": lambda value: value is not None,
    "truncate": lambda value: value is True,
    "shift": lambda value: value is True,
}


@functools.cache
def _optional_parameters(
    kind: type[EngineRequest],
) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """Return the optional parameters of requests of the class ``kind``."""
    # Not of an instance: a request also has its unknown keys as attributes.
    return tuple(
        (name, has_effect)
        for name, has_effect in OPTIONAL_PARAMETERS.items()
        if name in kind.model_fields or hasattr(kind, name)
    )


class BaseBackend:
    """The base of all backends.

    A subclass defines :meth:`stream_chat` and :meth:`list_models`. If it completes or embeds texts,
    it also defines :meth:`stream_complete` or :meth:`embed`, and sets :attr:`supports_completions`
    or :attr:`supports_embeddings`. The other methods use these, and are overridden where the engine
    has a better way: :meth:`astream_chat` for an asynchronous client, :meth:`chat` and
    :meth:`achat` for an answer in one piece.

    There is one instance per alias and process. It serves many requests at once and keeps no state
    of any of them. The constructor's keywords are the alias's ``OPTIONS``, and ``host`` or
    ``base_url`` if the entry has ``HOST`` or ``BASE_URL``.
    """

    @property
    def address(self) -> str:
        """The address of the engine without credentials, for operators; empty if it has none."""
        return ""

    #: The remedy for operators if no engine can be reached at :attr:`address`.
    advice: str = "start it, or check its address"

    #: Whether the backend answers chats, with :meth:`stream_chat`. Like the next two it is an
    #: attribute of the class, or of the instance where it depends on an option.
    supports_chat: bool = True

    #: Whether the backend completes texts, with :meth:`stream_complete`.
    supports_completions: bool = False

    #: Whether the backend embeds texts, with :meth:`embed`.
    supports_embeddings: bool = False

    #: The optional parameters (``tools``, ``response_format``, ``logprobs``, …) that the backend
    #: supports. A request with another one is rejected, or the parameter is dropped, according to
    #: ``UNSUPPORTED_PARAMETERS``. The gateway handles ``tool_choice`` and ``parallel_tool_calls``
    #: itself for a backend that supports ``tools`` (and ``response_format``) but does not list
    #: them. With ``token_input`` the backend accepts arrays of tokens instead of text; without it
    #: such a request is always rejected.
    supported_parameters: frozenset[str] = frozenset()

    def __init__(self, *, alias: str = "default") -> None:
        self.alias = alias
        #: Limits the requests that the engine works on. There is no limit until
        #: :meth:`limit_requests` is called, as ``backends`` does.
        self.slots = Slots()

    def limit_requests(self, limit: int | None, *, max_queue: int, timeout: float) -> None:
        """Set the limits of :attr:`slots`, from ``MAX_CONCURRENCY`` and the like."""
        self.slots.configure(limit, max_queue=max_queue, timeout=timeout)

    def leases(self, request: EngineRequest, ticket: QueueTicket) -> Leases:
        """Yield a lease for each engine to try with ``request``, until one has answered.

        The error of a lease that failed is thrown into the generator, which raises it or yields
        another lease. If the lease ``has_begun`` the error is final. Each lease holds a slot while
        it is used; ``ticket`` counts the request once in queues, however many slots it needs.
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
        """Change ``payload``, the body to send to the engine, and return it: a hook for subclasses.

        The synchronous and the asynchronous methods call it, so it must not block.
        """
        return payload

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        """Yield the answer to ``request``, delta by delta.

        ``request.model`` is the engine's name of the model. The last delta has a finish reason, or
        an exception is raised. If the reader stops early the iterator is closed.

        Raises:
            GatewayError: The error that the client gets. Any other exception becomes a 500.
        """
        raise NotImplementedError(f"{type(self).__name__} must define stream_chat()")

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        """Async version of :meth:`stream_chat`; runs it in a thread unless overridden."""
        return iterate_in_thread(lambda: self.stream_chat(request))

    def chat(self, request: ChatCompletionRequest) -> Delta:
        """Return the answer to ``request`` in one piece; joins the deltas of :meth:`stream_chat`
        unless overridden."""
        return fold(self.stream_chat(request))

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        """Async version of :meth:`chat`; joins the deltas of :meth:`astream_chat` unless
        overridden."""
        return fold([delta async for delta in self.astream_chat(request)])

    # Completions

    def prepare_completion(
        self, payload: dict[str, Any], request: CompletionRequest
    ) -> dict[str, Any]:
        """Change ``payload`` as :meth:`prepare_chat` does, for a text completion."""
        return payload

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        """Yield the completion of one prompt, delta by delta, as :meth:`stream_chat` does.

        ``request.prompt`` is a text, or an array of tokens if :attr:`supported_parameters` has
        ``token_input``. The gateway handles ``echo``, ``n`` and ``best_of``.
        """
        self.check_support(request)
        raise NotImplementedError(f"{type(self).__name__} must define stream_complete()")

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        """Async version of :meth:`stream_complete`; runs it in a thread unless overridden."""
        return iterate_in_thread(lambda: self.stream_complete(request))

    def complete(self, request: CompletionRequest) -> Delta:
        """Return the completion of one prompt in one piece; joins the deltas of
        :meth:`stream_complete` unless overridden."""
        return fold(self.stream_complete(request))

    async def acomplete(self, request: CompletionRequest) -> Delta:
        """Async version of :meth:`complete`; joins the deltas of :meth:`astream_complete` unless
        overridden."""
        return fold([delta async for delta in self.astream_complete(request)])

    # Embeddings

    def prepare_embed(self, payload: dict[str, Any], request: EmbeddingsRequest) -> dict[str, Any]:
        """Change ``payload`` as :meth:`prepare_chat` does, for embeddings."""
        return payload

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        """Return the vectors of ``request.inputs()``, in this order."""
        self.check_support(request)
        raise NotImplementedError(f"{type(self).__name__} must define embed()")

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        """Async version of :meth:`embed`; runs it in a thread unless overridden."""
        async with aclosing(iterate_in_thread(lambda: iter([self.embed(request)]))) as results:
            return await anext(results)

    # Capabilities

    def check_support(self, request: EngineRequest) -> None:
        """Check that the backend can answer requests such as ``request`` at all, regardless of
        ``UNSUPPORTED_PARAMETERS``.

        Raises:
            InvalidRequest: It does not support the endpoint, or arrays of tokens.
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
        """Return the parameters of ``request`` that have an effect and are not supported."""
        supported = self.supported_parameters
        if isinstance(request, ChatCompletionRequest):
            supported |= honoured(request, supported)
        return [
            name
            for name, has_effect in _optional_parameters(type(request))
            if name not in supported and has_effect(getattr(request, name))
        ]

    # Models

    def list_models(self) -> list[ModelCard]:
        """Return the models that the engine has."""
        raise NotImplementedError(f"{type(self).__name__} must define list_models()")

    async def alist_models(self) -> list[ModelCard]:
        """Async version of :meth:`list_models`; runs it in a thread unless overridden."""
        return await asyncio.to_thread(self.list_models)

    def get_model(self, name: str) -> ModelCard:
        """Return the model that the engine calls ``name``.

        Raises:
            ModelNotFound: The engine does not have it.
        """
        return self.find_model(name, self.list_models())

    async def aget_model(self, name: str) -> ModelCard:
        """Async version of :meth:`get_model`."""
        return self.find_model(name, await self.alist_models())

    def find_model(self, name: str, cards: list[ModelCard]) -> ModelCard:
        """Return the model among ``cards`` that the engine calls ``name``.

        Raises:
            ModelNotFound: There is none.
        """
        for card in cards:
            if name in card.names:
                return card
        raise ModelNotFound(name)

    def loaded_models(self) -> frozenset[str] | None:
        """Return all names of the models that the engine has in memory; ``None`` if it does not
        report that. It may block."""
        return None

    # Life

    def ping(self) -> None:
        """Return if the engine is ready to answer; raise an exception if it is not."""
        self.list_models()

    async def aping(self) -> None:
        """Async version of :meth:`ping`."""
        await self.alist_models()

    def close(self) -> None:
        """Release connections, threads and models. The backend is not used afterwards."""
