"""Write deltas as a ``chat.completion``, or as a stream of ``chat.completion.chunk``.

Call ``begin()``, ``feed()`` for each delta, then ``finish()``, or ``fail()`` if the completion
fails. All return bytes for the client.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .._ids import uuid7
from .._wire.case import Case, camel_keys
from .._wire.delta import Delta, ToolCallDelta, Usage, fold
from .._wire.sse import DONE, encode_json, frame
from ..exceptions import GatewayError
from .completion_fields import completion_head, finish_reason_fields, usage_fields

__all__ = ["ChatCompletionStream", "ChatCompletionWriter", "WholeChatCompletion", "chat_message"]


class ChatCompletionWriter(Protocol):
    """The interface of both writers.

    ``begin()`` returns what is sent before the model has answered: after that, a failure is a part
    of the stream.
    """

    def begin(self) -> bytes: ...
    def feed(self, delta: Delta) -> bytes: ...
    def finish(self) -> bytes: ...
    def fail(self, error: GatewayError) -> bytes: ...


def new_completion_id() -> str:
    """Return an id with OpenAI's prefix, which sorts by time."""
    return f"chatcmpl-{uuid7().hex}"


class WholeChatCompletion:
    """A writer of one ``chat.completion`` with ``choices`` choices. With ``legacy_function_call``
    tool calls have the deprecated form ``function_call``. ``further`` are fields of the completion
    beside OpenAI's, which may be set until it is finished."""

    def __init__(
        self,
        model: str,
        case: Case,
        *,
        choices: int = 1,
        legacy_function_call: bool = False,
        id: str | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        self._head = completion_head(id or new_completion_id(), "chat.completion", model)
        self.further = dict(further or {})
        self._case = case
        self._legacy_function_call = legacy_function_call
        self._deltas: list[list[Delta]] = [[] for _ in range(choices)]

    def begin(self) -> bytes:
        return b""

    def feed(self, delta: Delta) -> bytes:
        self._deltas[delta.index].append(delta)
        return b""

    def finish(self) -> bytes:
        return encode_json(self.completion(self._case))

    def completion(self, case: Case) -> dict[str, Any]:
        """Return the completion of the deltas so far, spelled as ``case`` says."""
        choices = list(map(fold, self._deltas))
        return _completion(self._head, choices, case, self._legacy_function_call, self.further)

    def fail(self, error: GatewayError) -> bytes:
        return encode_json(error.envelope())


class ChatCompletionStream:
    """A writer of a stream of ``chat.completion.chunk`` events with ``choices`` choices.

    The order is OpenAI's: for each choice a chunk with the role, then chunks with content, for each
    choice a chunk with the finish reason, with ``include_usage`` a chunk with the usage and without
    choices, then ``[DONE]``.

    With ``is_early`` the chunks with the role are sent before the model has answered. If the stream
    ``is_numbered``, each chunk has a ``sequence_number``, from 0. ``first`` are fields of the first
    chunk beside OpenAI's; ``last`` are those of the last one, which may be set until the end. Of a
    stream that ``is_kept``, :meth:`completion` returns the whole completion.
    """

    def __init__(
        self,
        model: str,
        case: Case,
        *,
        choices: int = 1,
        include_usage: bool,
        legacy_function_call: bool = False,
        id: str | None = None,
        created: int | None = None,
        first: Mapping[str, Any] | None = None,
        is_early: bool = False,
        is_numbered: bool = False,
        is_kept: bool = False,
    ) -> None:
        self._head = completion_head(id or new_completion_id(), "chat.completion.chunk", model)
        if created is not None:
            self._head["created"] = created
        self._first = dict(first or {})
        self.last: dict[str, Any] = {}
        self._is_early = is_early
        self._is_numbered = is_numbered
        self._number = 0
        self._case = case
        self._include_usage = include_usage
        self._legacy_function_call = legacy_function_call
        self._choices = [_StreamedChoice() for _ in range(choices)]
        self._has_begun = False
        # A stream in camelCase ends with the whole completion.
        self._is_repeated = case == "camel"
        self._is_kept = is_kept or self._is_repeated

    def begin(self) -> bytes:
        return self._begin() if self._is_early else b""

    def feed(self, delta: Delta) -> bytes:
        choice = self._choices[delta.index]
        if self._is_kept:
            choice.deltas.append(delta)
        choice.finish_reason = delta.finish_reason or choice.finish_reason
        choice.usage = delta.usage or choice.usage
        return self._delta(delta) if self._has_begun else self._begin() + self._delta(delta)

    def finish(self) -> bytes:
        begin = self._begin()
        if self._is_repeated:
            further = {**self.last, **self._numbered()}
            return begin + frame(self.completion("camel", further)) + DONE
        usage = sum((choice.usage for choice in self._choices), Usage())
        # Once only: clients add up the usage of all chunks.
        in_last = usage if self._case == "both" and not self._include_usage else None
        *others, last = range(len(self._choices))
        ends = b"".join(self._end(index) for index in others)
        if self._include_usage:
            ends += self._end(last)
            fields = {"choices": [], "usage": usage_fields(usage, self._case)}
            ends += self._frame({**self._head, **fields, **self.last})
        else:
            ends += self._end(last, in_last, self.last)
        return begin + ends + DONE

    def fail(self, error: GatewayError) -> bytes:
        return frame(error.envelope()) + DONE

    def in_one(self, answer: Delta) -> bytes:
        """Return the whole ``answer`` as one chunk, without ``[DONE]``."""
        delta = chat_message(answer)
        for index, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = index
        reason = answer.finish_reason
        return self._chunk(0, delta, reason, answer.usage, answer.logprobs, further=self._first)

    def completion(self, case: Case, further: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the completion of the deltas so far, which are kept, spelled as ``case`` says.
        ``further`` are fields beside OpenAI's."""
        head = self._head | {"object": "chat.completion"}
        choices = [fold(choice.deltas) for choice in self._choices]
        return _completion(head, choices, case, self._legacy_function_call, further or {})

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        for index, choice in enumerate(self._choices):
            choice.content_frame = self._content_frame(index)
        # In order, before anything else: OpenAI's own client relies on it.
        role = {"role": "assistant", "content": "", "refusal": None}
        first, *others = range(len(self._choices))
        return self._chunk(first, role, further=self._first) + b"".join(
            self._chunk(index, role) for index in others
        )

    def _end(
        self,
        index: int,
        usage: Usage | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> bytes:
        finish_reason = _finish_reason(
            self._choices[index].finish_reason, self._legacy_function_call
        )
        return self._chunk(index, {}, finish_reason, usage, further=further)

    def _delta(self, delta: Delta) -> bytes:
        if not (delta.reasoning or delta.tool_calls or delta.logprobs):
            if not delta.content:
                return b""
            before, after = self._choices[delta.index].content_frame
            if self._is_numbered:
                after += _NUMBER_AND_END % self._next_number()
            return before + encode_json(delta.content) + after
        body: dict[str, Any] = {}
        if delta.content or delta.logprobs:
            body["content"] = delta.content
        if delta.reasoning:
            # Clients know one of these names or the other.
            body["reasoning_content"] = body["reasoning"] = delta.reasoning
        if delta.tool_calls and self._legacy_function_call:
            body["function_call"] = _function_piece(delta.tool_calls)
        elif delta.tool_calls:
            body["tool_calls"] = [_tool_call_piece(call) for call in delta.tool_calls]
        return self._chunk(delta.index, body, logprobs=delta.logprobs)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        usage: Usage | None = None,
        logprobs: list[dict[str, Any]] | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(logprobs),
            **finish_reason_fields(finish_reason, self._case),
        }
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if usage is not None:
            chunk["usage"] = usage_fields(usage, self._case)
        elif self._include_usage and self._case != "camel":
            chunk["usage"] = None
        return self._frame(chunk if further is None else {**chunk, **further})

    def _frame(self, chunk: dict[str, Any]) -> bytes:
        chunk |= self._numbered()
        return frame(camel_keys(chunk) if self._case == "camel" else chunk)

    def _numbered(self) -> dict[str, int]:
        return {"sequence_number": self._next_number()} if self._is_numbered else {}

    def _next_number(self) -> int:
        number = self._number
        self._number += 1
        return number

    def _content_frame(self, index: int) -> tuple[bytes, bytes]:
        """Return the bytes before and after the content in a chunk with content only, except its
        number. They are equal for all tokens of the choice."""
        placeholder, number = secrets.token_hex(8), self._number
        chunk = self._chunk(index, {"content": placeholder})
        self._number = number
        before, _, after = chunk.partition(b'"%b"' % placeholder.encode())
        if self._is_numbered:
            after = after.removesuffix(_NUMBER_AND_END % number)
        return before, after


#: The end of every numbered chunk: its number is the last key.
_NUMBER_AND_END: Final = b"%d}\n\n"


@dataclass(slots=True)
class _StreamedChoice:
    content_frame: tuple[bytes, bytes] = (b"", b"")
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    deltas: list[Delta] = field(default_factory=list)


def chat_message(answer: Delta, *, legacy_function_call: bool = False) -> dict[str, Any]:
    """Return OpenAI's assistant message for ``answer``, a whole choice."""
    content = None if answer.tool_calls and not answer.content else answer.content
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = message["reasoning"] = answer.reasoning
    if answer.tool_calls and legacy_function_call:
        call = answer.tool_calls[0]
        message["function_call"] = {"name": call.name, "arguments": call.arguments}
    elif answer.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, **_called(call, {"name": call.name})} for call in answer.tool_calls
        ]
    return message


