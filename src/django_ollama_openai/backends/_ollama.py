"""Ollama, through its official Python client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any

from pydantic import AfterValidator, PositiveInt, validate_call

from .._translation.blame import Blame
from .._translation.chat_blame import chat_blame
from .._translation.chat_parts import ChatParts
from .._translation.chat_payload import chat_payload
from .._translation.embed_payload import embed_payload
from .._translation.embeddings import ollama_embeddings
from .._translation.generate_parts import GenerateParts
from .._translation.generate_payload import generate_payload
from .._translation.model_cards import (
    ModelCard,
    Tag,
    lacks_details,
    model_card,
    tag_name,
    tags,
    with_details,
)
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from .._wire.engine import EngineRequest
from ..exceptions import InvalidRequest, ModelNotFound
from ._http_backend import SECRETIVE, HTTPBackend, http_address
from ._http_client import encoded
from ._ollama_client import AsyncOllamaClient, OllamaClient

__all__ = ["OllamaBackend"]

SHOW_CACHE_SECONDS = 60
SHOW_CACHE_ENTRIES = 1000


def ollama_address(value: str) -> str:
    """``value``, if it is what Ollama's client takes for an address; the scheme may be missing.

    Raises:
        ValueError: it is not.
    """
    parts = http_address(
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

    @validate_call(config=SECRETIVE)
    def __init__(
        self,
        *,
        host: Annotated[str, AfterValidator(ollama_address)] | None = None,
        max_num_ctx: PositiveInt = 32_768,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.host = host
        self._max_num_ctx = max_num_ctx
        self._shown: dict[str, tuple[float, Tag]] = {}

    # Transport

    def get_client(self) -> OllamaClient:
        return OllamaClient(self.host, transport=self._transport(), **self.client_options())

    def get_async_client(self) -> AsyncOllamaClient:
        return AsyncOllamaClient(
            self.host, transport=self._async_transport(), **self.client_options()
        )

    # Chat

    def chat(self, request: ChatCompletionRequest) -> Delta:
        body, blame = self._payload(request, stream=False)
        return self._ask("/api/chat", body, ChatParts(), **blame)

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        body, blame = self._payload(request, stream=False)
        return await self._aask("/api/chat", body, ChatParts(), **blame)

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        body, blame = self._payload(request, stream=True)
        return self._stream("/api/chat", body, ChatParts(), **blame)

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        body, blame = self._payload(request, stream=True)
        return self._astream("/api/chat", body, ChatParts(), **blame)

    def _payload(self, request: ChatCompletionRequest, *, stream: bool) -> tuple[bytes, Blame]:
        self._check_context(request)
        payload = self.prepare_chat(chat_payload(request, stream=stream), request)
        return encoded(payload), chat_blame(request, payload["model"])

    # Completions

    def complete(self, request: CompletionRequest) -> Delta:
        body = self._completion_payload(request, stream=False)
        return self._ask("/api/generate", encoded(body), GenerateParts(), **_prompt(body))

    async def acomplete(self, request: CompletionRequest) -> Delta:
        body = self._completion_payload(request, stream=False)
        return await self._aask("/api/generate", encoded(body), GenerateParts(), **_prompt(body))

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        body = self._completion_payload(request, stream=True)
        return self._stream("/api/generate", encoded(body), GenerateParts(), **_prompt(body))

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        body = self._completion_payload(request, stream=True)
        return self._astream("/api/generate", encoded(body), GenerateParts(), **_prompt(body))

    def _completion_payload(self, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
        self._check_context(request)
        return self.prepare_completion(generate_payload(request, stream=stream), request)

    # Embeddings

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        body = self._embed_payload(request)
        answer = self._sync().fetch("POST", "/api/embed", encoded(body), **_input(body))
        return ollama_embeddings(answer, request)

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        body = self._embed_payload(request)
        client = await self._async()
        answer = await client.fetch("POST", "/api/embed", encoded(body), **_input(body))
        return ollama_embeddings(answer, request)

    def _embed_payload(self, request: EmbeddingsRequest) -> dict[str, Any]:
        self._check_context(request)
        return self.prepare_embed(embed_payload(request), request)

    def _check_context(self, request: EngineRequest) -> None:
        """A client must not fill the server's memory; what the site gives a model is its own
        affair."""
        asked = request.options.num_ctx if request.options is not None else None
        limit = max(self._max_num_ctx, request.engine_options.get("num_ctx", 0))
        if asked is not None and asked > limit:
            raise InvalidRequest(
                f"'options.num_ctx' may be up to {limit}, not {asked}.", param="options.num_ctx"
            )

    # Models

    def list_models(self) -> list[ModelCard]:
        client = self._sync()
        found = tags(client.fetch("GET", "/api/tags"))
        for tag in self._to_show(found):
            with suppress(ModelNotFound):  # it was removed in the meantime
                self._keep_shown(tag, client.fetch("POST", "/api/show", _show_content(tag)))
        return self._cards(found)

    async def alist_models(self) -> list[ModelCard]:
        client = await self._async()
        found = tags(await client.fetch("GET", "/api/tags"))
        for tag in self._to_show(found):
            with suppress(ModelNotFound):
                self._keep_shown(tag, await client.fetch("POST", "/api/show", _show_content(tag)))
        return self._cards(found)

    def _to_show(self, found: list[Tag]) -> list[Tag]:
        """Return the tags whose missing details were not fetched within the last minute."""
        now = time.monotonic()
        self._shown = {key: kept for key, kept in dict(self._shown).items() if kept[0] > now}
        return [tag for tag in found if lacks_details(tag) and _cache_key(tag) not in self._shown]

    def _keep_shown(self, tag: Tag, answer: bytes) -> None:
        if len(self._shown) < SHOW_CACHE_ENTRIES:
            expires = time.monotonic() + SHOW_CACHE_SECONDS
            self._shown[_cache_key(tag)] = (expires, with_details(tag, answer))

    def _cards(self, found: list[Tag]) -> list[ModelCard]:
        kept = dict(self._shown)
        return [model_card(kept.get(_cache_key(tag), (0, tag))[1]) for tag in found]

    def loaded_models(self) -> frozenset[str] | None:
        running = tags(self._sync().fetch("GET", "/api/ps"))
        return frozenset(name for tag in running for name in model_card(tag).names)

    # Life

    def ping(self) -> None:
        self._sync().fetch("GET", "/api/version")

    async def aping(self) -> None:
        client = await self._async()
        await client.fetch("GET", "/api/version")


def _prompt(body: dict[str, Any]) -> Blame:
    return Blame(model=body["model"], param="prompt", think_param="think")


def _input(body: dict[str, Any]) -> Blame:
    return Blame(model=body["model"], param="input")


def _show_content(tag: Tag) -> bytes:
    return encoded({"model": tag_name(tag)})


def _cache_key(tag: Tag) -> str:
    return f"{tag_name(tag)}@{tag.get('digest')}"
