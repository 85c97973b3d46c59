"""The backends of ``BACKENDS``, by alias."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .. import _conf
from ._base import BaseBackend

__all__ = ["BackendHandler", "InvalidBackendError", "backends"]


class InvalidBackendError(ImproperlyConfigured):
    """An alias has no entry in ``BACKENDS``, or its entry is invalid."""


class BackendHandler:
    """Creates one backend per alias and process, at its first use.

    Unlike Django's ``BaseConnectionHandler``, which creates one per thread and task: backends share
    their pools of connections.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._backends: dict[str, BaseBackend] = {}
        self._inherited: dict[str, BaseBackend] = {}

    def __getitem__(self, alias: str) -> BaseBackend:
        """Return the backend ``alias``.

        Raises:
            InvalidBackendError: Its entry in ``BACKENDS`` is missing or invalid.
        """
        backend = self._backends.get(alias)
        if backend is None:
            with self._lock:
                backend = self._backends.get(alias)
                if backend is None:
                    backend = self._backends[alias] = self.create(alias)
        return backend

    def __iter__(self) -> Iterator[str]:
        return iter(_conf.get().BACKENDS)

    def create(self, alias: str) -> BaseBackend:
        """Return a new backend for ``alias``; raises as :meth:`__getitem__` does."""
        config = _conf.get().BACKENDS.get(alias)
        where = f"{_conf.SETTING}['BACKENDS'][{alias!r}]"
        if config is None:
            known = ", ".join(repr(name) for name in self)
            raise InvalidBackendError(f"{where} is missing; there are {known}.")
        try:
            backend_class = import_string(config.BACKEND)
        except ImportError as error:
            raise InvalidBackendError(
                f"{where}['BACKEND']: could not import {config.BACKEND!r}: {error}."
            ) from error
        if not (isinstance(backend_class, type) and issubclass(backend_class, BaseBackend)):
            raise InvalidBackendError(
                f"{where}['BACKEND']: {config.BACKEND!r} is not a subclass of BaseBackend."
            )
        try:
            backend = backend_class(alias=alias, **config.keywords())
        except ValidationError as error:
            # Without the text of the error, which quotes values.
            wrong = "; ".join(
                f"{path}: {reason}" for path, reason in _conf.reasons(error, _option_reason)
            )
            raise InvalidBackendError(
                f"{where}: {wrong}.{_unexpected_options(backend_class, config)}"
            ) from None
        except Exception as error:
            reason = str(error) or type(error).__name__
            unexpected = (
                _unexpected_options(backend_class, config) if isinstance(error, TypeError) else ""
            )
            raise InvalidBackendError(f"{where}: {unexpected.lstrip() or reason}") from error
        limits = _conf.get().limits(alias)
        backend.limit_requests(
            limits.max_concurrency, max_queue=limits.max_queue, timeout=limits.queue_timeout
        )
        return backend

    def reset_after_fork(self) -> None:
        """Start without backends in a forked process, which cannot share connections and engines
        with its parent. The parent's are kept: to delete them might close them there."""
        self._inherited = self._backends
        self._lock, self._backends = threading.Lock(), {}

    def close(self) -> None:
        """Remove and close all backends."""
        with self._lock:
            created, self._backends = self._backends, {}
        # Pools first: they may still send requests to their members.
        for backend in sorted(created.values(), key=lambda each: each.engines() == (each.alias,)):
            backend.close()


#: The keys of an entry that are keywords of the constructor.
_KEYS: Final = {"host": "HOST", "base_url": "BASE_URL"}


def _option_reason(item: ErrorDetails) -> str:
    if item["type"] == "missing_keyword_only_argument":
        name = str(item["loc"][-1])
        return f"it is missing; set {_KEYS[name]}" if name in _KEYS else "it is missing"
    return _conf.plain_reason(item)


def _unexpected_options(backend_class: type[BaseBackend], config: _conf.BackendConfig) -> str:
    """Return a sentence about the options that the class does not take, if there are any."""
    known = _options(backend_class)
    unexpected = {name: _KEYS.get(name, name) for name in config.keywords() if name not in known}
    if not unexpected:
        return ""
    names = ", ".join(repr(key) for key in unexpected.values())
    takes = ", ".join(_KEYS.get(name, name) for name in known) or "no options"
    text = f" {backend_class.__name__} does not take {names}, but {takes}."
    if "host" in unexpected and config.HOST == _conf.get().HOST:
        text += f" Its HOST is {_conf.SETTING}['HOST'], which is the default's."
    return text


def _options(backend_class: type[BaseBackend]) -> list[str]:
    """Return the keywords of the constructor and of those of its base classes."""
    constructors = [
        vars(each)["__init__"] for each in backend_class.__mro__[:-1] if "__init__" in vars(each)
    ]
    names = [
        parameter.name
        for constructor in constructors
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "alias"
    ]
    return list(dict.fromkeys(names))


backends = BackendHandler()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=backends.reset_after_fork)


def _remake(*, setting: str, **kwargs: Any) -> None:
    if setting == _conf.SETTING:
        backends.close()


setting_changed.connect(_remake, dispatch_uid="django_ollama_openai.backends")
