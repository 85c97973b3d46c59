"""Chunks of an engine that speaks OpenAI's format itself, as deltas."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from ..exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    UpstreamError,
)
from ..wire.delta import Delta, ToolCallDelta, Usage
from .chat_parts import new_tool_call_id
from .logprobs import Logprob, logprob
from .ollama_errors import context_message

__all__ = ["LlamaTextChunks", "OpenAIChunks", "chunk_error"]


class _Function(TypedDict, total=False):
    name: str | None
    arguments: str | None


class _ToolCall(TypedDict):
    index: int
    id: NotRequired[str | None]
    function: NotRequired[_Function | None]


class _Message(TypedDict, total=False):
    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    tool_calls: list[_ToolCall] | None


class _Logprobs(TypedDict):
    content: list[Logprob] | None


class _Choice(TypedDict):
    delta: _Message
    finish_reason: NotRequired[str | None]
    logprobs: NotRequired[_Logprobs | None]


class _PromptDetails(TypedDict, total=False):
    cached_tokens: int | None


class _CompletionDetails(TypedDict, total=False):
    reasoning_tokens: int | None


class _Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: NotRequired[_PromptDetails | None]
    completion_tokens_details: NotRequired[_CompletionDetails | None]


class _Chunk(TypedDict, total=False):
    error: dict[str, Any]
    choices: list[_Choice]
    usage: _Usage | None


_CHUNK = TypeAdapter(_Chunk)


class OpenAIChunks:
    """The state of one streamed answer: feed it every chunk, then ``finish()``.

    The engine is asked for ``include_usage``; the finish reason comes before the usage.
    """

    __slots__ = ("_calls", "_finished")

    param: ClassVar[str] = "messages"
    """The field of the request that may be too long."""

    def __init__(self) -> None:
        self._finished = False
        self._calls: set[int] = set()

    def feed(self, data: Any) -> Delta:
        """The delta that one ``chat.completion.chunk`` stands for; ``data`` is its JSON, parsed.

        Raises:
            UpstreamError: the chunk makes no sense, or tells of a failure.
            InvalidRequest: the engine refuses the request.
        """
        try:
            chunk = _CHUNK.validate_python(data, strict=True)
            if "error" in chunk:
                raise chunk_error(chunk["error"], self.param)
            delta = Delta(tokens=0)
            if usage := chunk.get("usage"):
                delta.usage = _usage(usage)
            for choice in chunk["choices"]:
                self._choice(choice, delta)
            return delta
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent something that is not an answer.") from error

    def finish(self) -> None:
        """The engine has ended the stream.

        Raises:
            UpstreamError: without a finish reason.
        """
        if not self._finished:
            raise UpstreamError("The engine broke off in the middle of its answer.")

    def _choice(self, choice: _Choice, delta: Delta) -> None:
        body = choice["delta"]
        delta.content = body.get("content") or ""
        # Engines have two names for it.
        delta.reasoning = body.get("reasoning_content") or body.get("reasoning") or ""
        delta.tool_calls = [self._tool_call(call) for call in body.get("tool_calls") or ()]
        if logprobs := choice.get("logprobs"):
            delta.logprobs = [logprob(entry) for entry in logprobs["content"] or ()]
        if delta.content or delta.reasoning or delta.tool_calls:
            delta.tokens = 1
        if reason := choice.get("finish_reason"):
            delta.finish_reason = reason
            self._finished = True

    def _tool_call(self, call: _ToolCall) -> ToolCallDelta:
        index = call["index"]
        function = call.get("function") or {}
        is_first = index not in self._calls
        self._calls.add(index)
        if is_first and not function.get("name"):
            raise ValueError("A tool call begins without a name")
        return ToolCallDelta(
            index=index,
            id=(call.get("id") or new_tool_call_id()) if is_first else None,
            name=function.get("name") if is_first else None,
            arguments=function.get("arguments") or "",
        )


class LlamaTextChunks(OpenAIChunks):
    """The same for the ``text_completion`` of llama-server, which has the text in the choice itself
    and log probabilities as in a chat.

    Its least number of ``alternatives`` for each token is 1; here it may be 0.
    """

    __slots__ = ("_alternatives",)

    param = "prompt"

    def __init__(self, alternatives: int) -> None:
        super().__init__()
        self._alternatives = alternatives

    def feed(self, data: Any) -> Delta:
        if isinstance(data, dict) and isinstance(data.get("choices"), list):
            data = {**data, "choices": [_chat_choice(choice) for choice in data["choices"]]}
        delta = super().feed(data)
        for entry in delta.logprobs or ():
            del entry["top_logprobs"][self._alternatives :]
        return delta


def _chat_choice(choice: Any) -> Any:
    return (
        {**choice, "delta": {"content": choice.get("text")}} if isinstance(choice, dict) else None
    )


_TOO_LARGE: Final = re.compile(r"input \((\d+) tokens\) is too large .* batch size: (\d+)")
"""How llama-server says that an input of embeddings does not fit."""


def chunk_error(error: dict[str, Any], param: str = "messages") -> GatewayError:
    """The error for the ``error`` object of a llama-server answer; ``param`` is the field of the
    request that may be too long."""
    message = error.get("message")
    text = message if isinstance(message, str) else ""
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(context_message(error, param), param=param)
    if sizes := _TOO_LARGE.search(text):
        detail = {"n_prompt_tokens": int(sizes[1]), "n_ctx": int(sizes[2])}
        return ContextLengthExceeded(context_message(detail, param), param=param)
    if "does not support logits" in text:
        return InvalidRequest(
            "This model does not produce text.", param="model", code="unsupported_endpoint"
        )
    if text.startswith("Pooling type"):
        return UpstreamError("This model's file does not say how to pool; set 'pooling'.")
    if error.get("code") == 400 or error.get("type") == "invalid_request_error":
        return InvalidRequest(str(message or "The engine refused the request."))
    return UpstreamError("The engine failed in the middle of its answer.")


def _usage(usage: _Usage) -> Usage:
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=prompt_details.get("cached_tokens") or 0,
        reasoning_tokens=completion_details.get("reasoning_tokens") or 0,
    )
