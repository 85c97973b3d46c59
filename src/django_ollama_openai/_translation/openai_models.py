"""Translate the list of models of an engine with OpenAI's API, including common extensions."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from .._wire.response_models.models import ModelMetadata
from ..exceptions import UpstreamError
from .model_cards import ModelCard

__all__ = ["openai_models"]

T = TypeVar("T")


class _Model(TypedDict):
    id: str
    created: NotRequired[Any]
    owned_by: NotRequired[str | None]
    # Extensions, which may have another meaning and type with other engines.
    aliases: NotRequired[Any]
    max_model_len: NotRequired[Any]
    meta: NotRequired[Any]
    metadata: NotRequired[Any]


class _Models(TypedDict):
    data: list[_Model]


class _Meta(TypedDict, total=False):
    """Details of the model's file, from llama-server."""

    n_ctx: int | None
    n_embd: int | None
    size: int | None
    ftype: str | None


_MODELS = TypeAdapter(_Models)
_META = TypeAdapter(_Meta)
_METADATA = TypeAdapter(ModelMetadata)
_ALIASES = TypeAdapter(list[str])
_LENGTH = TypeAdapter(int)
#: Seconds since the epoch, within the range of ``datetime``.
_TIMESTAMP: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=0, lt=2**37)])


def openai_models(body: bytes) -> list[ModelCard]:
    """Return the models in ``body``, the response of ``GET models``.

    ``context_length`` is vLLM's and SGLang's ``max_model_len``. Another gateway of this package
    sends all metadata. Extensions with an unexpected type are ignored.

    Raises:
        UpstreamError: The response is invalid.
    """
    try:
        found = _MODELS.validate_json(body, strict=True)["data"]
    except ValueError as error:
        raise UpstreamError("The engine sent an invalid list of models.") from error
    return [_card(model) for model in found if model["id"]]


def _card(model: _Model) -> ModelCard:
    meta = _read(_META, model.get("meta")) or {}
    metadata = _read(_METADATA, model.get("metadata"))
    derived = {
        "context_length": _read(_LENGTH, model.get("max_model_len")) or meta.get("n_ctx"),
        "embedding_length": meta.get("n_embd"),
        "size": meta.get("size"),
        "quantization_level": meta.get("ftype"),
    }
    return ModelCard(
        id=model["id"],
        aliases=tuple(
            name for name in _read(_ALIASES, model.get("aliases")) or () if name != model["id"]
        ),
        created=int(_read(_TIMESTAMP, model.get("created")) or 0),
        owned_by=model.get("owned_by") or "unknown",
        metadata={**derived, **(metadata or {})},
    )


def _read(kind: TypeAdapter[T], value: Any) -> T | None:
    """Return ``value`` if it has the type of ``kind``, or ``None``."""
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError:
        return None
