"""The request of ``POST v1/completions``.

Source: OpenAI's API reference, "Create completion" (legacy). Fields beyond those named here are
accepted and kept.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..exceptions import InvalidRequest
from .engine import INT32_MAX
from .generation import GenerationRequest
from .text_input import (
    MAX_ENTRIES,
    MAX_TOKENS,
    TextInput,
    is_tokens,
    require_texts,
    text_length,
    texts_of,
)

__all__ = ["DEFAULT_OUTPUT_LIMIT", "CompletionRequest"]

#: OpenAI's default for ``max_tokens``.
DEFAULT_OUTPUT_LIMIT: Final = 16


class CompletionRequest(GenerationRequest):
    """The body of ``POST v1/completions``.

    The prompt is required, while OpenAI starts a new document without one. ``logprobs`` may be up
    to 20, OpenAI's maximum is 5. Backends get requests from :meth:`for_prompt`, with one prompt
    each.
    """

    prompt_field: ClassVar[str] = "prompt"

    prompt: TextInput
    suffix: str | None = None
    echo: bool | None = None

    max_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    best_of: int | None = Field(None, ge=1, le=128)
    logprobs: int | None = Field(None, ge=0, le=20)
    user: str | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _limit_tokens(cls, value: Any) -> Any:
        if isinstance(value, list):
            arrays = [item for item in value[:MAX_ENTRIES] if isinstance(item, list)]
            if sum(map(len, arrays)) > MAX_TOKENS:
                raise PydanticCustomError("tokens", "Input should have up to 100000 tokens in all")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        require_texts(self.prompt, "prompt")
        if self.echo and self.logprobs is not None:
            raise InvalidRequest(
                "'logprobs' cannot be combined with 'echo', since log probabilities of the prompt "
                "are not available.",
                param="logprobs",
            )
        if self.echo and self.token_input:
            raise InvalidRequest(
                "'echo' is only allowed with prompts that are text, not arrays of tokens.",
                param="echo",
            )
        # "best_of" has no effect if all of its completions are returned.
        if self.best_of == (self.n or 1):
            self.best_of = None
        return self

    @property
    def token_input(self) -> bool:
        """Return whether the prompts are arrays of tokens."""
        return is_tokens(self.prompt)

    @property
    def output_limit(self) -> int:
        """Return the maximum number of completion tokens. The site's ``num_predict`` may also be
        -1, for no limit."""
        if self.max_tokens is not None:
            return self.max_tokens
        limit = self.option("num_predict")
        return DEFAULT_OUTPUT_LIMIT if limit is None else limit

    @property
    def prompt_characters(self) -> int:
        return text_length(self.prompt) + len(self.suffix or "")

    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, each a text or an array of tokens."""
        return texts_of(self.prompt)

    def for_prompt(self, prompt: str | list[int], number: int) -> Self:
        """Return the request for one choice of one of :meth:`prompts`. Call it after the request
        was routed."""
        return self.for_choice(number).model_copy(update={"prompt": prompt})
