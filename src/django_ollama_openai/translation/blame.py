"""Whom and what the error for a failed request to an engine may name."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Blame"]


class Blame(TypedDict, total=False):
    """What an error may name: the model that the engine may lack, and the field that it reads,
    which may be too long for it."""

    model: str
    param: str
