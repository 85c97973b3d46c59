"""Whom and what the error for a failed request to an engine may name."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Blame"]


class Blame(TypedDict, total=False):
    """What an error may name: the model that the engine may lack, the field that it reads, which
    may be too long for it, and the field with a schema that it may not know how to enforce."""

    model: str
    param: str
    schema: str | None
