"""The models of an engine that speaks OpenAI's API, with what some engines add to each."""

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
    # Beyond OpenAI's, where others may mean something else.
    aliases: NotRequired[Any]
    max_model_len: NotRequired[Any]
    meta: NotRequired[Any]
    metadata: NotRequired[Any]


class _Models(TypedDict):
    data: list[_Model]


class _Meta(TypedDict, total=False):
    """What llama-server says of the file."""

    n_ctx: int | None
    n_embd: int | None
    size: int | None
    ftype: str | None


_MODELS = TypeAdapter(_Models)
_META = TypeAdapter(_Meta)
_METADATA = TypeAdapter(ModelMetadata)
_ALIASES = TypeAdapter(list[str])
_LENGTH = TypeAdapter(int)
_MOMENT: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=0, lt=2**37)])
"""Seconds since the epoch, as far as calendars reach."""


def openai_models(answer: bytes) -> list[ModelCard]:
    """The entries of ``GET models``.

    ``context_length`` is vLLM's and SGLang's ``max_model_len``. Another gateway of this kind has
    all metadata itself. What is not what it is with these engines is left out.

    Raises:
        UpstreamError: that is not what ``answer`` is.
    """
    try:
        found = _MODELS.validate_json(answer, strict=True)["data"]
    except ValueError as error:
        raise UpstreamError("The engine sent an invalid list of models.") from error
    return [_card(model) for model in found if model["id"]]


def _card(model: _Model) -> ModelCard:
    meta = _read(_META, model.get("meta")) or {}
    metadata = _read(_METADATA, model.get("metadata"))
    told = {
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
        created=int(_read(_MOMENT, model.get("created")) or 0),
        owned_by=model.get("owned_by") or "unknown",
        metadata={**told, **(metadata or {})},
    )


def _read(kind: TypeAdapter[T], value: Any) -> T | None:
    """``value``, if it is of this kind."""
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError:
        return None
