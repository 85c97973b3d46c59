"""The models of an engine that speaks OpenAI's API, with what some engines add to each."""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from ..exceptions import UpstreamError
from .model_cards import ModelCard

__all__ = ["openai_models"]


class _Meta(TypedDict, total=False):
    """What llama-server says of the file."""

    n_ctx: int | None
    n_embd: int | None
    size: int | None
    ftype: str | None


class _Model(TypedDict):
    id: str
    created: NotRequired[float | None]
    owned_by: NotRequired[str | None]
    aliases: NotRequired[list[str] | None]
    max_model_len: NotRequired[int | None]
    meta: NotRequired[_Meta | None]
    metadata: NotRequired[dict[str, Any] | None]


class _Models(TypedDict):
    data: list[_Model]


_MODELS = TypeAdapter(_Models)


def openai_models(answer: bytes) -> list[ModelCard]:
    """The entries of ``GET models``.

    ``context_length`` is vLLM's and SGLang's ``max_model_len``. Another gateway of this kind has
    all metadata itself.

    Raises:
        UpstreamError: that is not what ``answer`` is.
    """
    try:
        found = _MODELS.validate_json(answer, strict=True)["data"]
    except ValueError as error:
        raise UpstreamError("The engine's list of models makes no sense.") from error
    return [_card(model) for model in found if model["id"]]


def _card(model: _Model) -> ModelCard:
    meta = model.get("meta") or {}
    told = {
        "context_length": model.get("max_model_len") or meta.get("n_ctx"),
        "embedding_length": meta.get("n_embd"),
        "size": meta.get("size"),
        "quantization_level": meta.get("ftype"),
    }
    return ModelCard(
        id=model["id"],
        aliases=tuple(name for name in model.get("aliases") or () if name != model["id"]),
        created=int(model.get("created") or 0),
        owned_by=model.get("owned_by") or "unknown",
        metadata={**told, **(model.get("metadata") or {})},
    )
