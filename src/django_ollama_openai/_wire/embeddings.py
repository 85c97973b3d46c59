"""The request of ``POST v1/embeddings``.

Source: OpenAI's API reference, "Create embeddings". Fields beyond those named here are accepted and
kept.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .engine import INT32_MAX, EngineRequest
from .text_input import TextInput, is_tokens, require_texts, text_length, texts_of

__all__ = ["EmbeddingsRequest"]


class EmbeddingsRequest(EngineRequest):
    """The body of ``POST v1/embeddings``.

    Backends get it too. Nothing in ``input`` may be empty, as with OpenAI.
    """

    input: TextInput
    dimensions: int | None = Field(None, ge=1, le=INT32_MAX)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _check_empty(self) -> Self:
        require_texts(self.input, "input")
        return self

    @property
    def token_input(self) -> bool:
        """Return whether the inputs are arrays of tokens."""
        return is_tokens(self.input)

    @property
    def prompt_characters(self) -> int:
        return text_length(self.input)

    def inputs(self) -> list[str | list[int]]:
        """Return the inputs in order, each a text or an array of tokens."""
        return texts_of(self.input)
