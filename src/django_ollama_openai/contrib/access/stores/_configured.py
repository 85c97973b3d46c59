"""The store that the settings name."""

from __future__ import annotations

import functools
import json

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import access_settings
from ._base import BaseStore

__all__ = ["limit_store"]


@functools.cache
def _store(path: str, options: str) -> BaseStore:
    store = import_string(path)(**json.loads(options))
    if not isinstance(store, BaseStore):
        raise ImproperlyConfigured(f"{path!r} is not a subclass of BaseStore.")
    return store


def limit_store() -> BaseStore:
    """Return the store of ``ACCESS["LIMIT_STORE"]``, one for each process."""
    config = access_settings().LIMIT_STORE
    return _store(config.STORE, json.dumps(config.OPTIONS, sort_keys=True))
