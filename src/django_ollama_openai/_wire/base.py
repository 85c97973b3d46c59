"""What all request models share: both spellings, strict types, and errors in OpenAI's words."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable
from typing import Any, Final, Self

import pydantic_core
from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..exceptions import InvalidRequest
from .case import to_camel

__all__ = [
    "FirstErrorOnly",
    "Stated",
    "WireModel",
    "parse_json",
    "text_or_list",
    "told_apart_by",
]


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
        if not _is_simple(body):
            raise InvalidRequest(
                "The body of the request is too complex: it may have up to "
                f"{MAX_NODES} keys, objects and arrays."
            )
        try:
            value = _from_json(body)
        except _TooDeep as error:
            raise InvalidRequest(f"The body of the request is {error}.") from None
        except ValueError as error:
            raise InvalidRequest(f"The body of the request is not valid JSON: {error}.") from None
        if not isinstance(value, dict):
            raise InvalidRequest("The body of the request must be a JSON object.")
        parsed = cls.checked(value)
        if (location := _overflow(value)) is not None:
            param = _notation(location)
            raise InvalidRequest(f"Invalid value for '{param}': too large a number.", param=param)
        return parsed

    @classmethod
    def checked(cls, value: dict[str, Any]) -> Self:
        """Validate ``value``, which is JSON that has been parsed.

        Raises:
            InvalidRequest: as :meth:`parse` does.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise _restated(error) from None

    def declared(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """What was sent, as JSON, without ``null`` and without the unknown keys that came along;
        ``only`` these fields."""
        fields = type(self).model_fields
        return {
            fields[name].alias or name: _declared(value)
            for name in fields
            if name in self.model_fields_set
            and (only is None or name in only)
            and (value := getattr(self, name)) is not None
        }


def _declared(value: Any) -> Any:
    if isinstance(value, WireModel):
        return value.declared()
    if isinstance(value, list):
        return [_declared(item) for item in value]
    return value


def parse_json(text: str) -> Any:
    """``text``, parsed strictly.

    Raises:
        ValueError: it is not JSON, is too complex or nested too deeply, or has a number that cannot
            be told from infinity.
    """
    if not _is_simple(text.encode()):
        raise ValueError("too many keys, objects and arrays")
    value = _from_json(text)
    if _overflow(value) is not None:
        raise ValueError("too large a number")
    return value


MAX_LEVELS: Final = 200
"""How deep pydantic's parser goes; one more may pass where there is nothing in it."""


class _TooDeep(ValueError):
    def __init__(self) -> None:
        super().__init__(f"nested too deeply: it may have up to {MAX_LEVELS} levels")


def _from_json(text: bytes | str) -> Any:
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise _TooDeep from None
        raise


# Reading one takes many times as long as the bytes that it is written in would let expect. A body
# within its limit may hold millions, and everybody would wait for seconds.
MAX_NODES: Final = 100_000

_NODES: Final = (b":", b"{", b"[")


def _is_simple(body: bytes) -> bool:
    """Whether there are up to ``MAX_NODES`` keys, objects and arrays in what may be JSON."""
    if sum(map(body.count, _NODES)) <= MAX_NODES:
        return True
    # Some of these stand within strings; of those there are not many more than keys.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 8 * MAX_NODES:
        return False
    outside = b"".join(plain.split(b'"')[::2])
    return sum(map(outside.count, _NODES)) <= MAX_NODES


def _overflow(value: Any) -> tuple[int | str, ...] | None:
    """Where in ``value`` a number is beyond a float's range: parsers let ``1e999`` pass, which
    cannot be written as JSON again, and Ollama's cannot read an integer of 400 digits."""
    # Writing it shows whether there is a need to look, and takes much less time.
    written = pydantic_core.to_json(value)
    has_overflow = b"Infinity" in written or _has_long_integer(written)
    return _infinity(value) if has_overflow else None


_MAX_DIGITS: Final = 309
_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)


def _has_long_integer(written: bytes) -> bool:
    """Return whether there are as many digits in a row as the greatest float has, perhaps in a
    string."""
    return b"0" * _MAX_DIGITS in written.translate(_DIGITS)


def _infinity(value: Any) -> tuple[int | str, ...] | None:
    if isinstance(value, float):
        return () if math.isinf(value) else None
    if isinstance(value, int):
        return () if abs(value) > _MAX_NUMBER else None
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        # There may be millions, and hardly any of them is worth a call.
        if item.__class__ in _FINITE or (item.__class__ is int and abs(item) <= _MAX_NUMBER):
            continue
        location = _infinity(item)
        if location is not None:
            return (key, *location)
    return None


_FINITE: Final = frozenset({str, bool, type(None)})
_MAX_NUMBER: Final = int(sys.float_info.max)


class FirstErrorOnly(FailFast):
    """Leaves a list at its first error. Python up to 3.12 wants what stands in a union hashable."""

    def __hash__(self) -> int:
        return hash(type(self))


class Stated:
    """Adds ``keywords`` to the JSON schema of a type, for what its own validators see to: pydantic
    cannot know of that. Nothing is validated by them."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(core_schema), **self._keywords}


def told_apart_by(field: str, *tags: str, other: bool = False) -> Discriminator:
    """The discriminator of a union whose members are tagged ``<…>`` with their ``field``.

    With ``other`` the union has a member with that tag, for whatever else ``field`` may say.
    pydantic's own puts the bare tag into the location of an error, where it looks like a key.
    """

    def tag(value: Any) -> str | None:
        is_json = isinstance(value, dict)
        given = value.get(field) if is_json else getattr(value, field, tags[0])
        if given in tags:
            return f"<{given}>"
        return "<other>" if other and isinstance(given, str) else None

    # No custom_error_context: Python 3.11 makes unions of hashable metadata only.
    return Discriminator(
        tag,
        custom_error_type=_UNKNOWN_TAG + field,
        custom_error_message=f"Input should be {', '.join(repr(tag) for tag in tags)}",
    )


def text_or_list(of: str) -> Discriminator:
    """The discriminator of what is a string (``<text>``) or a list (``<list>``), ``of`` what."""

    def tag(value: Any) -> str | None:
        if isinstance(value, str):
            return "<text>"
        return "<list>" if isinstance(value, list) else None

    return Discriminator(
        tag,
        custom_error_type="text_or_list",
        custom_error_message=f"Input should be a string or an array of {of}",
    )


_UNKNOWN_TAG: Final = "unknown_tag_in_"
MAX_QUOTED: Final = 64


def _restated(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    param = _notation(first["loc"])
    kind = first["type"]
    missing = kind == "missing"
    instead = ""
    if kind.startswith(_UNKNOWN_TAG):
        field = kind.removeprefix(_UNKNOWN_TAG)
        param = f"{param}.{field}"
        missing = field not in first["input"]
        given = first["input"].get(field)
        instead = f", not {given[:MAX_QUOTED]!r}" if isinstance(given, str) else ""
    if missing:
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param)
    if kind == "extra_forbidden":
        return InvalidRequest(f"Unknown parameter: '{param}'.", param=param)
    # pydantic's own words would name our classes.
    reason = "input should be an object" if kind == "model_type" else first["msg"]
    # Of a list that is too long no more is counted.
    reason = reason.partition(" after validation")[0]
    reason = reason[0].lower() + reason[1:] + instead
    return InvalidRequest(f"Invalid value for '{param}': {reason}.", param=param)


def _notation(location: tuple[int | str, ...]) -> str:
    """The path of an error as OpenAI writes it: ``messages[0].content[1].text``."""
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step}"
        for step in location
        if not str(step).startswith("<")
    )
    return "".join(steps).removeprefix(".")
