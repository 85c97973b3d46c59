"""The options of one mount: the extra arguments of its ``path(…, include(…), {…})``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, get_args

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from .. import _conf
from .._wire.case import Case

__all__ = ["OPTIONS", "Mount"]

OPTIONS: Final = ("backend", "case")


@dataclass(slots=True, frozen=True)
class Mount:
    """Which backend answers below this mount, and in which spelling."""

    backend: str
    case: Case

    @classmethod
    def of(cls, request: HttpRequest) -> Mount:
        """The mount that ``request`` came in by.

        Only the extra arguments count, which the site has written, and never what a pattern has
        captured from the path, which the client has.
        """
        # Both attributes of a match are documented, and missing in django-stubs.
        extra: dict[str, Any] = getattr(request.resolver_match, "extra_kwargs", None) or {}
        case = extra.get("case", _conf.get().RESPONSE_CASE)
        if case not in get_args(Case):
            allowed = ", ".join(repr(value) for value in get_args(Case))
            raise ImproperlyConfigured(f"The mount option 'case' is {case!r}; use {allowed}.")
        return cls(backend=extra.get("backend", _conf.DEFAULT_BACKEND), case=case)
