"""Whom and what the error for a failed request to an engine may name."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Blame"]


class Blame(TypedDict, total=False):
    """What an error may name: the model that the engine may lack, and fields of the request.

    ``param`` is the field that the engine reads, which may be too long for it. The others are there
    if the request has them: the field with a JSON schema, the one that turns thinking on or off,
    and the first part with an image or a sound.
    """

    model: str
    param: str
    schema_param: str
    think_param: str
    media_param: str
