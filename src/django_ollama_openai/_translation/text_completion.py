"""Write deltas as OpenAI's legacy completions: one ``text_completion``, or a stream of them.

Call ``feed()`` for each delta of any choice, then ``finish()``, or ``fail()`` if the completion
fails. All return bytes for the client.

Chunks have the same type as a whole completion, and clients join the ``text`` of all chunks. So no
case ends the stream with a chunk that repeats the whole text.
"""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Sequence
from typing import Any

from .._wire.case import Case, camel_keys, to_camel
from .._wire.delta import Delta, Usage
from .._wire.sse import DONE, encode_json, frame
from ..exceptions import GatewayError
from .completion_fields import completion_head, finish_reason_fields, usage_fields

__all__ = ["TextCompletionStream", "WholeTextCompletion"]


class _Choice:
    """The state of one choice; ``length`` is the number of characters of its text so far."""

    __slots__ = ("begun", "echo", "finish_reason", "index", "length", "text_frame", "usage")

    def __init__(self, index: int, echo: str) -> None:
        self.index = index
        self.echo = echo
        self.length = len(echo)
        self.begun = False
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.text_frame: tuple[bytes, bytes] | None = None

    def add(self, delta: Delta) -> dict[str, list[Any]] | None:
        """Update the state with ``delta``, and return its log probabilities."""
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage
        logprobs = None if delta.logprobs is None else _logprobs(delta.logprobs, self.length)
        self.length += len(delta.content)
        return logprobs


