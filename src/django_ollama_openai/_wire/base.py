"""The base class of all request models: both spellings, strict types, errors like OpenAI's."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias, TypeVar

import pydantic_core
from annotated_types import MaxLen
from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    GetJsonSchemaHandler,
    Tag,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..exceptions import InvalidRequest
from .case import to_camel

__all__ = [
    "MAX_PARTS",
    "Content",
    "FirstErrorOnly",
    "JSONSchemaExtra",
    "WireModel",
    "dump_sent",
    "parse_json",
    "tagged_union",
    "text_or_list",
]


#: The maximum number of keys, objects and arrays in a body. Parsing one takes far longer than its
#: few bytes suggest: a body within the size limit could have millions, and block the event loop for
#: seconds.
MAX_NODES: Final = 100_000


def _both_spellings(name: str) -> str | AliasChoices:
    camel = to_camel(name)
    return name if camel == name else AliasChoices(name, camel)


class WireModel(BaseModel):
    """An object of OpenAI's JSON.

    Fields are accepted in snake_case and in camelCase; if a field has both, snake_case wins. Types
    are strict, as OpenAI's are: ``"0.5"`` is not a number. Unknown keys are kept.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        alias_generator=AliasGenerator(validation_alias=_both_spellings),
        validate_by_name=True,
    )

    #: The maximum number of keys, objects and arrays in a body.
    max_nodes: ClassVar[int] = MAX_NODES

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Parse ``body`` as JSON and validate it.

        Raises:
            InvalidRequest: The body is invalid; ``param`` is the first invalid field, in OpenAI's
                notation.
        """
        if not _is_simple(body, cls.max_nodes):
            raise InvalidRequest(
                "The request body is too complex: it may contain at most "
                f"{cls.max_nodes} keys, objects and arrays."
            )
        try:
            value = _from_json(body)
        except _TooDeep as error:
            raise InvalidRequest(f"The request body is {error}.") from None
        except ValueError as error:
            raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
        if not isinstance(value, dict):
            raise InvalidRequest("The request body must be a JSON object.")
        parsed = cls.from_dict(value)
        if (location := _overflow(value)) is not None:
            param = _notation(location)
            raise InvalidRequest(
                f"Invalid value for '{param}': the number is too large.", param=param
            )
        return parsed

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Validate ``value``, a parsed JSON object.

        Raises:
            InvalidRequest: As for :meth:`parse`.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise _to_invalid_request(error) from None

    def dump_known(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Return the fields that were sent as JSON, without ``null`` and unknown keys. ``only``
        limits them to some fields."""
        fields = type(self).model_fields
        return {
            fields[name].alias or name: _dump_known(value)
            for name in fields
            if name in self.model_fields_set
            and (only is None or name in only)
            and (value := getattr(self, name)) is not None
        }

    def dump_sent(self) -> dict[str, Any]:
        """Return all that was sent as JSON, the fields of the model in snake_case."""
        fields = type(self).model_fields
        declared = {
            fields[name].alias or name: dump_sent(getattr(self, name))
            for name in fields
            if name in self.model_fields_set
        }
        return {**declared, **(self.model_extra or {})}


def dump_sent(value: Any) -> Any:
    """Return ``value``, a part of a request, as :meth:`WireModel.dump_sent` does."""
    if isinstance(value, WireModel):
        return value.dump_sent()
    if isinstance(value, list):
        return [dump_sent(item) for item in value]
    return value


def _dump_known(value: Any) -> Any:
    if isinstance(value, WireModel):
        return value.dump_known()
    if isinstance(value, list):
        return [_dump_known(item) for item in value]
    return value


def parse_json(text: str) -> Any:
    """Return the value of the JSON ``text``.

    Raises:
        ValueError: The text is not JSON, is too complex or nested too deeply, or has a number
            beyond the range of a float.
    """
    if not _is_simple(text.encode(), MAX_NODES):
        raise ValueError("too many keys, objects and arrays")
    value = _from_json(text)
    if _overflow(value) is not None:
        raise ValueError("a number is too large")
    return value


#: The maximum nesting of pydantic's parser, which accepts one more level if it is empty.
MAX_LEVELS: Final = 200


class _TooDeep(ValueError):
    def __init__(self) -> None:
        super().__init__(f"nested too deeply: it may have at most {MAX_LEVELS} levels")


def _from_json(text: bytes | str) -> Any:
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise _TooDeep from None
        raise


