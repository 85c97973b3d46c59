"""Any engine that speaks OpenAI's API over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Final

from pydantic import AfterValidator, SecretStr, validate_call

from .._translation.blame import Blame
from .._translation.chat_blame import chat_blame
from .._translation.embeddings import openai_embeddings
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
from ._http_backend import SECRETIVE, HTTPBackend, http_address
from ._http_client import encoded
from ._openai_client import AsyncOpenAIClient, OpenAIClient

__all__ = ["OpenAIBackend"]

CHAT: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
EMBEDDINGS: Final = "/embeddings"
MODELS: Final = "/models"

_ENDPOINT: Final = re.compile(r"/(chat/completions|completions|embeddings|models|responses)/?$")


def openai_address(value: str) -> str:
    """``value``, if an API can be there.

    Raises:
        ValueError: it cannot.
    """
    parts = http_address(value, example="http://gpu-1:8000/v1")
    if parts.username is not None or parts.password is not None:
        # It would be logged with every request.
        raise ValueError("Put credentials into 'api_key' or 'headers', not into the address")
    if parts.query or parts.fragment:
        raise ValueError("An address that other paths are added to has no '?' and no '#'")
    if _ENDPOINT.search(parts.path):
        raise ValueError("Leave the endpoint out: it is added to the address")
    return value


def parameters(names: list[str]) -> list[str]:
    """``names``, if all are optional parameters.

    Raises:
        ValueError: one is not.
    """
    known = [*OPTIONAL_PARAMETERS, "token_input"]
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is no optional parameter; there are {', '.join(known)}")
    return names


def bearer_token(value: SecretStr) -> SecretStr:
    """``value``, if it can be sent as it is.

    Raises:
        ValueError: it cannot.
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
        lacks: The optional parameters that this engine or its models do not support. The gateway
            honours ``tool_choice`` and ``parallel_tool_calls`` itself if they are listed.
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

    @validate_call(config=SECRETIVE)
    def __init__(
        self,
        *,
        base_url: Annotated[str, AfterValidator(openai_address)],
        api_key: Annotated[SecretStr, AfterValidator(bearer_token)] | None = None,
        lacks: Annotated[list[str], AfterValidator(parameters)] | None = None,
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
        self.supported_parameters -= frozenset(lacks or ())

    # Transport

    def get_client(self) -> OpenAIClient:
        return OpenAIClient(self._base_url, transport=self._transport(), **self.client_options())

    def get_async_client(self) -> AsyncOpenAIClient:
        return AsyncOpenAIClient(
            self._base_url, transport=self._async_transport(), **self.client_options()
        )

    # Chat

    def chat(self, request: ChatCompletionRequest) -> Delta:
        body, blame = self._payload(request, stream=False)
        return self._ask(CHAT, body, OpenAIAnswer(**blame), **blame)

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        body, blame = self._payload(request, stream=False)
        return await self._aask(CHAT, body, OpenAIAnswer(**blame), **blame)

    def stream_chat(self, request: ChatCompletionRequest) -> Iterator[Delta]:
        body, blame = self._payload(request, stream=True)
        return self._stream(CHAT, body, OpenAIChunks(**blame), **blame)

    def astream_chat(self, request: ChatCompletionRequest) -> AsyncIterator[Delta]:
        body, blame = self._payload(request, stream=True)
        return self._astream(CHAT, body, OpenAIChunks(**blame), **blame)

    def _payload(self, request: ChatCompletionRequest, *, stream: bool) -> tuple[bytes, Blame]:
        payload = openai_chat_payload(
            request,
            self.supported_parameters,
            stream=stream,
            json_arguments=self._json_arguments,
        )
        payload = self.prepare_chat(payload, request)
        return encoded(payload), chat_blame(request, payload["model"])

    # Completions

    def complete(self, request: CompletionRequest) -> Delta:
        body, blame = self._completion_payload(request, stream=False)
        return self._ask(COMPLETIONS, body, _text_chunks(request, blame), **blame)

    async def acomplete(self, request: CompletionRequest) -> Delta:
        body, blame = self._completion_payload(request, stream=False)
        return await self._aask(COMPLETIONS, body, _text_chunks(request, blame), **blame)

    def stream_complete(self, request: CompletionRequest) -> Iterator[Delta]:
        body, blame = self._completion_payload(request, stream=True)
        return self._stream(COMPLETIONS, body, _text_chunks(request, blame), **blame)

    def astream_complete(self, request: CompletionRequest) -> AsyncIterator[Delta]:
        body, blame = self._completion_payload(request, stream=True)
        return self._astream(COMPLETIONS, body, _text_chunks(request, blame), **blame)

    def _completion_payload(
        self, request: CompletionRequest, *, stream: bool
    ) -> tuple[bytes, Blame]:
        payload = openai_completion_payload(request, self.supported_parameters, stream=stream)
        payload = self.prepare_completion(payload, request)
        return encoded(payload), Blame(model=payload["model"], param="prompt")

    # Embeddings

    def embed(self, request: EmbeddingsRequest) -> Embeddings:
        body, blame = self._embed_payload(request)
        answer = self._sync().fetch("POST", EMBEDDINGS, body, **blame)
        return openai_embeddings([answer], request)

    async def aembed(self, request: EmbeddingsRequest) -> Embeddings:
        body, blame = self._embed_payload(request)
        answer = await (await self._async()).fetch("POST", EMBEDDINGS, body, **blame)
        return openai_embeddings([answer], request)

    def _embed_payload(self, request: EmbeddingsRequest) -> tuple[bytes, Blame]:
        payload = openai_embeddings_payload(request, self.supported_parameters)
        payload = self.prepare_embed(payload, request)
        return encoded(payload), Blame(model=payload["model"], param="input")

    # Models

    def list_models(self) -> list[ModelCard]:
        return openai_models(self._sync().fetch("GET", MODELS))

    async def alist_models(self) -> list[ModelCard]:
        return openai_models(await (await self._async()).fetch("GET", MODELS))


def _text_chunks(request: CompletionRequest, blame: Blame) -> OpenAITextChunks:
    return OpenAITextChunks(alternatives=request.logprobs or 0, **blame)
