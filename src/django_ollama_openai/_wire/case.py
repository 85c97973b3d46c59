"""The two spellings of keys: OpenAI's snake_case, and camelCase."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

__all__ = ["Case", "camel_keys", "to_camel", "to_snake"]

Case: TypeAlias = Literal["both", "snake", "camel"]


def to_camel(name: str) -> str:
    """Return ``name`` in camelCase: ``maxTokens`` for ``max_tokens``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def to_snake(name: str) -> str:
    """Return ``name`` in snake_case: ``max_tokens`` for ``maxTokens``."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def camel_keys(value: Any, opaque: frozenset[str] = frozenset()) -> Any:
    """Return ``value`` with all dict keys in camelCase, at every depth. Values of the keys in
    ``opaque`` have keys of the client's own and stay unchanged."""
    if isinstance(value, dict):
        return {
            to_camel(key): item if key in opaque else camel_keys(item, opaque)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [camel_keys(item, opaque) for item in value]
    return value
