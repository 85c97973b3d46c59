"""Types of requests, responses and callers, for backends, policies and apps."""

from __future__ import annotations

from ._gateway.outcome import Timings
from ._translation.model_cards import METADATA, ModelCard
from ._wire.case import Case
from ._wire.chat import ChatCompletionRequest
from ._wire.completions import CompletionRequest
from ._wire.delta import Delta, Embeddings, ToolCallDelta, Usage
from ._wire.embeddings import EmbeddingsRequest
from ._wire.engine import EngineRequest
from ._wire.response_models.chat import ChatCompletion, ChatCompletionChunk
from ._wire.response_models.common import CompletionUsage, Error
from ._wire.response_models.responses import Response, ResponseEvent
from ._wire.responses import ResponsesRequest
from .auth import Caller, Workspace

__all__ = [
    "METADATA",
    "Caller",
    "Case",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "CompletionRequest",
    "CompletionUsage",
    "Delta",
    "Embeddings",
    "EmbeddingsRequest",
    "EngineRequest",
    "Error",
    "ModelCard",
    "Response",
    "ResponseEvent",
    "ResponsesRequest",
    "Timings",
    "ToolCallDelta",
    "Usage",
    "Workspace",
]
