"""Deltas as OpenAI's answers: one ``chat.completion``, or a stream of ``chat.completion.chunk``.

Both writers take the deltas of one completion through ``feed()`` and end it with ``finish()``;
``fail()`` gives what a client is told when the completion breaks off. Their output is bytes.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Protocol

from ..exceptions import GatewayError
from ..wire.case import Case, camel_keys
from ..wire.delta import Delta, ToolCallDelta, Usage, fold
from ..wire.sse import DONE, encode_json, frame

__all__ = ["ChatCompletionStream", "ChatCompletionWriter", "WholeChatCompletion", "chat_message"]


class ChatCompletionWriter(Protocol):
    """Writes one completion for the client."""

    def feed(self, delta: Delta) -> bytes: ...
    def finish(self) -> bytes: ...
    def fail(self, error: GatewayError) -> bytes: ...


def new_completion_id() -> str:
    """An id that cannot collide: OpenAI's prefix and 120 random bits."""
    return "chatcmpl-" + secrets.token_hex(15)


class WholeChatCompletion:
    """A completion that is sent in one piece."""

    def __init__(self, model: str, case: Case) -> None:
        self._head = _head("chat.completion", model)
        self._case = case
        self._deltas: list[Delta] = []

    def feed(self, delta: Delta) -> bytes:
        self._deltas.append(delta)
        return b""

    def finish(self) -> bytes:
        return encode_json(_completion(self._head, fold(self._deltas), self._case))

    def fail(self, error: GatewayError) -> bytes:
        return encode_json(error.envelope())


class ChatCompletionStream:
    """A completion that is sent as server-sent events.

    OpenAI's order: a chunk with the role, chunks with what is produced, one with the finish
    reason, with ``include_usage`` one with the usage and no choice, then ``[DONE]``.
    """

    def __init__(self, model: str, case: Case, *, include_usage: bool) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._case = case
        self._include_usage = include_usage
        self._begun = False
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        # Only the camelCase Final Response repeats the whole content.
        self._deltas: list[Delta] | None = [] if case == "camel" else None
        self._content_prefix, self._content_suffix = self._content_frame()

    def feed(self, delta: Delta) -> bytes:
        if self._deltas is not None:
            self._deltas.append(delta)
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        return self._begin() + self._delta(delta)

    def finish(self) -> bytes:
        usage = self._usage or Usage()
        if self._deltas is not None:
            final = _completion(
                self._head | {"object": "chat.completion"}, fold(self._deltas), "camel"
            )
            return self._begin() + frame(final) + DONE
        begin = self._begin()
        reason = self._finish_reason or "stop"
        if self._include_usage:
            last = {**self._head, "choices": [], "usage": _usage(usage, self._case)}
            return begin + self._chunk({}, reason) + frame(last) + DONE
        return begin + self._chunk({}, reason, usage if self._case == "both" else None) + DONE

    def fail(self, error: GatewayError) -> bytes:
        return frame(error.envelope()) + DONE

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _delta(self, delta: Delta) -> bytes:
        if not (delta.reasoning or delta.tool_calls or delta.logprobs):
            if not delta.content:
                return b""
            return self._content_prefix + encode_json(delta.content) + self._content_suffix
        body: dict[str, Any] = {}
        if delta.content or delta.logprobs:
            body["content"] = delta.content
        if delta.reasoning:
            # Some clients read one name, some the other.
            body["reasoning_content"] = body["reasoning"] = delta.reasoning
        if delta.tool_calls:
            body["tool_calls"] = [_tool_call_piece(call) for call in delta.tool_calls]
        return self._chunk(body, logprobs=delta.logprobs)

    def _chunk(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        usage: Usage | None = None,
        logprobs: list[dict[str, Any]] | None = None,
    ) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": _logprobs(logprobs),
            **_finish_reason(finish_reason, self._case),
        }
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if usage is not None:
            chunk["usage"] = _usage(usage, self._case)
        elif self._include_usage and self._case != "camel":
            chunk["usage"] = None
        return frame(camel_keys(chunk) if self._case == "camel" else chunk)

    def _content_frame(self) -> tuple[bytes, bytes]:
        """What stands before and after the content in a chunk that has nothing else: it is the
        same for every token of the stream."""
        mark = secrets.token_hex(8)
        before, _, after = self._chunk({"content": mark}).partition(b'"%b"' % mark.encode())
        return before, after


def chat_message(answer: Delta) -> dict[str, Any]:
    """A whole answer as OpenAI's assistant message."""
    content = None if answer.tool_calls and not answer.content else answer.content
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = message["reasoning"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.tool_calls
        ]
    return message


def _head(kind: str, model: str) -> dict[str, Any]:
    return {
        "id": new_completion_id(),
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def _completion(head: dict[str, Any], answer: Delta, case: Case) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": chat_message(answer),
        "logprobs": _logprobs(answer.logprobs),
        **_finish_reason(answer.finish_reason or "stop", case),
    }
    completion = {
        **head,
        "choices": [choice],
        "usage": _usage(answer.usage or Usage(), case),
    }
    return camel_keys(completion) if case == "camel" else completion


def _finish_reason(reason: str | None, case: Case) -> dict[str, Any]:
    both = {"finish_reason": reason, "finishReason": reason}
    return both if case == "both" else {"finish_reason": reason}


def _usage(usage: Usage, case: Case) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    figures |= camel_keys(figures) if case == "both" else {}
    figures["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens, "audio_tokens": 0}
    figures["completion_tokens_details"] = {
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return figures


def _logprobs(entries: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    return None if entries is None else {"content": entries, "refusal": None}


def _tool_call_piece(call: ToolCallDelta) -> dict[str, Any]:
    function = {"arguments": call.arguments}
    if call.id is None:
        return {"index": call.index, "function": function}
    return {
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, **function},
    }
