"""Ollama, through its official Python client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated, Any, Unpack
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, NonNegativeInt, PositiveFloat, PositiveInt, validate_call

from ..exceptions import InvalidRequest, ModelNotFound
from ..pump import aclosed
from ..translation.chat_parts import ChatParts
from ..translation.chat_payload import chat_payload
from ..translation.embed_payload import embed_payload
from ..translation.embeddings import ollama_embeddings
from ..translation.generate_parts import GenerateParts
from ..translation.generate_payload import generate_payload
from ..translation.model_cards import (
    ModelCard,
    Tag,
    lacks_details,
    model_card,
    tag_name,
    tags,
    with_details,
)
from ..translation.ollama_errors import Blame
from ..wire.chat import ChatCompletionRequest
from ..wire.completions import CompletionRequest
from ..wire.delta import Delta, Embeddings
from ..wire.embeddings import EmbeddingsRequest
from ..wire.engine import EngineRequest
from .base import BaseBackend
from .ollama_client import (
    AsyncOllamaClient,
    InterruptibleTransport,
    NoCookies,
    OllamaClient,
    Patience,
    encoded,
)

__all__ = ["OllamaBackend"]

SHOW_CACHE_SECONDS = 60
SHOW_CACHE_ENTRIES = 1000


def http_address(value: str) -> str:
    """``value``, if it is what Ollama's client takes for an address; the scheme may be missing.

    Raises:
        ValueError: it is not.
    """
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if not has_port or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("Not an http(s) address such as 'http://gpu-1:11434'")
    if parts.path.rstrip("/").endswith(("/v1", "/api")):
        raise ValueError("Leave the path out: '/api' is added to the address")
    return value


class OllamaBackend(BaseBackend):
    """An Ollama server.

    Args:
        host: its address; without it ``$OLLAMA_HOST``, then ``http://127.0.0.1:11434``.
        headers: sent with every request, for a server behind a proxy that asks for them.
        connect_timeout: seconds to reach the server.
        timeout: seconds that the server may stay silent; an answer in one piece is silence until it
            is there.
        first_token_timeout: the same for the beginning of a stream, before which the server may
            have to load the model; ``timeout`` if absent.
        token_timeout: the same between the tokens of a stream; ``timeout`` if absent. Ollama is
            silent while a model writes the call of a tool.
        max_idle_connections: how many connections are kept open for the next request. Under ASGI
            with the extra ``fast`` all are kept, for five seconds.
        fast: whether requests under ASGI go through ``aiohttp``, which the extra ``fast`` installs
            and with which a stream takes about a third less of the processor. ``None``: if it is
            installed.
        verify: whether to check the server's certificate.
        max_num_ctx: the largest context, in tokens, that a client may ask for with ``options``;
            more than that only as far as ``MODELS`` gives the model.

    For another transport, override :meth:`get_client` and :meth:`get_async_client`.
    """

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
            "suffix",
            "think",
            "tools",
            "truncate",
        }
    )

    @validate_call
    def __init__(
        self,
        *,
        host: Annotated[str, AfterValidator(http_address)] | None = None,
        headers: dict[str, str] | None = None,
        connect_timeout: PositiveFloat = 5,
        timeout: PositiveFloat = 600,
        first_token_timeout: PositiveFloat | None = None,
        token_timeout: PositiveFloat | None = None,
        max_idle_connections: NonNegativeInt = 20,
        fast: bool | None = None,
        verify: bool = True,
        max_num_ctx: PositiveInt = 32_768,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.host = host
        self._max_num_ctx = max_num_ctx
        self._headers = headers or {}
        self._timeout = httpx.Timeout(timeout, connect=connect_timeout)
        self._patience = Patience(first_token_timeout or timeout, token_timeout or timeout)
        self._limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=max_idle_connections
        )
        self._verify = verify
        is_installed = find_spec("httpx_aiohttp") is not None
        if fast and not is_installed:
            raise ValueError("fast=True needs the extra: pip install 'django-ollama-openai[fast]'")
        self._is_fast = is_installed if fast is None else fast
        self._lock = threading.Lock()
        self._client: OllamaClient | None = None
        self._async_clients: dict[
            asyncio.AbstractEventLoop, tuple[AsyncOllamaClient, AsyncGenerator[AsyncOllamaClient]]
        ] = {}
        self._shown: dict[str, tuple[float, Tag]] = {}

    # Transport

    def get_client(self) -> OllamaClient:
        """A hook: make the client for synchronous requests. It is made once and shared."""
        return OllamaClient(
            self.host,
            transport=InterruptibleTransport(verify=self._verify, limits=self._limits),
            **self.client_options(),
        )

    def get_async_client(self) -> AsyncOllamaClient:
        """A hook: make the client for asynchronous requests. There is one per event loop."""
        return AsyncOllamaClient(
            self.host, transport=self._async_transport(), **self.client_options()
        )

    def _async_transport(self) -> httpx.AsyncBaseTransport:
        if not self._is_fast:
            return httpx.AsyncHTTPTransport(verify=self._verify, limits=self._limits)
        # It may not be there, and WSGI does without.
        from .fast_transport import FastTransport

        return FastTransport(verify=self._verify)

    def client_options(self) -> dict[str, Any]:
        """What both clients are made with, beside the host and the transport."""
        # What the site configured is what is asked: no redirects, no proxies from the environment.
        return {
            "headers": self._headers,
            "timeout": self._timeout,
            "follow_redirects": False,
            "trust_env": False,
            "cookies": NoCookies(),
        }

    def _sync(self) -> OllamaClient:
        with self._lock:
            if self._client is None:
                self._client = self.get_client()
            return self._client

    async def _async(self) -> AsyncOllamaClient:
        loop = asyncio.get_running_loop()
        held = self._async_clients.get(loop)
        if held is None:
            for other in list(self._async_clients):
                if other.is_closed():
                    self._async_clients.pop(other, None)
            keeper = _closed_with_its_loop(self.get_async_client())
            held = self._async_clients[loop] = (await anext(keeper), keeper)
        return held[0]

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client._client.close()

    # Chat

    def chat(self, request: ChatCompletionRequest) -> Delta:
        body = self._payload(request, stream=False)
        return _answer(self._sync().fetch("POST", "/api/chat", encoded(body), model=body["model"]))

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        body = self._payload(request, stream=False)
        client = await self._async()
        return _answer(await client.fetch("POST", "/api/chat", encoded(body), model=body["model"]))

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        body = self._payload(request, stream=True)
        return self._stream("/api/chat", encoded(body), ChatParts(), model=body["model"])

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        body = self._payload(request, stream=True)
        return self._astream("/api/chat", encoded(body), ChatParts(), model=body["model"])

    def _payload(self, request: ChatCompletionRequest, *, stream: bool) -> dict[str, Any]:
        self._check_context(request)
        return self.prepare_chat(chat_payload(request, stream=stream), request)

    # Completions

    def complete(self, request: CompletionRequest) -> Delta:
        body = self._completion_payload(request, stream=False)
        answer = self._sync().fetch("POST", "/api/generate", encoded(body), **_prompt(body))
        return _answer(answer, GenerateParts)

    async def acomplete(self, request: CompletionRequest) -> Delta:
        body = self._completion_payload(request, stream=False)
        client = await self._async()
        answer = await client.fetch("POST", "/api/generate", encoded(body), **_prompt(body))
        return _answer(answer, GenerateParts)

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        body = self._completion_payload(request, stream=True)
        return self._stream("/api/generate", encoded(body), GenerateParts(), **_prompt(body))

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        body = self._completion_payload(request, stream=True)
        return self._astream("/api/generate", encoded(body), GenerateParts(), **_prompt(body))

    def _completion_payload(self, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
        self._check_context(request)
        return self.prepare_completion(generate_payload(request, stream=stream), request)

    # Streams

    def _stream(
        self, path: str, content: bytes, parts: ChatParts, **blame: Unpack[Blame]
    ) -> Iterator[Delta]:
        for lines in self._sync().stream_lines(path, content, self._patience, **blame):
            for line in lines:
                yield parts.feed(line)
        parts.finish()

    async def _astream(
        self, path: str, content: bytes, parts: ChatParts, **blame: Unpack[Blame]
    ) -> AsyncIterator[Delta]:
        client = await self._async()
        # Closed here and not by the garbage collector: Ollama generates until it is.
        arriving = client.stream_lines(path, content, self._patience, **blame)
        async with aclosed(arriving):
            async for lines in arriving:
                for line in lines:
                    yield parts.feed(line)
        parts.finish()

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
        """The tags that lack details nobody has asked for within the last minute."""
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


async def _closed_with_its_loop(client: AsyncOllamaClient) -> AsyncGenerator[AsyncOllamaClient]:
    """Yields ``client`` once and stays suspended: an event loop that shuts down closes the
    asynchronous generators that are still open, and so the client's connections."""
    try:
        yield client
    finally:
        await client._client.aclose()


def _answer(body: bytes, kind: type[ChatParts] = ChatParts) -> Delta:
    parts = kind()
    delta = parts.feed(body)
    parts.finish()
    return delta


def _prompt(body: dict[str, Any]) -> Blame:
    return Blame(model=body["model"], param="prompt")


def _input(body: dict[str, Any]) -> Blame:
    return Blame(model=body["model"], param="input")


def _show_content(tag: Tag) -> bytes:
    return encoded({"model": tag_name(tag)})


def _cache_key(tag: Tag) -> str:
    return f"{tag_name(tag)}@{tag.get('digest')}"
