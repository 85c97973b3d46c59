"""What an optional app needs beyond the app itself."""

from __future__ import annotations

from importlib import import_module

from django.core.exceptions import ImproperlyConfigured

__all__ = ["require"]


def require(library: str, *, app: str, extra: str) -> None:
    """Make sure that ``library`` is installed, which ``app`` is made on.

    Raises:
        ImproperlyConfigured: it is not; ``extra`` installs it.
    """
    try:
        import_module(library)
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            f"{app!r} in INSTALLED_APPS needs the extra: "
            f"pip install 'django-ollama-openai[{extra}]'"
        ) from error
