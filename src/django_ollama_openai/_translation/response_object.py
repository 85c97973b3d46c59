"""The response object of the Responses API, in snake_case until it is sent.

Source: OpenAI's API reference, "The response object".
"""

from __future__ import annotations

import time
from typing import Any, Final

from .._wire.base import WireModel
from .._wire.case import Case, camel_keys
from .._wire.delta import Usage
from .._wire.response_tools import FunctionTool, Member, NamespaceTool, OtherMember, OtherTool, Tool
from .._wire.responses import ResponsesRequest
from ..exceptions import GatewayError
from .response_items import new_id

__all__ = ["CLIENTS_OWN", "new_response", "response_error", "response_usage", "spelled"]

#: Keys whose values are the client's own, so that keys in them stay unchanged.
CLIENTS_OWN: Final = frozenset({"metadata", "parameters", "schema"})


def new_response(
    request: ResponsesRequest,
    model: str,
    *,
    response_id: str | None = None,
    stored: bool = False,
    background: bool = False,
    conversation: str | None = None,
) -> dict[str, Any]:
    """Return a new response to ``request``. ``model`` is the model's public name, ``conversation``
    the id of the conversation that the response belongs to.

    Fields that are not in the request are ``null``, or OpenAI's default where OpenAI's types do not
    allow ``null``; the model's own default may differ. The service tier is always ``"default"``.
    """
    is_cut = request.truncation == "auto" or request.truncate is True
    text, reasoning, choice = request.text, request.reasoning, request.tool_choice
    return {
        "id": response_id or new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued" if background else "in_progress",
        "background": background,
        "completed_at": None,
        "conversation": None if conversation is None else {"id": conversation},
        "error": None,
        "frequency_penalty": _or_default(request.frequency_penalty, 0),
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "presence_penalty": _or_default(request.presence_penalty, 0),
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": None
        if reasoning is None
        else {"effort": reasoning.effort, "summary": request.summary},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": _or_default(request.temperature, 1),
        "text": {"format": {"type": "text"}} if text is None else text.dump_known(),
        "tool_choice": choice.dump_known() if isinstance(choice, WireModel) else choice or "auto",
        "tools": [_tool(tool) for tool in request.tools or () if not isinstance(tool, OtherTool)],
        "top_logprobs": _or_default(request.top_logprobs, 0),
        "top_p": _or_default(request.top_p, 1),
        "truncation": "auto" if is_cut else "disabled",
        "usage": None,
        "user": request.user,
        "metadata": _or_default(request.metadata, {}),
    }


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def response_usage(usage: Usage) -> dict[str, Any]:
    """Return the ``usage`` object of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def response_error(error: GatewayError) -> dict[str, Any]:
    """Return the ``error`` object of a failed response, with one of OpenAI's few codes."""
    if error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return {"code": code, "message": error.message}


def spelled(response: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return ``response`` in the given case."""
    if case == "camel":
        camel: dict[str, Any] = camel_keys(response, CLIENTS_OWN)
        return camel
    usage = response["usage"]
    if case == "snake" or usage is None:
        return response
    extra = {
        "promptTokens": usage["input_tokens"],
        "completionTokens": usage["output_tokens"],
        "totalTokens": usage["total_tokens"],
    }
    return {**response, "usage": {**usage, **extra}}


def _tool(tool: Tool | Member) -> dict[str, Any]:
    if isinstance(tool, NamespaceTool):
        tools = [_tool(member) for member in tool.tools if not isinstance(member, OtherMember)]
        return {
            "type": tool.type,
            "name": tool.name,
            "description": tool.description or "",
            "tools": tools,
        }
    if not isinstance(tool, FunctionTool):
        return tool.dump_known()
    return {
        "type": tool.type,
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
