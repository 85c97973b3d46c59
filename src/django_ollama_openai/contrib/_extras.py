"""Check that the libraries of an optional app are installed."""

from __future__ import annotations

from importlib import import_module

from django.core.exceptions import ImproperlyConfigured

__all__ = ["require"]


def require(library: str, *, app: str, extra: str) -> None:
    """Check that ``library``, which the optional ``app`` needs, is installed.

    Raises:
        ImproperlyConfigured: It is not; the message names the ``extra`` that installs it.
    """
    try:
        import_module(library)
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            f"{app!r} in INSTALLED_APPS needs the extra: "
            f"pip install 'django-ollama-openai[{extra}]'"
        ) from error
