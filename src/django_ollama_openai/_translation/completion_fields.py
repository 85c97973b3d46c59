"""Fields that chat completions and text completions share."""

from __future__ import annotations

import time
from typing import Any

from .._wire.case import Case
from .._wire.delta import Usage

__all__ = ["completion_head", "finish_reason_fields", "usage_fields"]


def completion_head(id: str, kind: str, model: str) -> dict[str, Any]:
    """Return the fields before ``choices``, which are equal in all chunks of a stream."""
    return {
        "id": id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def finish_reason_fields(reason: str | None, case: Case) -> dict[str, Any]:
    """Return the finish reason, for the case ``both`` also in camelCase."""
    both = {"finish_reason": reason, "finishReason": reason}
    return both if case == "both" else {"finish_reason": reason}


def usage_fields(usage: Usage, case: Case) -> dict[str, Any]:
    """Return the token counts, for the case ``both`` also in camelCase."""
    fields: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if case == "both":
        fields["promptTokens"] = usage.prompt_tokens
        fields["completionTokens"] = usage.completion_tokens
        fields["totalTokens"] = usage.total_tokens
    fields["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens, "audio_tokens": 0}
    fields["completion_tokens_details"] = {
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return fields
