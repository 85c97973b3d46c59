"""A model for embeddings of ten kilobytes, with random weights: what llama.cpp needs to run one.

Source: the GGUF format, version 3, and llama.cpp's names for the parts of a BERT.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, Final

DIMENSIONS: Final = 8
CONTEXT: Final = 64
FEED_FORWARD: Final = 16

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
SPECIAL: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS: Final = [*SPECIAL, "▁hello", "▁world", *(f"▁{letter}" for letter in LETTERS), *LETTERS]

_FORMATS: Final = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?")}
_STRING: Final = 8
_ARRAY: Final = 9


def write_embedding_model(path: Path) -> Path:
    """Write the model to ``path``; its vectors have ``DIMENSIONS`` numbers, its inputs up to
    ``CONTEXT`` tokens."""
    fields = [
        _text("general.architecture", "bert"),
        _number("bert.context_length", "u32", CONTEXT),
        _number("bert.embedding_length", "u32", DIMENSIONS),
        _number("bert.feed_forward_length", "u32", FEED_FORWARD),
        _number("bert.block_count", "u32", 1),
        _number("bert.attention.head_count", "u32", 2),
        _number("bert.attention.layer_norm_epsilon", "f32", 1e-12),
        _number("bert.attention.causal", "bool", False),
        _number("bert.pooling_type", "u32", 1),
        _text("tokenizer.ggml.model", "bert"),
        _texts("tokenizer.ggml.tokens", WORDS),
        _numbers("tokenizer.ggml.token_type", "i32", [3] * 5 + [1] * (len(WORDS) - 5)),
        _numbers("tokenizer.ggml.scores", "f32", [0.0] * len(WORDS)),
        _number("tokenizer.ggml.token_type_count", "u32", 2),
        _number("tokenizer.ggml.padding_token_id", "u32", 0),
        _number("tokenizer.ggml.unknown_token_id", "u32", 1),
        _number("tokenizer.ggml.cls_token_id", "u32", 2),
        _number("tokenizer.ggml.bos_token_id", "u32", 2),
        _number("tokenizer.ggml.seperator_token_id", "u32", 3),
        _number("tokenizer.ggml.eos_token_id", "u32", 3),
        _number("tokenizer.ggml.mask_token_id", "u32", 4),
    ]
    directory, weights = b"", b""
    tensors = _tensors()
    for number, (name, shape) in enumerate(tensors.items()):
        weights += bytes(-len(weights) % 32)
        directory += _string(name) + struct.pack("<I", len(shape))
        directory += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", 0, len(weights))
        count = math.prod(shape)
        weights += struct.pack(f"<{count}f", *(math.sin(number + 7 * i * i) for i in range(count)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    head += directory
    path.write_bytes(head + bytes(-len(head) % 32) + weights)
    return path


def _tensors() -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (DIMENSIONS, len(WORDS)),
        "position_embd.weight": (DIMENSIONS, CONTEXT),
        "token_types.weight": (DIMENSIONS, 2),
    }
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (DIMENSIONS,)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        shapes[f"blk.0.{name}.weight"] = (DIMENSIONS, DIMENSIONS)
        shapes[f"blk.0.{name}.bias"] = (DIMENSIONS,)
    shapes["blk.0.ffn_up.weight"] = (DIMENSIONS, FEED_FORWARD)
    shapes["blk.0.ffn_up.bias"] = (FEED_FORWARD,)
    shapes["blk.0.ffn_down.weight"] = (FEED_FORWARD, DIMENSIONS)
    shapes["blk.0.ffn_down.bias"] = (DIMENSIONS,)
    return shapes


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _text(name: str, value: str) -> bytes:
    return _string(name) + struct.pack("<I", _STRING) + _string(value)


def _texts(name: str, values: list[str]) -> bytes:
    head = struct.pack("<IIQ", _ARRAY, _STRING, len(values))
    return _string(name) + head + b"".join(map(_string, values))


def _number(name: str, kind: str, value: Any) -> bytes:
    code, format = _FORMATS[kind]
    return _string(name) + struct.pack("<I", code) + struct.pack(format, value)


def _numbers(name: str, kind: str, values: list[Any]) -> bytes:
    code, format = _FORMATS[kind]
    head = struct.pack("<IIQ", _ARRAY, code, len(values))
    return _string(name) + head + b"".join(struct.pack(format, value) for value in values)
