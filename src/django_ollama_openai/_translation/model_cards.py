"""Translate Ollama's models into entries of ``GET v1/models``.

Source: Ollama's ``GET /api/tags`` and ``POST /api/show``. Tags of versions before 0.33 do not have
capabilities and lengths, which are then taken from ``show``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from ..exceptions import UpstreamError

__all__ = [
    "CONTEXT_LENGTH",
    "METADATA",
    "ModelCard",
    "Tag",
    "model_card",
    "needs_details",
    "tag_name",
    "tags",
    "with_details",
]

#: The keys of a card's metadata: ``size`` is in bytes, ``context_length`` in tokens,
#: ``embedding_length`` in dimensions, ``modified_at`` in RFC 3339.
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

#: The keys for the context length that clients read: OpenRouter's and vLLM's.
CONTEXT_LENGTH: Final = ("context_length", "max_model_len")


@dataclass(slots=True, frozen=True)
class ModelCard:
    """A model of a backend.

    ``aliases`` are further names that the engine accepts for it. ``created`` is in seconds since
    the epoch. ``metadata`` may have the keys in ``METADATA``.
    """

    id: str
    aliases: tuple[str, ...] = ()
    created: int = 0
    owned_by: str = "library"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that the engine accepts for the model."""
        return (self.id, *self.aliases)

    def as_openai(self, *, name: str, backend: str) -> dict[str, Any]:
        """Return OpenAI's model object for this model under its public ``name``, with metadata.

        The context length is also at the top level, under the two names that clients read.
        """
        metadata = {key: self.metadata.get(key) for key in METADATA}
        context_length = metadata["context_length"]
        lengths = {} if context_length is None else dict.fromkeys(CONTEXT_LENGTH, context_length)
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": self.owned_by,
            **lengths,
            "metadata": {**metadata, "backend": backend},
        }


class _Details(TypedDict, total=False):
    family: str | None
    parameter_size: str | None
    quantization_level: str | None
    format: str | None
    context_length: int | None
    embedding_length: int | None


class Tag(TypedDict, total=False):
    """An entry of ``/api/tags``."""

    model: str
    name: str
    modified_at: str | None
    size: int | None
    digest: str | None
    details: _Details | None
    capabilities: list[str] | None


class _Tags(TypedDict):
    models: list[Tag] | None


class _Show(TypedDict, total=False):
    model_info: dict[str, Any] | None
    capabilities: list[str] | None


_TAGS = TypeAdapter(_Tags)
_SHOW = TypeAdapter(_Show)
_LENGTH = TypeAdapter(int | None)


def tags(body: bytes) -> list[Tag]:
    """Return the entries in ``body``, the response of ``GET /api/tags``. An Ollama without models
    sends ``null`` as the list.

    Raises:
        UpstreamError: The response is invalid.
    """
    try:
        found = _TAGS.validate_json(body, strict=True)["models"] or []
    except ValueError as error:
        raise UpstreamError("The engine sent an invalid list of models.") from error
    if not all(map(tag_name, found)):
        raise UpstreamError("The engine's list of models contains a model without a name.")
    return found


def tag_name(tag: Tag) -> str:
    """Return the engine's name of the model."""
    return tag.get("model") or tag.get("name") or ""


def model_card(tag: Tag) -> ModelCard:
    """Return the card for an entry of ``/api/tags``."""
    name = tag_name(tag)
    details = tag.get("details") or {}
    modified_at = tag.get("modified_at")
    untagged = name.removesuffix(":latest")
    return ModelCard(
        id=name,
        # Ollama's own rule: a name without a tag means the tag "latest".
        aliases=() if untagged == name else (untagged,),
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


def needs_details(tag: Tag) -> bool:
    """Return whether details of ``tag`` have to be taken from ``/api/show``. Tags with wrong
    details do not have the context length either."""
    return "capabilities" not in tag or "context_length" not in (tag.get("details") or {})


def with_details(tag: Tag, show: bytes) -> Tag:
    """Return ``tag`` with the lengths and capabilities in ``show``, the body of ``/api/show``.

    These override the tag, since ``/api/tags`` is wrong about models whose weights Ollama has
    converted itself. The keys of lengths begin with the architecture. An invalid body is ignored.
    """
    try:
        shown = _SHOW.validate_json(show, strict=True)
        info = shown.get("model_info") or {}
        architecture = info.get("general.architecture")
        context_length, embedding_length = (
            _LENGTH.validate_python(info.get(f"{architecture}.{name}"), strict=True)
            for name in ("context_length", "embedding_length")
        )
    except ValueError:
        return tag
    details: _Details = {"context_length": None, "embedding_length": None}
    details.update(tag.get("details") or {})
    if context_length is not None:
        details["context_length"] = context_length
    if embedding_length is not None:
        details["embedding_length"] = embedding_length
    capabilities = shown.get("capabilities")
    if capabilities is None:
        capabilities = tag.get("capabilities")
    return {**tag, "details": details, "capabilities": capabilities}


def _epoch(timestamp: Any) -> int:
    """Return a timestamp of Go, in RFC 3339 with nanoseconds, as whole seconds since the epoch.
    Return 0 for an invalid one and for Go's zero time, in the year 1."""
    try:
        return max(0, int(datetime.fromisoformat(timestamp).timestamp()))
    except (TypeError, ValueError):
        return 0
