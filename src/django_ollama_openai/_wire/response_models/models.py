"""The responses of ``GET v1/models`` and ``GET v1/models/{id}``."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from .common import Count

__all__ = ["Model", "ModelList"]


class ModelMetadata(TypedDict):
    """Details of the model, `null` if the backend does not report them. `size` is in bytes,
    `context_length` in tokens, `embedding_length` in dimensions."""

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
    """A model under its public name. `context_length` and `max_model_len` are its context length in
    tokens, absent if it is unknown."""

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
