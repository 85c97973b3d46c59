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
    """The backend that answers below a mount, by its alias, and the spelling of responses."""

    backend: str
    case: Case

    @classmethod
    def of(cls, request: HttpRequest, settings: _conf.Settings) -> Mount:
        """Return the mount whose path ``request`` has.

        Only the extra arguments of the mount count, which the site has written; never what a
        pattern captures from the path, which is the client's.

        Raises:
            ImproperlyConfigured: The option ``case`` is invalid.
        """
        # Both attributes of a match are documented, and missing in django-stubs.
        extra: dict[str, Any] = getattr(request.resolver_match, "extra_kwargs", None) or {}
        case = extra.get("case", settings.RESPONSE_CASE)
        if case not in get_args(Case):
            allowed = ", ".join(repr(value) for value in get_args(Case))
            raise ImproperlyConfigured(f"The mount option 'case' is {case!r}; use {allowed}.")
        return cls(backend=extra.get("backend", _conf.DEFAULT_BACKEND), case=case)