class _Writer:
    """The base class of both writers.

    ``echo`` has the prompt that each choice begins with, or ``""``. The usage is the sum over the
    choices.
    """

    def __init__(self, model: str, case: Case, *, choices: int, echo: Sequence[str]) -> None:
        self._case = case
        id = "cmpl-" + secrets.token_hex(15)
        self._head = self._spelled(completion_head(id, "text_completion", model))
        self._choices = [_Choice(index, echo[index]) for index in range(choices)]

    def _spelled(self, fields: dict[str, Any]) -> dict[str, Any]:
        # Only the top level, since the keys of top_logprobs are tokens.
        if self._case != "camel":
            return fields
        return {to_camel(name): value for name, value in fields.items()}

    def _choice(
        self,
        choice: _Choice,
        text: str,
        *,
        reasoning: str = "",
        logprobs: dict[str, list[Any]] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {"text": text, "index": choice.index}
        if reasoning:
            # Clients know one of these names or the other.
            fields["reasoning_content"] = fields["reasoning"] = reasoning
        fields["logprobs"] = None if logprobs is None else self._spelled(logprobs)
        return self._spelled(fields | finish_reason_fields(finish_reason, self._case))

    def _usage(self) -> dict[str, Any]:
        usage = sum((choice.usage for choice in self._choices if choice.usage), Usage())
        fields = usage_fields(usage, self._case)
        return camel_keys(fields) if self._case == "camel" else fields

    def begin(self) -> bytes:
        return b""


class WholeTextCompletion(_Writer):
    """A writer of one ``text_completion``."""

    def __init__(self, model: str, case: Case, *, choices: int, echo: Sequence[str]) -> None:
        super().__init__(model, case, choices=choices, echo=echo)
        self._texts = [[choice.echo] for choice in self._choices]
        self._reasonings: list[list[str]] = [[] for _ in self._choices]
        self._logprobs: list[dict[str, list[Any]] | None] = [None] * choices

    def feed(self, delta: Delta) -> bytes:
        logprobs = self._choices[delta.index].add(delta)
        self._texts[delta.index].append(delta.content)
        self._reasonings[delta.index].append(delta.reasoning)
        if logprobs is not None:
            known = self._logprobs[delta.index] or {}
            self._logprobs[delta.index] = {
                name: [*known.get(name, ()), *values] for name, values in logprobs.items()
            }
        return b""

    def finish(self) -> bytes:
        choices = [
            self._choice(
                choice,
                "".join(self._texts[choice.index]),
                reasoning="".join(self._reasonings[choice.index]),
                logprobs=self._logprobs[choice.index],
                finish_reason=choice.finish_reason or "stop",
            )
            for choice in self._choices
        ]
        return encode_json({**self._head, "choices": choices, "usage": self._usage()})

    def fail(self, error: GatewayError) -> bytes:
        return encode_json(error.envelope())


class TextCompletionStream(_Writer):
    """A writer of a stream of ``text_completion`` events.

    The order is: chunks with text, for each choice a chunk with the finish reason, with
    ``include_usage`` a chunk with the usage and without choices, then ``[DONE]``. Unless the case
    is ``snake`` or there is a chunk for it, the last finish reason comes with the usage.
    """

    def __init__(
        self, model: str, case: Case, *, choices: int, echo: Sequence[str], include_usage: bool
    ) -> None:
        super().__init__(model, case, choices=choices, echo=echo)
        self._include_usage = include_usage

    def feed(self, delta: Delta) -> bytes:
        choice = self._choices[delta.index]
        logprobs = choice.add(delta)
        return self._begin(choice) + self._delta(choice, delta, logprobs)

    def finish(self) -> bytes:
        frames = []
        for choice in self._choices:
            is_last = choice is self._choices[-1]
            has_usage = is_last and self._case != "snake" and not self._include_usage
            end = self._choice(choice, "", finish_reason=choice.finish_reason or "stop")
            frames += [self._begin(choice), self._chunk(end, self._usage() if has_usage else None)]
        if self._include_usage:
            frames.append(frame({**self._head, "choices": [], "usage": self._usage()}))
        return b"".join([*frames, DONE])

    def fail(self, error: GatewayError) -> bytes:
        return frame(error.envelope()) + DONE

    def _begin(self, choice: _Choice) -> bytes:
        if choice.begun:
            return b""
        choice.begun = True
        return self._chunk(self._choice(choice, choice.echo)) if choice.echo else b""

    def _delta(self, choice: _Choice, delta: Delta, logprobs: dict[str, list[Any]] | None) -> bytes:
        if delta.reasoning or logprobs:
            return self._chunk(
                self._choice(choice, delta.content, reasoning=delta.reasoning, logprobs=logprobs)
            )
        if not delta.content:
            return b""
        if choice.text_frame is None:
            choice.text_frame = self._text_frame(choice)
        before, after = choice.text_frame
        return before + encode_json(delta.content) + after

    def _chunk(self, choice: dict[str, Any], usage: dict[str, Any] | None = None) -> bytes:
        chunk = {**self._head, "choices": [choice]}
        if usage is not None or self._include_usage:
            chunk["usage"] = usage
        return frame(chunk)

    def _text_frame(self, choice: _Choice) -> tuple[bytes, bytes]:
        """Return the bytes before and after the text in a chunk with text only. They are equal for
        all tokens of the choice."""
        placeholder = secrets.token_hex(8)
        chunk = self._chunk(self._choice(choice, placeholder))
        before, _, after = chunk.partition(b'"%b"' % placeholder.encode())
        return before, after


def _logprobs(entries: list[dict[str, Any]], offset: int) -> dict[str, list[Any]]:
    """Return entries of a chat completion's ``logprobs.content`` in the legacy format, for text
    that begins at ``offset``."""
    found: dict[str, list[Any]] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    # A character may consist of several tokens, so the bytes have to be decoded.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for entry in entries:
        token, logprob = entry["token"], entry["logprob"]
        found["tokens"].append(token)
        found["token_logprobs"].append(logprob)
        # Of several tokens with the same text, keep the first, which is the most likely. The chosen
        # token is always included.
        tops: dict[str, float] = {}
        for top in [*entry["top_logprobs"], entry]:
            tops.setdefault(top["token"], top["logprob"])
        found["top_logprobs"].append(tops)
        found["text_offset"].append(offset)
        given = entry["bytes"]
        offset += len(decoder.decode(token.encode() if given is None else bytes(given)))
    return found
