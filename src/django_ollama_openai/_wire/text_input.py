"""The type of prompts and inputs: one text or several, as strings or as arrays of tokens."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from annotated_types import MaxLen
from pydantic import Discriminator, Field, Tag

from ..exceptions import InvalidRequest, UnsupportedParameter
from .base import FirstErrorOnly, JSONSchemaExtra
from .engine import INT32_MAX

__all__ = [
    "TextInput",
    "is_tokens",
    "require_texts",
    "text_length",
    "texts_of",
    "tokens_unsupported",
]

# OpenAI's limit for the texts_of, and more tokens than fit into a model's context.
MAX_ENTRIES: Final = 2048
MAX_TOKENS: Final = 100_000

# Requests check this themselves, with require_texts().
_NOT_EMPTY: Final = JSONSchemaExtra(minItems=1)

Token: TypeAlias = Annotated[int, Field(ge=0, le=INT32_MAX)]
Text: TypeAlias = Annotated[str, JSONSchemaExtra(minLength=1)]
Tokens: TypeAlias = Annotated[list[Token], MaxLen(MAX_TOKENS), FirstErrorOnly(), _NOT_EMPTY]


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    if isinstance(first, str):
        return "<texts>"
    if isinstance(first, list):
        return "<token_arrays>"
    return "<tokens>" if isinstance(first, int) and not isinstance(first, bool) else None


TextInput: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[Text], MaxLen(MAX_ENTRIES), FirstErrorOnly(), _NOT_EMPTY, Tag("<texts>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[
        list[Tokens], MaxLen(MAX_ENTRIES), FirstErrorOnly(), _NOT_EMPTY, Tag("<token_arrays>")
    ],
    Discriminator(
        _kind,
        custom_error_type="text_input",
        custom_error_message=(
            "Input should be a string, an array of strings, of tokens, or of arrays of tokens"
        ),
    ),
]


def texts_of(value: TextInput) -> list[str | list[int]]:
    """Return the texts of ``value``, each a string or an array of tokens."""
    if isinstance(value, str):
        return [value]
    items: list[Any] = list(value)
    return [items] if items and isinstance(items[0], int) else items


def require_texts(value: TextInput, field: str) -> None:
    """Check that no text of ``value``, which is that of ``field``, is empty.

    Raises:
        InvalidRequest: One is; the error names the first, such as ``input[3]``.
    """
    for place, text in enumerate(texts_of(value) or [""]):
        if not text:
            param = f"{field}[{place}]" if value else field
            raise InvalidRequest(f"'{param}' must not be empty.", param=param)


def text_length(value: TextInput) -> int:
    """Return the number of characters in ``value``; tokens do not count."""
    return sum(len(entry) for entry in texts_of(value) if isinstance(entry, str))


def is_tokens(value: TextInput) -> bool:
    """Return whether ``value`` consists of tokens."""
    return any(isinstance(entry, list) for entry in texts_of(value)[:1])


def tokens_unsupported(param: str) -> UnsupportedParameter:
    """Return the error for tokens that the engine does not support. They cannot be ignored."""
    return UnsupportedParameter(
        "This model does not support arrays of tokens; send the text itself.", param=param
    )
