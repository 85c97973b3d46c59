"""Whom and what the error for a failed request to an engine may name."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Blame"]


class Blame(TypedDict, total=False):
    """The names for errors of an engine: the model, and fields of the client's request.

    ``param`` is the field with the prompt or input, which may be too long. The others are present
    if the request has them: the field with a JSON schema, the one that turns thinking on or off,
    and the first part with an image or audio.
    """

    model: str
    param: str
    schema_param: str
    think_param: str
    media_param: str
