"""The response of ``POST v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from .common import Count, ExtraKey

__all__ = ["EmbeddingList"]


class Embedding(TypedDict):
    object: Literal["embedding"]
    index: Count
    embedding: Annotated[
        list[float] | str,
        Field(description="The vector, for `base64` as little-endian float32 numbers."),
    ]


class EmbeddingsUsage(TypedDict):
    prompt_tokens: Annotated[Count, ExtraKey("promptTokens")]
    total_tokens: Annotated[Count, ExtraKey("totalTokens")]


class EmbeddingList(TypedDict):
    """The vectors, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
