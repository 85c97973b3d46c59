"""The answer of Ollama's ``POST /api/chat`` as deltas, streamed or not.

Source: Ollama's ``api/types.go`` (``ChatResponse``). What goes on to the client is checked for its
type, all in one step with the parsing.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, ClassVar, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from .._wire.delta import Delta, ToolCallDelta, Usage
from ..exceptions import UpstreamError
from .logprobs import Logprob, logprob, of_content
from .ollama_errors import ollama_error

__all__ = ["AnswerPart", "ChatParts", "Message", "new_tool_call_id"]


def new_tool_call_id() -> str:
    """An id as OpenAI's look, for engines that give none."""
    return "call_" + secrets.token_hex(12)


class _Function(TypedDict):
    name: str
    arguments: NotRequired[dict[str, Any] | None]


class _ToolCall(TypedDict):
    id: NotRequired[str | None]
    function: _Function


class Message(TypedDict, total=False):
    content: str | None
    thinking: str | None
    tool_calls: list[_ToolCall] | None


class AnswerPart(TypedDict, total=False):
    """What a part has beside the text, whichever endpoint it comes from."""

    error: Any
    logprobs: list[Logprob] | None
    done: bool | None
    done_reason: str | None
    prompt_eval_count: int | None
    eval_count: int | None


class _Part(AnswerPart, total=False):
    message: Message


class ChatParts:
    """The state of one answer: feed it every part, then ``finish()``."""

    __slots__ = ("_done", "_held", "_tool_calls")

    # The adapter itself puts as much again on top of what it takes to read a token.
    _validator: ClassVar = TypeAdapter(_Part).validator
    _param: ClassVar[str] = "messages"

    def __init__(self) -> None:
        self._done = False
        self._tool_calls = 0
        self._held: list[dict[str, Any]] = []
        """Log probabilities of tokens whose text Ollama holds back: those of a call, or of an
        incomplete character, which may turn out to be content."""

    def feed(self, line: bytes) -> Delta:
        """The delta that one line of the answer stands for.

        Raises:
            UpstreamError: the line makes no sense, or tells of a failure.
            ContextLengthExceeded: it tells of this one.
        """
        if self._done:
            # Whatever follows the end is no part of the answer.
            return Delta(tokens=0)
        try:
            part = self._validator.validate_json(line, strict=True)
            if "error" in part:
                raise ollama_error(None, line, param=self._param)
            return self._delta(part, self._message(part))
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent something that is not an answer.") from error

    def finish(self) -> None:
        """The engine has closed the stream.

        Raises:
            UpstreamError: before it was done. Ollama's own client would take that for success.
        """
        if not self._done:
            raise UpstreamError("The engine broke off in the middle of its answer.")

    def _message(self, part: Any) -> Message:
        message: Message = part["message"]
        return message

    def _delta(self, part: AnswerPart, message: Message) -> Delta:
        delta = Delta(content=message.get("content") or "")
        if thinking := message.get("thinking"):
            delta.reasoning = thinking
        if calls := message.get("tool_calls"):
            delta.tool_calls = [self._tool_call(call) for call in calls]
        if (logprobs := part.get("logprobs")) is not None:
            delta.logprobs = self._of_content(delta, [logprob(entry) for entry in logprobs])
        if part.get("done"):
            self._done = True
            delta.finish_reason = self._finish_reason(part.get("done_reason"))
            delta.usage = Usage(
                prompt_tokens=part.get("prompt_eval_count") or 0,
                completion_tokens=part.get("eval_count") or 0,
            )
            delta.tokens = 0
        return delta

    def _of_content(
        self, delta: Delta, entries: list[dict[str, Any]]
    ) -> list[dict[str, Any]] | None:
        """Return the log probabilities, of ``entries`` and of those held back, that belong to the
        content of ``delta``: Ollama also reports tokens of reasoning and calls."""
        is_mixed = bool(delta.reasoning or delta.tool_calls)
        if not delta.content:
            if is_mixed:
                self._held.clear()
            else:
                self._held += entries
            return None
        held, self._held = self._held, []
        if is_mixed or held:
            found = of_content([*held, *entries], delta.content)
            return found if found or is_mixed else entries
        return entries

    def _tool_call(self, call: _ToolCall) -> ToolCallDelta:
        function = call["function"]
        # Parsers let a NaN pass for a number, and OpenAI's clients do not.
        arguments = json.dumps(
            function.get("arguments") or {},
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
        # Ollama numbers the calls of each line; clients need one count over the whole answer.
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
        # "load" and "unload" are Ollama's for a request without messages.
        return "tool_calls" if self._tool_calls else "stop"
