"""Ollama, through its official Python client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any

from pydantic import AfterValidator, PositiveInt, validate_call

from .._translation.embeddings import ollama_embeddings
from .._translation.error_context import ErrorContext, chat_error_context
from .._translation.model_cards import (
    ModelCard,
    Tag,
    model_card,
    needs_details,
    tag_name,
    tags,
    with_details,
)
from .._translation.ollama_chunks import OllamaChatChunks, OllamaGenerateChunks
from .._translation.ollama_payload import (
    ollama_chat_payload,
    ollama_completion_payload,
    ollama_embeddings_payload,
)
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from ..exceptions import InvalidRequest, ModelNotFound
from ._http_backend import HIDE_INPUT, HTTPBackend, parse_http_url
from ._http_client import encode_json
from ._ollama_client import AsyncOllamaClient, OllamaClient

__all__ = ["OllamaBackend"]

SHOW_CACHE_SECONDS = 60
SHOW_CACHE_ENTRIES = 1000


def check_host(value: str) -> str:
    """Return ``value`` if Ollama's client accepts it as an address; the scheme is optional.

    Raises:
        ValueError: It is no such address.
    """
    parts = parse_http_url(
        value if "://" in value else f"http://{value}", example="http://gpu-1:11434"
    )
    if parts.path.rstrip("/").endswith(("/v1", "/api")):
        raise ValueError("Leave the path out: '/api' is added to the address")
    return value


class OllamaBackend(HTTPBackend[OllamaClient, AsyncOllamaClient]):
    """An Ollama server.

    Args:
        host: The address; ``$OLLAMA_HOST`` if absent, then ``http://127.0.0.1:11434``.
        max_num_ctx: The largest context, in tokens, that clients may request with ``options``. A
            larger ``num_ctx`` in ``MODELS`` raises it for that model.

    Also takes the arguments of
    :class:`~django_ollama_openai.backends.HTTPBackend`.
    """

    advice = "start it with `ollama serve`, or set HOST"

    supports_completions = True
    supports_embeddings = True

    supported_parameters = frozenset(
        {
            "dimensions",
            "image_url",
            "input_audio",
            "logprobs",
            "options",
            "reasoning_effort",
            "response_format",
            "shift",
            "suffix",
            "think",
            "tools",
            "truncate",
        }
    )

    @validate_call(config=HIDE_INPUT)
    def __init__(
        self,
        *,
        host: Annotated[str, AfterValidator(check_host)] | None = None,
        max_num_ctx: PositiveInt = 32_768,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.host = host
        self._max_num_ctx = max_num_ctx
        self._shown: dict[str, tuple[float, Tag]] = {}

    # Transport

    def get_client(self) -> OllamaClient:
        return OllamaClient(self.host, transport=self._make_transport(), **self.client_options())

    def get_async_client(self) -> AsyncOllamaClient:
        return AsyncOllamaClient(
            self.host, transport=self._make_async_transport(), **self.client_options()
        )

    # Chat

    def chat(self, request: ChatCompletionRequest) -> Delta:
        body, context = self._payload(request, stream=False)
        return self._fetch("/api/chat", body, OllamaChatChunks(), **context)

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        body, context = self._payload(request, stream=False)
        return await self._afetch("/api/chat", body, OllamaChatChunks(), **context)

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        body, context = self._payload(request, stream=True)
        return self._stream("/api/chat", body, OllamaChatChunks(), **context)

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        body, context = self._payload(request, stream=True)
        return self._astream("/api/chat", body, OllamaChatChunks(), **context)

    def _payload(
        self, request: ChatCompletionRequest, *, stream: bool
    ) -> tuple[bytes, ErrorContext]:
        self._check_context(request)
        payload = self.prepare_chat(ollama_chat_payload(request, stream=stream), request)
        return encode_json(payload), chat_error_context(request, payload["model"])

    # Completions

    def complete(self, request: CompletionRequest) -> Delta:
        body = self._completion_payload(request, stream=False)
        return self._fetch(
            "/api/generate", encode_json(body), OllamaGenerateChunks(), **_prompt(body)
        )

    async def acomplete(self, request: CompletionRequest) -> Delta:
        body = self._completion_payload(request, stream=False)
        return await self._afetch(
            "/api/generate", encode_json(body), OllamaGenerateChunks(), **_prompt(body)
        )

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        body = self._completion_payload(request, stream=True)
        return self._stream(
            "/api/generate", encode_json(body), OllamaGenerateChunks(), **_prompt(body)
        )

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        body = self._completion_payload(request, stream=True)
        return self._astream(
            "/api/generate", encode_json(body), OllamaGenerateChunks(), **_prompt(body)
        )

    def _completion_payload(self, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
        self._check_context(request)
        return self.prepare_completion(ollama_completion_payload(request, stream=stream), request)

    # Embeddings

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        body = self._embed_payload(request)
        answer = self._shared_client().fetch(
            "POST", "/api/embed", encode_json(body), **_input(body)
        )
        return ollama_embeddings(answer, request)

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        body = self._embed_payload(request)
        client = await self._shared_async_client()
        answer = await client.fetch("POST", "/api/embed", encode_json(body), **_input(body))
        return ollama_embeddings(answer, request)

    def _embed_payload(self, request: EmbeddingsRequest) -> dict[str, Any]:
        self._check_context(request)
        return self.prepare_embed(ollama_embeddings_payload(request), request)

    def _check_context(self, request: EngineRequest) -> None:
        """Refuse a context with which a client could fill the server's memory.

        Raises:
            InvalidRequest: ``options.num_ctx`` exceeds the limit of the backend and the model.
        """
        num_ctx = request.options.num_ctx if request.options is not None else None
        limit = max(self._max_num_ctx, request.engine_options.get("num_ctx", 0))
        if num_ctx is not None and num_ctx > limit:
            raise InvalidRequest(
                f"'options.num_ctx' may be up to {limit}, not {num_ctx}.", param="options.num_ctx"
            )

    # Models

    def list_models(self) -> list[ModelCard]:
        client = self._shared_client()
        listed = tags(client.fetch("GET", "/api/tags"))
        for tag in self._to_show(listed):
            with suppress(ModelNotFound):  # it was removed in the meantime
                self._keep_shown(tag, client.fetch("POST", "/api/show", _show_content(tag)))
        return self._cards(listed)

    async def alist_models(self) -> list[ModelCard]:
        client = await self._shared_async_client()
        listed = tags(await client.fetch("GET", "/api/tags"))
        for tag in self._to_show(listed):
            with suppress(ModelNotFound):
                self._keep_shown(tag, await client.fetch("POST", "/api/show", _show_content(tag)))
        return self._cards(listed)

    def _to_show(self, listed: list[Tag]) -> list[Tag]:
        """Return the tags whose missing details were not fetched within the last minute."""
        now = time.monotonic()
        self._shown = {key: kept for key, kept in dict(self._shown).items() if kept[0] > now}
        return [tag for tag in listed if needs_details(tag) and _cache_key(tag) not in self._shown]

    def _keep_shown(self, tag: Tag, answer: bytes) -> None:
        if len(self._shown) < SHOW_CACHE_ENTRIES:
            expires = time.monotonic() + SHOW_CACHE_SECONDS
            self._shown[_cache_key(tag)] = (expires, with_details(tag, answer))

    def _cards(self, listed: list[Tag]) -> list[ModelCard]:
        kept = dict(self._shown)
        return [model_card(kept.get(_cache_key(tag), (0, tag))[1]) for tag in listed]

    def loaded_models(self) -> frozenset[str] | None:
        running = tags(self._shared_client().fetch("GET", "/api/ps"))
        return frozenset(name for tag in running for name in model_card(tag).names)

    # Health

    def ping(self) -> None:
        self._shared_client().fetch("GET", "/api/version")

    async def aping(self) -> None:
        client = await self._shared_async_client()
        await client.fetch("GET", "/api/version")


def _prompt(body: dict[str, Any]) -> ErrorContext:
    return ErrorContext(model=body["model"], param="prompt", think_param="think")


def _input(body: dict[str, Any]) -> ErrorContext:
    return ErrorContext(model=body["model"], param="input")


def _show_content(tag: Tag) -> bytes:
    return encode_json({"model": tag_name(tag)})


def _cache_key(tag: Tag) -> str:
    return f"{tag_name(tag)}@{tag.get('digest')}"