def _completion(
    head: dict[str, Any],
    folded: Sequence[Delta],
    case: Case,
    legacy_function_call: bool,
    further: Mapping[str, Any],
) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": chat_message(answer, legacy_function_call=legacy_function_call),
            "logprobs": _logprobs(answer.logprobs),
            **finish_reason_fields(
                _finish_reason(answer.finish_reason or "stop", legacy_function_call), case
            ),
        }
        for index, answer in enumerate(folded)
    ]
    usage = sum((answer.usage or Usage() for answer in folded), Usage())
    completion = {**head, "choices": choices, "usage": usage_fields(usage, case), **further}
    return camel_keys(completion) if case == "camel" else completion


def _logprobs(entries: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    return None if entries is None else {"content": entries, "refusal": None}


def _finish_reason(reason: str, legacy_function_call: bool) -> str:
    return "function_call" if legacy_function_call and reason == "tool_calls" else reason


def _function_piece(calls: Iterable[ToolCallDelta]) -> dict[str, Any]:
    """Return the ``function_call`` for pieces of the only call."""
    piece: dict[str, Any] = {"arguments": ""}
    for call in calls:
        if call.name is not None:
            piece = {"name": call.name, **piece}
        piece["arguments"] += call.arguments
    return piece


def _tool_call_piece(call: ToolCallDelta) -> dict[str, Any]:
    if call.id is None:
        called = _called(call, {})
        del called["type"]
        return {"index": call.index, **called}
    return {"index": call.index, "id": call.id, **_called(call, {"name": call.name})}


def _called(call: ToolCallDelta, name: dict[str, Any]) -> dict[str, Any]:
    """Return the type of ``call``, and its name and arguments under the key for that type."""
    if call.is_custom:
        return {"type": "custom", "custom": {**name, "input": call.arguments}}
    return {"type": "function", "function": {**name, "arguments": call.arguments}}
