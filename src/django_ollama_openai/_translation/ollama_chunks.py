"""Translate the responses of Ollama's ``POST /api/chat`` and ``/api/generate`` into deltas.

A response is one chunk, or a stream of them, one a line. Source: Ollama's ``api/types.go``
(``ChatResponse``, ``GenerateResponse``). The types of all that goes on to the client are checked
in the same step as the JSON is parsed.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from .._wire.delta import Delta, ToolCallDelta, Usage, new_tool_call_id
from ..exceptions import UpstreamError
from .logprobs import Logprob, content_logprobs, logprob
from .ollama_errors import ollama_error

__all__ = ["OllamaChatChunks", "OllamaGenerateChunks"]


class _Function(TypedDict):
    name: str
    arguments: NotRequired[dict[str, Any] | None]


class _ToolCall(TypedDict):
    id: NotRequired[str | None]
    function: _Function


class _Message(TypedDict, total=False):
    content: str | None
    thinking: str | None
    tool_calls: list[_ToolCall] | None


class _Chunk(TypedDict, total=False):
    error: Any
    logprobs: list[Logprob] | None
    done: bool | None
    done_reason: str | None
    prompt_eval_count: int | None
    eval_count: int | None


class _ChatChunk(_Chunk, total=False):
    message: _Message


class _GenerateChunk(_Chunk, total=False):
    response: str | None
    thinking: str | None


class OllamaChatChunks:
    """The state of one response: ``feed()`` takes every chunk, ``finish()`` checks the end."""

    __slots__ = ("_done", "_held", "_tool_calls")

    # TypeAdapter.validate_json() itself would double the time for a token.
    _validator: ClassVar = TypeAdapter(_ChatChunk).validator
    _param: ClassVar[str] = "messages"

    def __init__(self) -> None:
        self._done = False
        self._tool_calls = 0
        #: Log probabilities of tokens whose text Ollama holds back: those of a tool call, or of an
        #: incomplete character, which may turn out to be content.
        self._held: list[dict[str, Any]] = []

    def feed(self, line: bytes) -> Delta:
        """Return the delta for ``line``, the JSON of one chunk.

        Raises:
            UpstreamError: The chunk is invalid, or reports a failure.
            ContextLengthExceeded: The chunk reports that the prompt is too long.
        """
        if self._done:
            # The response is complete; ignore anything after it.
            return Delta(tokens=0)
        try:
            chunk = self._validator.validate_json(line, strict=True)
            if "error" in chunk:
                raise ollama_error(None, line, param=self._param)
            return self._delta(chunk, self._message(chunk))
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent an invalid response.") from error

    def finish(self) -> None:
        """Check that the response was complete when Ollama closed the stream.

        Raises:
            UpstreamError: There was no chunk with ``done``. Ollama's own client ignores this.
        """
        if not self._done:
            raise UpstreamError("The engine's response ended before it was complete.")

    def _message(self, chunk: Any) -> _Message:
        message: _Message = chunk["message"]
        return message

    def _delta(self, chunk: _Chunk, message: _Message) -> Delta:
        delta = Delta(content=message.get("content") or "")
        if thinking := message.get("thinking"):
            delta.reasoning = thinking
        if calls := message.get("tool_calls"):
            delta.tool_calls = [self._tool_call(call) for call in calls]
        if (logprobs := chunk.get("logprobs")) is not None:
            delta.logprobs = self._content_logprobs(delta, [logprob(entry) for entry in logprobs])
        if chunk.get("done"):
            self._done = True
            delta.finish_reason = self._finish_reason(chunk.get("done_reason"))
            delta.usage = Usage(
                prompt_tokens=chunk.get("prompt_eval_count") or 0,
                completion_tokens=chunk.get("eval_count") or 0,
            )
            delta.tokens = 0
        return delta

    def _content_logprobs(
        self, delta: Delta, entries: list[dict[str, Any]]
    ) -> list[dict[str, Any]] | None:
        """Return the log probabilities, of ``entries`` and of those held back, that belong to the
        content of ``delta``: Ollama also reports tokens of reasoning and tool calls."""
        is_mixed = bool(delta.reasoning or delta.tool_calls)
        if not delta.content:
            if is_mixed:
                self._held.clear()
            else:
                self._held += entries
            return None
        held, self._held = self._held, []
        if is_mixed or held:
            found = content_logprobs([*held, *entries], delta.content)
            return found if found or is_mixed else entries
        return entries

    def _tool_call(self, call: _ToolCall) -> ToolCallDelta:
        function = call["function"]
        # pydantic accepts NaN as a number, OpenAI's clients do not.
        arguments = json.dumps(
            function.get("arguments") or {},
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
        # Ollama's indexes start again in each chunk; clients need one count for the whole answer.
        index = self._tool_calls
        self._tool_calls += 1
        return ToolCallDelta(
            index=index,
            id=call.get("id") or new_tool_call_id(),
            name=function["name"],
            arguments=arguments,
        )

    def _finish_reason(self, done_reason: str | None) -> str:
        if done_reason == "length":
            return "length"
        # Other reasons, "load" and "unload", are for requests without messages.
        return "tool_calls" if self._tool_calls else "stop"


class OllamaGenerateChunks(OllamaChatChunks):
    """The state of one response of ``/api/generate``, whose chunks have no message: their text is
    in the chunk itself."""

    __slots__ = ()

    _validator: ClassVar = TypeAdapter(_GenerateChunk).validator
    _param: ClassVar[str] = "prompt"

    def _message(self, chunk: Any) -> _Message:
        return {"content": chunk["response"], "thinking": chunk.get("thinking")}
