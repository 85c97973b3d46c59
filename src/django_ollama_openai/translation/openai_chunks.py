"""Chunks of an engine that speaks OpenAI's format itself, as deltas."""

from __future__ import annotations

from typing import Any

from ..exceptions import (
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    UpstreamError,
)
from ..wire.delta import Delta, ToolCallDelta, Usage
from .logprobs import logprob
from .ollama_errors import context_message

__all__ = ["OpenAIChunks"]


class OpenAIChunks:
    """The state of one streamed answer: feed it every chunk, then ``finish()``.

    The engine is asked for ``include_usage``; the finish reason comes before the usage.
    """

    __slots__ = ("_finished",)

    def __init__(self) -> None:
        self._finished = False

    def feed(self, chunk: Any) -> Delta:
        """The delta that one ``chat.completion.chunk`` stands for.

        Raises:
            UpstreamError: the chunk makes no sense, or tells of a failure.
            InvalidRequest: the engine refuses the request.
        """
        try:
            if "error" in chunk:
                raise chunk_error(chunk["error"])
            delta = Delta(tokens=0)
            if usage := chunk.get("usage"):
                delta.usage = _usage(usage)
            for choice in chunk["choices"]:
                self._choice(choice, delta)
            return delta
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UpstreamError("The engine sent something that is not an answer.") from error

    def finish(self) -> None:
        """The engine has ended the stream.

        Raises:
            UpstreamError: without a finish reason.
        """
        if not self._finished:
            raise UpstreamError("The engine broke off in the middle of its answer.")

    def _choice(self, choice: dict[str, Any], delta: Delta) -> None:
        body = choice["delta"]
        delta.content = body.get("content") or ""
        delta.reasoning = body.get("reasoning_content") or ""
        delta.tool_calls = [_tool_call(call) for call in body.get("tool_calls") or ()]
        if logprobs := choice.get("logprobs"):
            delta.logprobs = [logprob(entry) for entry in logprobs["content"] or ()]
        if delta.content or delta.reasoning or delta.tool_calls:
            delta.tokens = 1
        if reason := choice.get("finish_reason"):
            delta.finish_reason = reason
            self._finished = True


def chunk_error(error: dict[str, Any]) -> GatewayError:
    """The error for the ``error`` object of a llama-server chunk."""
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(context_message(error), param="messages")
    if error.get("code") == 400 or error.get("type") == "invalid_request_error":
        return InvalidRequest(str(error.get("message") or "The engine refused the request."))
    return UpstreamError("The engine failed in the middle of its answer.")


def _tool_call(call: dict[str, Any]) -> ToolCallDelta:
    function = call.get("function") or {}
    return ToolCallDelta(
        index=call["index"],
        id=call.get("id"),
        name=function.get("name"),
        arguments=function.get("arguments") or "",
    )


def _usage(usage: dict[str, Any]) -> Usage:
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=prompt_details.get("cached_tokens") or 0,
        reasoning_tokens=completion_details.get("reasoning_tokens") or 0,
    )
