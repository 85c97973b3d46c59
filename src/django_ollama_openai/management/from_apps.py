"""Create the objects that installed apps name by dotted paths."""

from __future__ import annotations

from typing import TypeVar

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

__all__ = ["create"]

T = TypeVar("T")


def create(app: AppConfig, path: str, base: type[T]) -> T:
    """Return a new object of the class at the dotted path ``path``, which ``app`` names.

    Raises:
        ImproperlyConfigured: It cannot be imported, or is no subclass of ``base``.
    """
    try:
        made = import_string(path)()
    except ImportError as error:
        raise ImproperlyConfigured(f"The app {app.name!r} names {path!r}: {error}") from error
    if not isinstance(made, base):
        raise ImproperlyConfigured(f"{path!r} is not a subclass of {base.__name__}.")
    return made
