"""Helpers for the tests of a site: answers without an engine, and a key."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.test import override_settings

from . import _conf
from .backends import DummyBackend, backends

__all__ = ["API_KEY", "DummyBackend", "authorization", "canned_replies", "requests_to"]

#: The key that :func:`canned_replies` adds to ``API_KEYS``.
API_KEY: Final = "sk-testing"

_DUMMY: Final = "django_ollama_openai.backends.DummyBackend"


def canned_replies(*replies: str | dict[str, Any], **changes: Any) -> override_settings:
    """Return a decorator and context manager that replaces each backend of the site by a
    :class:`~django_ollama_openai.backends.DummyBackend` with ``replies``.

    Without ``replies`` they have a default reply. :data:`API_KEY` is a valid key. ``changes`` are
    keys of ``OLLAMA_OPENAI``, which replace those of the site.
    """
    site = {**getattr(settings, _conf.SETTING, {}), **changes}
    backend = {"BACKEND": _DUMMY, "OPTIONS": {"replies": replies} if replies else {}}
    return override_settings(
        **{
            _conf.SETTING: {
                "DEFAULT_MODEL": "dummy",
                **site,
                "HOST": None,
                "BACKENDS": dict.fromkeys(["default", *site.get("BACKENDS", ())], backend),
                "API_KEYS": [*site.get("API_KEYS", ()), {"KEY": API_KEY, "NAME": "testing"}],
            }
        }
    )


def requests_to(alias: str = _conf.DEFAULT_BACKEND) -> list[Any]:
    """Return the requests that the backend ``alias`` has received within :func:`canned_replies`."""
    backend = backends[alias]
    if not isinstance(backend, DummyBackend):
        raise TypeError(f"The backend {alias!r} is no DummyBackend. Use canned_replies().")
    return backend.requests


def authorization(key: str = API_KEY) -> dict[str, str]:
    """Return the header with ``key``, for the ``headers`` of Django's test clients."""
    return {"Authorization": f"Bearer {key}"}
