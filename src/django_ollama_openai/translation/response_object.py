"""The response object of the Responses API.

Source: OpenAI's API reference, "The response object". It is kept in snake_case, and spelled as the
mount has it when it is sent.
"""

from __future__ import annotations

import time
from typing import Any, Final

from ..exceptions import GatewayError
from ..wire.base import WireModel
from ..wire.case import Case, camel_keys
from ..wire.delta import Usage
from ..wire.responses import FunctionTool, ResponsesRequest
from .response_items import new_id

__all__ = ["CLIENTS_OWN", "new_response", "response_error", "response_usage", "spelled"]

CLIENTS_OWN: Final = frozenset({"metadata", "parameters", "schema"})
"""Keys that hold what the client has written: the keys below them are not OpenAI's."""


def new_response(request: ResponsesRequest, model: str, *, stored: bool) -> dict[str, Any]:
    """A response to ``request`` that has just begun. ``model`` is the model's public name.

    What the client has not sent is ``null``, and not one of OpenAI's defaults: the model has its
    own. Defaults stand only where OpenAI's types have no ``null``.
    """
    text, reasoning, choice = request.text, request.reasoning, request.tool_choice
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": None
        if reasoning is None
        else {"effort": reasoning.effort, "summary": request.summary},
        "safety_identifier": request.safety_identifier,
        "service_tier": request.service_tier,
        "store": stored,
        "temperature": request.temperature,
        "text": {"format": {"type": "text"}} if text is None else text.declared(),
        "tool_choice": choice.declared() if isinstance(choice, WireModel) else choice or "auto",
        "tools": [_tool(tool) for tool in request.function_tools],
        "top_logprobs": request.top_logprobs,
        "top_p": request.top_p,
        "truncation": request.truncation,
        "usage": None,
        "user": request.user,
        "metadata": request.metadata,
    }


def response_usage(usage: Usage) -> dict[str, Any]:
    """The ``usage`` of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def response_error(error: GatewayError) -> dict[str, Any]:
    """The ``error`` of a response that has failed. OpenAI's types know a few codes only."""
    if error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return {"code": code, "message": error.message}


def spelled(response: dict[str, Any], case: Case) -> dict[str, Any]:
    """A response object as clients get it."""
    if case == "camel":
        camel: dict[str, Any] = camel_keys(response, CLIENTS_OWN)
        return camel
    usage = response["usage"]
    if case == "snake" or usage is None:
        return response
    plan = {
        "promptTokens": usage["input_tokens"],
        "completionTokens": usage["output_tokens"],
        "totalTokens": usage["total_tokens"],
    }
    return {**response, "usage": {**usage, **plan}}


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": tool.type,
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
