"""What may stand where OpenAI takes text: a text or several, as strings or as arrays of tokens."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from annotated_types import MaxLen
from pydantic import Discriminator, Field, Tag

from ..exceptions import UnsupportedParameter
from .base import FirstErrorOnly, Stated
from .engine import INT32_MAX

__all__ = [
    "TextInput",
    "entries",
    "first_empty",
    "is_tokens",
    "text_length",
    "tokens_unsupported",
]

# OpenAI's limit for the entries; an array of tokens would fit into no model's context.
MAX_ENTRIES: Final = 2048
MAX_TOKENS: Final = 100_000

# Whose requests see to it, by first_empty().
_NOT_EMPTY: Final = Stated(minItems=1)

Token: TypeAlias = Annotated[int, Field(ge=0, le=INT32_MAX)]
Text: TypeAlias = Annotated[str, Stated(minLength=1)]
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


def entries(value: TextInput) -> list[str | list[int]]:
    """The texts of ``value``, each a string or an array of tokens."""
    if isinstance(value, str):
        return [value]
    items: list[Any] = list(value)
    return [items] if items and isinstance(items[0], int) else items


def first_empty(value: TextInput) -> str | None:
    """Where in ``value`` something is empty, as OpenAI writes it after the name of the field:
    nothing for the whole, else ``[3]``; ``None`` if nothing is."""
    if not value:
        return ""
    if isinstance(value, str) or isinstance(value[0], int):
        return None
    return next((f"[{place}]" for place, entry in enumerate(value) if not entry), None)


def text_length(value: TextInput) -> int:
    """How many characters there are in ``value``; tokens have none."""
    return sum(len(entry) for entry in entries(value) if isinstance(entry, str))


def is_tokens(value: TextInput) -> bool:
    """Whether ``value`` is in tokens."""
    return any(isinstance(entry, list) for entry in entries(value)[:1])


def tokens_unsupported(param: str) -> UnsupportedParameter:
    """The error for tokens where an engine takes text only. They cannot be ignored."""
    return UnsupportedParameter(
        "This model does not take arrays of tokens; send the text itself.", param=param
    )
