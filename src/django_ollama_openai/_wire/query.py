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
    """

    model_config = ConfigDict(extra="ignore", strict=False)

    _lists: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        lists = [name for name, field in cls.model_fields.items() if _is_list(field.annotation)]
        cls._lists = frozenset([*lists, *map(to_camel, lists)])

    @classmethod
    def read(cls, parameters: Iterable[tuple[str, list[str]]]) -> Self:
        """Validate ``parameters``: names, each with its values.

        Raises:
            InvalidRequest: naming the first parameter at fault.
        """
        values: dict[str, Any] = {}
        for name, given in parameters:
            name = name.removesuffix("[]")
            values[name] = given if name in cls._lists else given[-1]
        return cls.from_dict(values)


def _is_list(annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_list(arguments[0])
    if origin in (Union, types.UnionType):
        return any(map(_is_list, arguments))
    return list in (annotation, origin)
