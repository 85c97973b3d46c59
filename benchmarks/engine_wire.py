"""The responses of the benchmarks' engine, in Ollama's format."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["chunked", "lines", "model_name", "parse_model", "plain_answer", "text", "tokens"]

_WORDS = ("Hello", "!", " I", "'s", "ure", " what", " supposed", " to", " be", ".")
_START = datetime(2026, 11, 22, 10, 5, 49, 137500, tzinfo=UTC)
_PER_TOKEN = timedelta(microseconds=11_061)


def model_name(mode: str, count: int) -> str:
    """Return the name of the model that generates ``count`` tokens in the given mode."""
    return f"{mode}:{count}"


def parse_model(name: str) -> tuple[str, int]:
    mode, _, count = name.partition(":")
    return mode, int(count)


def tokens(count: int) -> list[str]:
    return [_WORDS[index % len(_WORDS)] for index in range(count)]


def text(count: int) -> str:
    return "".join(tokens(count))


@functools.cache
def lines(model: str) -> tuple[bytes, ...]:
    """Return the lines of a streamed response: one for each token, and one with ``done``."""
    _, count = parse_model(model)
    said = [
        _line(model, index, token, {"done": False}) for index, token in enumerate(tokens(count))
    ]
    return (*said, _line(model, count, "", _end(count)))


@functools.cache
def plain_answer(model: str) -> bytes:
    _, count = parse_model(model)
    return _line(model, count, text(count), _end(count)).removesuffix(b"\n")


def chunked(data: bytes) -> bytes:
    """Return ``data`` as one chunk of HTTP's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _line(model: str, index: int, content: str, end: dict[str, Any]) -> bytes:
    # Go writes nanoseconds.
    created_at = (_START + index * _PER_TOKEN).strftime("%Y-%m-%dT%H:%M:%S.%f422Z")
    message = {"role": "assistant", "content": content}
    line = {"model": model, "created_at": created_at, "message": message, **end}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _end(count: int) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": "length",
        "total_duration": 181125695,
        "load_duration": 817523,
        "prompt_eval_count": 33,
        "prompt_eval_duration": 11015000,
        "eval_count": count,
        "eval_duration": 166473000,
    }
