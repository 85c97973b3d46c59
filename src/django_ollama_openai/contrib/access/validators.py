"""Validators of the fields of keys, workspaces and limits, in models and in requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

__all__ = [
    "SCOPES",
    "includes",
    "validate_models",
    "validate_networks",
    "validate_scopes",
    "validate_timezone",
]

#: All scopes. ``None`` instead of a list stands for all except ``"admin"``.
SCOPES: Final = (
    "chat",
    "embeddings",
    "models",
    "keys",
    "sessions",
    "usage",
    "tools",
    "admin",
)

MAX_ENTRIES: Final = 100
MAX_LENGTH: Final = 200


def validate_models(value: Any) -> None:
    """Check a list of patterns of models.

    Raises:
        ValidationError: It is not a list of up to 100 strings of 1 to 200 characters.
    """
    _validate_list(value, lambda entry: None)


def validate_scopes(value: Any) -> None:
    """Check a list of scopes.

    Raises:
        ValidationError: It is not a list, or names a scope that does not exist.
    """
    _validate_list(value, _check_scope)


def validate_networks(value: Any) -> None:
    """Check a list of networks, such as ``10.0.0.0/8``.

    Raises:
        ValidationError: It is not a list, or an entry is not a network.
    """
    _validate_list(value, _check_network)


def validate_timezone(value: str) -> None:
    """Check the name of a time zone.

    Raises:
        ValidationError: There is no such zone.
    """
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError(
            _("There is no time zone %(name)r."), params={"name": value}
        ) from error


def includes(name: str, most: list[str], entry: str) -> bool:
    """Return whether the valid list ``most`` allows all that ``entry`` allows; ``False`` if that is
    not certain. ``name`` is the field of both: ``"scopes"``, ``"models"`` or ``"networks"``."""
    match name:
        case "models":
            return any(_covers(each, entry) for each in most)
        case "networks":
            network: Any = ipaddress.ip_network(entry)
            return any(
                network.version == each.version and network.subnet_of(each)
                for each in map(ipaddress.ip_network, most)
            )
    return entry in most


def _covers(wide: str, narrow: str) -> bool:
    """Return whether the pattern ``wide`` certainly matches all that ``narrow`` matches."""
    if wide == narrow:
        return True
    # ``narrow`` is matched like a name. That is correct for a name, and for a "*" or "?" that a "*"
    # of ``wide`` matches.
    is_name = not re.search(r"[*?[]", narrow)
    is_comparable = is_name or not ("[" in narrow or re.search(r"[?[]", wide))
    return is_comparable and fnmatchcase(narrow, wide)


def _validate_list(value: Any, check: Callable[[str], None]) -> None:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise ValidationError(
            _("This must be a list of up to %(count)d strings."), params={"count": MAX_ENTRIES}
        )
    for entry in value:
        # PostgreSQL stores no NUL.
        if not isinstance(entry, str) or not 0 < len(entry) <= MAX_LENGTH or "\0" in entry:
            raise ValidationError(
                _("%(entry)r is not a string of 1 to %(length)d characters."),
                params={"entry": str(entry)[:MAX_LENGTH], "length": MAX_LENGTH},
            )
        check(entry)


def _check_scope(entry: str) -> None:
    if entry not in SCOPES:
        raise ValidationError(
            _("%(entry)r is not a scope. The scopes are %(known)s."),
            params={"entry": entry, "known": ", ".join(SCOPES)},
        )


def _check_network(entry: str) -> None:
    try:
        ipaddress.ip_network(entry)
    except ValueError as error:
        raise ValidationError(
            _("%(entry)r is not a network such as 10.0.0.0/8."), params={"entry": entry}
        ) from error
