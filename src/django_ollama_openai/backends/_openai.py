"""Any engine that speaks OpenAI's API over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Final

from pydantic import AfterValidator, SecretStr, validate_call

from .._translation.embeddings import openai_embeddings
from .._translation.error_context import ErrorContext, chat_error_context
from .._translation.model_cards import ModelCard
from .._translation.openai_chunks import OpenAIAnswer, OpenAIChunks, OpenAITextChunks
from .._translation.openai_models import openai_models
from .._translation.openai_payload import (
    openai_chat_payload,
    openai_completion_payload,
    openai_embeddings_payload,
)
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.delta import Delta, Embeddings
from .._wire.embeddings import EmbeddingsRequest
from ._base import OPTIONAL_PARAMETERS
from ._http_backend import HIDE_INPUT, HTTPBackend, parse_http_url
from ._http_client import encode_json
from ._openai_client import AsyncOpenAIClient, OpenAIClient

__all__ = ["OpenAIBackend"]

CHAT: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
EMBEDDINGS: Final = "/embeddings"
MODELS: Final = "/models"

_ENDPOINT: Final = re.compile(r"/(chat/completions|completions|embeddings|models|responses)/?$")


def check_base_url(value: str) -> str:
    """Return ``value`` if it can be the base URL of an API.

    Raises:
        ValueError: It cannot.
    """
    parts = parse_http_url(value, example="http://gpu-1:8000/v1")
    if parts.username is not None or parts.password is not None:
        # They would be logged with every request.
        raise ValueError("Put credentials into 'api_key' or 'headers', not into the address")
    if parts.query or parts.fragment:
        raise ValueError("An address that other paths are added to has no '?' and no '#'")
    if _ENDPOINT.search(parts.path):
        raise ValueError("Leave the endpoint out: it is added to the address")
    return value


def check_parameters(names: list[str]) -> list[str]:
    """Return ``names`` if all are optional parameters.

    Raises:
        ValueError: One is not.
    """
    known = [*OPTIONAL_PARAMETERS, "token_input"]
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is no optional parameter; there are {', '.join(known)}")
    return names


def check_api_key(value: SecretStr) -> SecretStr:
    """Return ``value`` if it can be sent as a bearer token.

    Raises:
        ValueError: It cannot.
    """
    # As with API_KEYS: a variable may be missing from the environment.
    if not value:
        raise ValueError("The key is empty; leave it out, or set the variable that it comes from")
    token = value.get_secret_value()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("A key has no spaces, no line ends and only letters of ASCII")
    return value


class OpenAIBackend(HTTPBackend[OpenAIClient, AsyncOpenAIClient]):
    """An engine with OpenAI's API: vLLM, SGLang, Ray Serve, llama.cpp's server, OpenAI itself, or
    another gateway.

    Args:
        base_url: The address of the API, which usually ends in ``/v1``.
        api_key: Sent as a bearer token; it wins over an ``Authorization`` in ``headers``.
        unsupported_parameters: The optional parameters that this engine or its models do not
            support. The gateway honours ``tool_choice`` and ``parallel_tool_calls`` itself if they
            are listed.
        json_arguments: Whether the engine accepts only JSON objects as the arguments of earlier
            tool calls, as llama.cpp's server does. Models also write other texts; the engine then
            gets ``{"arguments": "the text"}``. Without it every text is sent unchanged.

    Also takes the arguments of
    :class:`~django_ollama_openai.backends.HTTPBackend`.

    The ``OPTIONS`` of a model in ``MODELS`` are fields of the request body, such as vLLM's
    ``top_k``.
    """

    advice = "start it, or set BASE_URL"

    supports_completions = True
    supports_embeddings = True

    supported_parameters = frozenset(
        {
            "dimensions",
            "image_url",
            "input_audio",
            "logit_bias",
            "logprobs",
            "parallel_tool_calls",
            "reasoning_effort",
            "response_format",
            "suffix",
            "token_input",
            "tool_choice",
            "tools",
        }
    )

    @validate_call(config=HIDE_INPUT)
    def __init__(
        self,
        *,
        base_url: Annotated[str, AfterValidator(check_base_url)],
        api_key: Annotated[SecretStr, AfterValidator(check_api_key)] | None = None,
        unsupported_parameters: Annotated[list[str], AfterValidator(check_parameters)]
        | None = None,
        json_arguments: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._json_arguments = json_arguments
        self._base_url = base_url
        if api_key:
            others = {
                name: value
                for name, value in self._headers.items()
                if name.lower() != "authorization"
            }
            self._headers = {**others, "Authorization": f"Bearer {api_key.get_secret_value()}"}
        self.supported_parameters -= frozenset(unsupported_parameters or ())

    # Transport

    def get_client(self) -> OpenAIClient:
        return OpenAIClient(
            self._base_url, transport=self._make_transport(), **self.client_options()
        )

    def get_async_client(self) -> AsyncOpenAIClient:
        return AsyncOpenAIClient(
            self._base_url, transport=self._make_async_transport(), **self.client_options()
        )

    # Chat

    def chat(self, request: ChatCompletionRequest) -> Delta:
        body, context = self._payload(request, stream=False)
        return self._fetch(CHAT, body, OpenAIAnswer(**context), **context)

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        body, context = self._payload(request, stream=False)
        return await self._afetch(CHAT, body, OpenAIAnswer(**context), **context)

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        body, context = self._payload(request, stream=True)
        return self._stream(CHAT, body, OpenAIChunks(**context), **context)

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        body, context = self._payload(request, stream=True)
        return self._astream(CHAT, body, OpenAIChunks(**context), **context)

    def _payload(
        self, request: ChatCompletionRequest, *, stream: bool
    ) -> tuple[bytes, ErrorContext]:
        payload = openai_chat_payload(
            request,
            self.supported_parameters,
            stream=stream,
            json_arguments=self._json_arguments,
        )
        payload = self.prepare_chat(payload, request)
        return encode_json(payload), chat_error_context(request, payload["model"])

    # Completions

    def complete(self, request: CompletionRequest) -> Delta:
        body, context = self._completion_payload(request, stream=False)
        return self._fetch(COMPLETIONS, body, _text_chunks(request, context), **context)

    async def acomplete(self, request: CompletionRequest) -> Delta:
        body, context = self._completion_payload(request, stream=False)
        return await self._afetch(COMPLETIONS, body, _text_chunks(request, context), **context)

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        body, context = self._completion_payload(request, stream=True)
        return self._stream(COMPLETIONS, body, _text_chunks(request, context), **context)

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        body, context = self._completion_payload(request, stream=True)
        return self._astream(COMPLETIONS, body, _text_chunks(request, context), **context)

    def _completion_payload(
        self, request: CompletionRequest, *, stream: bool
    ) -> tuple[bytes, ErrorContext]:
        payload = openai_completion_payload(request, self.supported_parameters, stream=stream)
        payload = self.prepare_completion(payload, request)
        return encode_json(payload), ErrorContext(model=payload["model"], param="prompt")

    # Embeddings

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        body, context = self._embed_payload(request)
        answer = self._shared_client().fetch("POST", EMBEDDINGS, body, **context)
        return openai_embeddings([answer], request)

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        body, context = self._embed_payload(request)
        answer = await (await self._shared_async_client()).fetch(
            "POST", EMBEDDINGS, body, **context
        )
        return openai_embeddings([answer], request)

    def _embed_payload(self, request: EmbeddingsRequest) -> tuple[bytes, ErrorContext]:
        payload = openai_embeddings_payload(request, self.supported_parameters)
        payload = self.prepare_embed(payload, request)
        return encode_json(payload), ErrorContext(model=payload["model"], param="input")

    # Models

    def list_models(self) -> list[ModelCard]:
        return openai_models(self._shared_client().fetch("GET", MODELS))

    async def alist_models(self) -> list[ModelCard]:
        return openai_models(await (await self._shared_async_client()).fetch("GET", MODELS))


def _text_chunks(request: CompletionRequest, context: ErrorContext) -> OpenAITextChunks:
    return OpenAITextChunks(alternatives=request.logprobs or 0, **context)
