"""What OpenAI's answers have in common: the head, the finish reason and the usage."""

from __future__ import annotations

import time
from typing import Any

from .._wire.case import Case, camel_keys
from .._wire.delta import Usage

__all__ = ["completion_head", "finish_reason_fields", "usage_fields"]


def completion_head(id: str, kind: str, model: str) -> dict[str, Any]:
    """The fields before ``choices``, the same in every chunk of a stream."""
    return {
        "id": id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": None,
    }


def finish_reason_fields(reason: str | None, case: Case) -> dict[str, Any]:
    """The finish reason, also as the plan spells it if both are to be there."""
    both = {"finish_reason": reason, "finishReason": reason}
    return both if case == "both" else {"finish_reason": reason}


def usage_fields(usage: Usage, case: Case) -> dict[str, Any]:
    """The usage, also as the plan spells it if both are to be there."""
    fields: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    fields |= camel_keys(fields) if case == "both" else {}
    fields["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens, "audio_tokens": 0}
    fields["completion_tokens_details"] = {
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return fields
