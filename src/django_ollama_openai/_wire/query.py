"""Read query parameters: in both spellings, with errors that name the parameter."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import ConfigDict

from .base import WireModel
from .case import to_camel

__all__ = ["QueryParameters", "RequestBody"]


class RequestBody(WireModel):
    """The JSON body of a request. Unknown fields are an error that names them.

    Fields are read in snake_case and in camelCase, and types are strict: ``"1"`` is no number.
    """

    model_config = ConfigDict(extra="forbid")


class QueryParameters(WireModel):
    """The query parameters of a request. Unknown ones are ignored.

    They are read in snake_case and in camelCase. Fields that are lists take each value of a
    repeated parameter, ``tag=a&tag=b`` or ``tag[]=a&tag[]=b``; of others the last value counts.
    Fields that are dicts take their keys in brackets: ``metadata[key]=value``.
    """

    model_config = ConfigDict(extra="ignore", strict=False)

    _lists: ClassVar[frozenset[str]] = frozenset()
    _dicts: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._lists, cls._dicts = cls._fields_of(list), cls._fields_of(dict)

    @classmethod
    def _fields_of(cls, kind: type) -> frozenset[str]:
        """Return the names of the fields of ``kind``, in both spellings."""
        names = [name for name, field in cls.model_fields.items() if _is(kind, field.annotation)]
        return frozenset([*names, *map(to_camel, names)])

    @classmethod
    def read(cls, parameters: Iterable[tuple[str, list[str]]]) -> Self:
        """Validate ``parameters``: names, each with its values.

        Raises:
            InvalidRequest: naming the first parameter at fault.
        """
        values: dict[str, Any] = {}
        dicts: dict[str, dict[str, str]] = {}
        for name, given in parameters:
            field, _, key = name.partition("[")
            if field in cls._dicts and key.endswith("]"):
                dicts.setdefault(field, {})[key[:-1]] = given[-1]
                continue
            name = name.removesuffix("[]")
            values[name] = given if name in cls._lists else given[-1]
        return cls.from_dict({**values, **dicts})


def _is(kind: type, annotation: Any) -> bool:
    """Return whether ``annotation`` is ``kind``, or a union that has it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is(kind, arguments[0])
    if origin in (Union, types.UnionType):
        return any(_is(kind, argument) for argument in arguments)
    return kind in (annotation, origin)
