"""The endpoints that an engine answers, streamed or not."""

from __future__ import annotations

from typing import Final

from .._gateway.admission import Admission
from .._gateway.chat import run_chat
from .._gateway.delivery import Reply
from .._gateway.embeddings import embed
from .._gateway.flow import Flow
from .._gateway.responses import respond
from .._gateway.text_completions import complete_text
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import CompletionRequest
from .._wire.embeddings import EmbeddingsRequest
from .._wire.response_models.chat import ChatCompletion, ChatCompletionChunk
from .._wire.response_models.completions import TextCompletion, TextCompletionChunk
from .._wire.response_models.embeddings import EmbeddingList
from .._wire.response_models.responses import Response, ResponseEvent
from .._wire.responses import ResponsesRequest
from .endpoint import Declaration, Endpoint

__all__ = ["CREATE_CHAT_COMPLETION", "chat_completions", "completions", "embeddings", "responses"]


_STREAMED_ONLY: Final = "`stream_options` is only for a stream."
_UNSUPPORTED: Final = (
    "A parameter that the model, or its engine, does not support is refused, unless the site "
    "ignores such parameters: the header `x-ignored-parameters` then names them."
)
_IMAGES: Final = (
    "The data of a data URI must have the type that the URI names. Images at an address are "
    "fetched only if the site allows it."
)
_TOOL_CHOICE: Final = "`tool_choice` can only name functions among the `tools`."
_LIMITS: Final = "The site may set lower limits for the number of choices, and for `num_ctx`."


def _rules(*rules: str) -> str:
    """Return the description of an operation: the ``rules`` that its JSON schema cannot express,
    and those of all operations."""
    return "\n".join(f"- {rule}" for rule in (*rules, _LIMITS, _UNSUPPORTED))


chat_completions = Endpoint(tags={"Chat": "Chat completions"})

#: For apps that replace the endpoint, too.
CREATE_CHAT_COMPLETION: Final = Declaration(
    scope="chat",
    name="chat.completions",
    operation_id="createChatCompletion",
    summary="Create a chat completion",
    tags=tuple(chat_completions.tags),
    body=ChatCompletionRequest,
    response=ChatCompletion,
    event=ChatCompletionChunk,
    description=_rules(
        "`top_logprobs` is only for `logprobs`.",
        _STREAMED_ONLY,
        _TOOL_CHOICE,
        _IMAGES,
    ),
)


@chat_completions.post(**CREATE_CHAT_COMPLETION)
def create_chat_completion(admission: Admission[ChatCompletionRequest]) -> Flow[Reply]:
    """Create a chat completion."""
    return (yield from run_chat(admission))


responses = Endpoint(tags={"Responses": "OpenAI's Responses API"})


@responses.post(
    scope="chat",
    name="responses",
    body=ResponsesRequest,
    response=Response,
    event=ResponseEvent,
    makes_chat=True,
    description=_rules(
        "`input` needs more than reasoning that cannot be read here.",
        "`previous_response_id` is only for sites that store responses, and not beside a "
        "`conversation`.",
        "`input` may only be left out of a response that continues something that is stored; "
        "references to items are for such sites, too.",
        _STREAMED_ONLY,
        _TOOL_CHOICE,
        _IMAGES,
    ),
)
def create_response(admission: Admission[ResponsesRequest]) -> Flow[Reply]:
    """Create a response."""
    return (yield from respond(admission))


completions = Endpoint(tags={"Completions": "OpenAI's older text completions"})


@completions.post(
    scope="chat",
    name="completions",
    body=CompletionRequest,
    response=TextCompletion,
    event=TextCompletionChunk,
    description=_rules(
        "`echo` is not for `logprobs`, nor for prompts in tokens.",
        "All prompts may have up to 100,000 tokens together.",
        "`best_of` must be equal to `n`.",
        _STREAMED_ONLY,
    ),
)
def create_completion(admission: Admission[CompletionRequest]) -> Flow[Reply]:
    """Create a completion."""
    return (yield from complete_text(admission))


embeddings = Endpoint(tags={"Embeddings": "Vectors of texts"})


@embeddings.post(
    scope="embeddings",
    name="embeddings",
    body=EmbeddingsRequest,
    response=EmbeddingList,
    description=_rules(
        "The vectors cannot be longer than the model's own, and not all models can shorten them: "
        "`dimensions`.",
    ),
)
def create_embedding(admission: Admission[EmbeddingsRequest]) -> Flow[Reply]:
    """Create embeddings."""
    return (yield from embed(admission))
