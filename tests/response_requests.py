"""Requests of the Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from django_ollama_openai._wire.responses import (
    ResponsesRequest,
)

__all__ = [
    "CALL",
    "CUSTOM",
    "CUSTOM_CALL",
    "CUSTOM_OUTPUT",
    "FULL",
    "GRAMMAR",
    "HELLO",
    "NAMESPACE",
    "OUTPUT",
    "PICTURE",
    "TEXT",
    "TOOL",
    "UNSUPPORTED",
    "asking",
    "items",
    "numbered",
    "parse",
]

HELLO = {"role": "user", "content": "Hello"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a_b": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
TOOL = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": {"type": "object"},
    "strict": True,
}


GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
CUSTOM = {"type": "custom", "name": "c", "description": "d", "format": GRAMMAR}
NAMESPACE = {"type": "namespace", "name": "n", "description": "d", "tools": [TOOL, CUSTOM]}
CUSTOM_CALL = {"type": "custom_tool_call", "call_id": "call_2", "name": "c", "input": "a"}
CUSTOM_OUTPUT = {"type": "custom_tool_call_output", "call_id": "call_2", "output": "1"}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
TEXT = {"type": "input_text", "text": "u"}
# Every field of every model. Schemas and metadata have keys without underscores only, so that the
# whole can be respelled mechanically.
FULL: dict[str, Any] = {
    "model": "m",
    "input": [
        {"type": "message", "role": "system", "content": "s"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                TEXT,
                {**PICTURE, "file_id": None, "detail": "low"},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [{"type": "reasoning_text", "text": "r"}],
            "encrypted_content": "gAAAA",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a"},
                {"type": "refusal", "refusal": "r"},
                TEXT,
            ],
        },
        {**CALL, "namespace": "n"},
        OUTPUT,
        {**CUSTOM_CALL, "namespace": "n"},
        CUSTOM_OUTPUT,
        {
            "type": "additional_tools",
            "call_id": "call_3",
            "tools": [{**CUSTOM, "format": {"type": "text"}}],
        },
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "web_search_call"},
    ],
    "instructions": "i",
    "tools": [TOOL, {"type": "web_search"}, {**NAMESPACE, "tools": [TOOL, CUSTOM, {"type": "x"}]}],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [
            {"type": "function", "name": "f", "namespace": "n"},
            {"type": "web_search"},
        ],
    },
    "parallel_tool_calls": False,
    "text": {
        "format": {
            "type": "json_schema",
            "name": "n",
            "schema": {"type": "object"},
            "description": "d",
            "strict": True,
        },
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto", "generate_summary": "concise"},
    "max_output_tokens": 16,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_logprobs": 2,
    "frequency_penalty": 0.1,
    "presence_penalty": -0.1,
    "seed": 42,
    "stop": ["x"],
    "truncation": "auto",
    "include": ["message.output_text.logprobs"],
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "store": True,
    # Not beside a conversation.
    "previous_response_id": None,
    "max_tool_calls": 1,
    "metadata": {"a": "b"},
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "service_tier": "auto",
    "user": "u",
    "options": {"num_ctx": 8192},
    "keep_alive": "5m",
    "think": True,
    "truncate": False,
    "shift": True,
    "background": False,
    "conversation": {"id": "conv_1"},
    "prompt": {"id": "pmpt_1"},
    "audio": {"voice": "x"},
    "logit_bias": {"1": 1},
    "modalities": ["text", "audio"],
    "n": 2,
    "prediction": {"type": "content"},
    "web_search_options": {"user": {}},
}


UNSUPPORTED = [
    "conversation",
    "prompt",
    "audio",
    "logit_bias",
    "modalities",
    "n",
    "prediction",
    "web_search_options",
]


def numbered(cases: Iterable[Any]) -> list[Any]:
    """Cases that no words could tell apart as short as a number does."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), id=str(number))
        for number, case in enumerate(cases)
    ]


def parse(body: Any) -> ResponsesRequest:
    return ResponsesRequest.parse(json.dumps(body).encode())


def asking(**fields: Any) -> dict[str, Any]:
    return {"input": "Hello", **fields}


def items(*given: Any) -> dict[str, Any]:
    return {"input": list(given)}