_NODES: Final = (b":", b"{", b"[")


def _is_simple(body: bytes, limit: int) -> bool:
    """Return whether ``body``, which may be JSON, has at most ``limit`` keys, objects and
    arrays."""
    if sum(map(body.count, _NODES)) <= limit:
        return True
    # Do not count these characters within strings. There are not many more strings than keys.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 8 * limit:
        return False
    outside = b"".join(plain.split(b'"')[::2])
    return sum(map(outside.count, _NODES)) <= limit


def _overflow(value: Any) -> tuple[int | str, ...] | None:
    """Return the location of a number in ``value`` beyond the range of a float, or ``None``.

    pydantic parses ``1e999`` as infinity, which is not valid JSON; Ollama rejects an integer of 400
    digits.
    """
    # Serialising is much faster than a search, and shows whether one is needed.
    written = pydantic_core.to_json(value)
    has_overflow = b"Infinity" in written or _has_long_integer(written)
    return _infinity(value) if has_overflow else None


_MAX_DIGITS: Final = 309
_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)


def _has_long_integer(written: bytes) -> bool:
    """Return whether ``written`` has as many digits in a row as the greatest float, perhaps in a
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
        # There may be millions of items; a function call for each would be slow.
        if item.__class__ in _FINITE or (item.__class__ is int and abs(item) <= _MAX_NUMBER):
            continue
        location = _infinity(item)
        if location is not None:
            return (key, *location)
    return None


_FINITE: Final = frozenset({str, bool, type(None)})
_MAX_NUMBER: Final = int(sys.float_info.max)


class FirstErrorOnly(FailFast):
    """Stop the validation of a list at the first error. Python up to 3.12 requires hashable
    metadata in unions."""

    def __hash__(self) -> int:
        return hash(type(self))


class JSONSchemaExtra:
    """Add ``keywords`` to the JSON schema of a type, to document what its validators check. They
    have no effect on validation."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(core_schema), **self._keywords}


def tagged_union(field: str, *tags: str, other: bool = False) -> Discriminator:
    """Return the discriminator of a union by ``field``, whose values are the members' tags, in
    angle brackets.

    With ``other`` the member tagged ``<other>`` is for all other values. The brackets distinguish
    tags from keys in the location of an error.
    """

    def tag(value: Any) -> str | None:
        is_json = isinstance(value, dict)
        given = value.get(field) if is_json else getattr(value, field, tags[0])
        if given in tags:
            return f"<{given}>"
        return "<other>" if other and isinstance(given, str) else None

    # No custom_error_context, since Python 3.11 requires hashable metadata in unions.
    return Discriminator(
        tag,
        custom_error_type=_UNKNOWN_TAG + field,
        custom_error_message=f"Input should be {', '.join(repr(tag) for tag in tags)}",
    )


def text_or_list(of: str) -> Discriminator:
    """Return the discriminator of a union of a string (``<text>``) and a list (``<list>``); ``of``
    names the list's items in error messages."""

    def tag(value: Any) -> str | None:
        if isinstance(value, str):
            return "<text>"
        return "<list>" if isinstance(value, list) else None

    return Discriminator(
        tag,
        custom_error_type="text_or_list",
        custom_error_message=f"Input should be a string or an array of {of}",
    )


MAX_PARTS: Final = 1_000

T = TypeVar("T")

#: The content of a message: a string, or a list of parts of type ``T``.
Content: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[T], MaxLen(MAX_PARTS), FirstErrorOnly(), Tag("<list>")],
    text_or_list("content parts"),
]

_UNKNOWN_TAG: Final = "unknown_tag_in_"
MAX_QUOTED: Final = 64


def _to_invalid_request(error: ValidationError) -> InvalidRequest:
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
    # pydantic's own message would name a class of this package.
    reason = "input should be an object" if kind == "model_type" else first["msg"]
    # For a list that is too long, pydantic stops counting at the limit.
    reason = reason.partition(" after validation")[0]
    reason = reason[0].lower() + reason[1:] + instead
    return InvalidRequest(f"Invalid value for '{param}': {reason}.", param=param)


def _notation(location: tuple[int | str, ...]) -> str:
    """Return ``location`` in OpenAI's notation, such as ``messages[0].content[1].text``."""
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step}"
        for step in location
        if not str(step).startswith("<")
    )
    return "".join(steps).removeprefix(".")
