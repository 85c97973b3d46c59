"""The two spellings of the wire: OpenAI's snake_case and the plan's camelCase."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

__all__ = ["Case", "camel_keys", "to_camel"]

Case: TypeAlias = Literal["both", "snake", "camel"]


def to_camel(name: str) -> str:
    """``max_tokens`` as ``maxTokens``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def camel_keys(value: Any, opaque: frozenset[str] = frozenset()) -> Any:
    """``value`` with every dict key in camelCase, at every depth; what stands under a key in
    ``opaque`` is the client's own, and left as it is."""
    if isinstance(value, dict):
        return {
            to_camel(key): item if key in opaque else camel_keys(item, opaque)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [camel_keys(item, opaque) for item in value]
    return value
