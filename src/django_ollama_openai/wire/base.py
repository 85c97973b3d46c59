"""What all request models share: both spellings, strict types, and errors in OpenAI's words."""

from __future__ import annotations

from typing import Any, Self

import pydantic_core
from pydantic import AliasChoices, AliasGenerator, BaseModel, ConfigDict, ValidationError

from ..exceptions import InvalidRequest
from .case import to_camel

__all__ = ["WireModel"]


def _both_spellings(name: str) -> str | AliasChoices:
    camel = to_camel(name)
    return name if camel == name else AliasChoices(name, camel)


class WireModel(BaseModel):
    """A piece of OpenAI's JSON.

    Fields are read in snake_case and in camelCase; of a field that is given twice the snake_case
    one counts. Types are strict, as OpenAI's are: ``"0.5"`` is no number. Unknown keys are kept.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        alias_generator=AliasGenerator(validation_alias=_both_spellings),
        validate_by_name=True,
    )

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read ``body`` as JSON and validate it.

        Raises:
            InvalidRequest: naming the first field at fault, in OpenAI's notation.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise _restate(error, body) from None


def _restate(error: ValidationError, body: bytes) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, reason = first["type"], first["msg"]
    if kind == "json_invalid":
        return InvalidRequest(
            f"The body of the request is not valid JSON: {first['ctx']['error']}."
        )
    param = _param(first["loc"], pydantic_core.from_json(body), missing=kind == "missing")
    if not param:
        return InvalidRequest("The body of the request must be a JSON object.")
    if kind == "missing":
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param)
    if kind == "union_tag_invalid":
        param += "." + first["ctx"]["discriminator"].strip("'")
    reason = reason[0].lower() + reason[1:]
    return InvalidRequest(f"Invalid value for '{param}': {reason}.", param=param)


def _param(location: tuple[int | str, ...], value: Any, *, missing: bool) -> str:
    """The path of an error as the client wrote it: ``messages[0].content[1].text``.

    pydantic's location also holds the tags of the unions it went through; walking along the
    client's own data tells them from keys.
    """
    param = ""
    last = len(location) - 1
    for position, step in enumerate(location):
        if isinstance(value, list) and isinstance(step, int):
            param += f"[{step}]"
            value = value[step]
        elif isinstance(value, dict) and step in value:
            param += f".{step}"
            value = value[step]
        elif missing and position == last:
            param += f".{step}"
    return param.removeprefix(".")
