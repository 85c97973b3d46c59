"""System checks of the app.

======================  ==========================================================
``ollama_openai.E013``  ``USE_TZ`` is off
``ollama_openai.W010``  ``RESPONSE_STORE`` is set, which has no effect
``ollama_openai.W011``  the default storage writes to the current directory
======================  ==========================================================
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import FileSystemStorage, InvalidStorageError, storages

from ... import _conf

__all__ = ["check_response_store", "check_storage", "check_time_zones", "connect"]


def connect() -> None:
    """Register the checks."""
    register(check_time_zones, Tags.compatibility)
    register(check_response_store, Tags.compatibility)
    register(check_storage, Tags.files)


def check_time_zones(**kwargs: Any) -> list[CheckMessage]:
    """Check that the site's times have time zones."""
    if settings.USE_TZ:
        return []
    return [
        Error(
            "The app for conversations needs USE_TZ = True: clients get times in UTC.",
            id="ollama_openai.E013",
        )
    ]


def check_response_store(**kwargs: Any) -> list[CheckMessage]:
    """Check that no other store of responses is set."""
    if _conf.problems() or _conf.get().RESPONSE_STORE is None:
        return []
    return [
        Warning(
            f"{_conf.SETTING}['RESPONSE_STORE'] has no effect: the app for conversations stores "
            "responses in the database.",
            hint="Remove the key.",
            id="ollama_openai.W010",
        )
    ]


def check_storage(**kwargs: Any) -> list[CheckMessage]:
    """Check that the files of messages have a directory."""
    try:
        storage = storages["default"]
    except (ImportError, InvalidStorageError):
        # Django's own error says more.
        return []
    if not isinstance(storage, FileSystemStorage) or storage.base_location:
        return []
    return [
        Warning(
            "The default storage has no directory: images and audio of messages are written to the "
            "current one.",
            hint="Set MEDIA_ROOT, or STORAGES['default'].",
            id="ollama_openai.W011",
        )
    ]
