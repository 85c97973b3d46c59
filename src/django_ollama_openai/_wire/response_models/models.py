"""The answers of ``GET v1/models`` and ``GET v1/models/{id}``."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from .common import Count

__all__ = ["Model", "ModelList"]


class ModelMetadata(TypedDict):
    """What the backend tells of the model, `null` for what it cannot: its size in bytes, the length
    of its context in tokens, that of its embeddings in dimensions."""

    family: str | None
    parameter_size: str | None
    quantization_level: str | None
    format: str | None
    size: int | None
    digest: str | None
    context_length: int | None
    embedding_length: int | None
    capabilities: list[str] | None
    modified_at: str | None
    backend: str


class Model(TypedDict):
    """A model with its public name. `context_length` and `max_model_len` are its context length in
    tokens, and are absent if it is unknown."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    context_length: NotRequired[int]
    max_model_len: NotRequired[int]
    metadata: ModelMetadata


class ModelList(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[Model]
