"""Ollama's models as entries of ``GET v1/models``.

Source: Ollama's ``GET /api/tags`` and ``POST /api/show``. Since 0.33 tags hold everything; older
servers leave out the capabilities and the lengths, which are then taken from ``show``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from ..exceptions import UpstreamError

__all__ = ["METADATA", "ModelCard", "lacks_details", "model_card", "tags", "with_details"]


METADATA: Final = (
    "family",
    "parameter_size",
    "quantization_level",
    "format",
    "size",
    "digest",
    "context_length",
    "embedding_length",
    "capabilities",
    "modified_at",
)
"""The keys of a card's metadata: ``size`` is in bytes, ``context_length`` in tokens,
``embedding_length`` in dimensions, ``modified_at`` in RFC 3339."""


@dataclass(slots=True, frozen=True)
class ModelCard:
    """One model of a backend.

    ``created`` is in seconds since the epoch; ``metadata`` has any of the keys in ``METADATA``.
    """

    id: str
    created: int = 0
    owned_by: str = "library"
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_openai(self, *, name: str, backend: str) -> dict[str, Any]:
        """OpenAI's model object for this model under its public ``name``, with all metadata."""
        metadata = {key: self.metadata.get(key) for key in METADATA}
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": self.owned_by,
            "metadata": {**metadata, "backend": backend},
        }


def tags(answer: Any) -> list[dict[str, Any]]:
    """The entries of ``/api/tags``; an empty server sends ``null`` for its list.

    Raises:
        UpstreamError: that is not what ``answer`` is.
    """
    models = answer.get("models", ()) if isinstance(answer, dict) else None
    if models is None and isinstance(answer, dict):
        return []
    if not isinstance(models, (list, tuple)) or not all(
        isinstance(tag, dict) and isinstance(tag.get("model") or tag.get("name"), str)
        for tag in models
    ):
        raise UpstreamError("The engine's list of models makes no sense.")
    return list(models)


def model_card(tag: dict[str, Any]) -> ModelCard:
    """The card for one entry of ``/api/tags``."""
    name = tag.get("model") or tag["name"]
    details = tag.get("details") or {}
    modified_at = tag.get("modified_at")
    return ModelCard(
        id=name,
        created=_epoch(modified_at),
        owned_by=name.rpartition("/")[0] or "library",
        metadata={
            "family": details.get("family"),
            "parameter_size": details.get("parameter_size"),
            "quantization_level": details.get("quantization_level"),
            "format": details.get("format"),
            "size": tag.get("size"),
            "digest": tag.get("digest"),
            "context_length": details.get("context_length"),
            "embedding_length": details.get("embedding_length"),
            "capabilities": tag.get("capabilities"),
            "modified_at": modified_at,
        },
    )


def lacks_details(tag: dict[str, Any]) -> bool:
    """Whether ``/api/show`` has to be asked for what this tag does not tell."""
    return "capabilities" not in tag or "context_length" not in (tag.get("details") or {})


def with_details(tag: dict[str, Any], show: Any) -> dict[str, Any]:
    """``tag`` with what ``/api/show`` adds to it. Lengths are keyed by the architecture there."""
    if not isinstance(show, dict):
        return tag
    info = show.get("model_info") or {}
    architecture = info.get("general.architecture")
    lengths = {
        name: info.get(f"{architecture}.{name}") for name in ("context_length", "embedding_length")
    }
    return {
        **tag,
        "details": {**lengths, **(tag.get("details") or {})},
        "capabilities": tag.get("capabilities", show.get("capabilities")),
    }


def _epoch(timestamp: Any) -> int:
    """Go's RFC 3339 with nanoseconds, as whole seconds; 0 for what cannot be read."""
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except (TypeError, ValueError):
        return 0
