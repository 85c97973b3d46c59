"""System checks: what is wrong with the configuration is said at start-up, with an id.

======================  ==========================================================
``ollama_openai.E001``  ``OLLAMA_OPENAI`` has an unknown key or a bad value
``ollama_openai.E002``  a backend cannot be made from its entry
``ollama_openai.E003``  an authenticator cannot be made from its path
``ollama_openai.E004``  a model or a mount names a backend that does not exist
``ollama_openai.E005``  a mount has an unknown option or a bad value for one
``ollama_openai.W001``  nobody can get in
``ollama_openai.W002``  ``DEFAULT_MODEL`` is not among ``ALLOWED_MODELS``
``ollama_openai.W003``  ``REMOTE_IMAGES`` is on, and no backend reads images yet
======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver

from . import conf
from .backends import InvalidBackendError, backends
from .gateway.gates import authenticators
from .gateway.mount import OPTIONS
from .wire.case import Case

__all__ = ["check_mounts", "check_settings"]

URLS = "django_ollama_openai.urls"


@register(Tags.compatibility)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check ``OLLAMA_OPENAI``."""
    problems = conf.problems()
    if problems:
        return [
            Error(
                f"{conf.SETTING}: {path or 'the setting'}: {reason}.",
                id="ollama_openai.E001",
            )
            for path, reason in problems
        ]
    return [*_check_backends(), *_check_authenticators(), *_check_models()]


def _check_backends() -> Iterator[CheckMessage]:
    for alias in backends:
        try:
            backends.create(alias).close()
        except InvalidBackendError as error:
            yield Error(str(error), id="ollama_openai.E002")


def _check_authenticators() -> Iterator[CheckMessage]:
    try:
        authenticators()
    except ImproperlyConfigured as error:
        yield Error(str(error), id="ollama_openai.E003")


def _check_models() -> Iterator[CheckMessage]:
    settings = conf.get()
    for name, model in settings.MODELS.items():
        if model.BACKEND is not None and model.BACKEND not in settings.BACKENDS:
            yield Error(
                f"{conf.SETTING}['MODELS'][{name!r}]['BACKEND'] is {model.BACKEND!r}, which is "
                "not in BACKENDS.",
                hint=_aliases(),
                id="ollama_openai.E004",
            )
    only_static = settings.AUTHENTICATION == ["django_ollama_openai.auth.StaticKeyAuthenticator"]
    if not settings.ALLOW_ANONYMOUS and (
        not settings.AUTHENTICATION or (only_static and not settings.API_KEYS)
    ):
        yield Warning(
            f"{conf.SETTING} lets nobody in.",
            hint="Set API_KEYS, add an authenticator to AUTHENTICATION, or set ALLOW_ANONYMOUS.",
            id="ollama_openai.W001",
        )
    if settings.DEFAULT_MODEL and not settings.allows_model(settings.DEFAULT_MODEL):
        yield Warning(
            f"{conf.SETTING}['DEFAULT_MODEL'] is {settings.DEFAULT_MODEL!r}, which ALLOWED_MODELS "
            "does not allow.",
            id="ollama_openai.W002",
        )
    if settings.REMOTE_IMAGES:
        yield Warning(
            f"{conf.SETTING}['REMOTE_IMAGES'] has no effect: no backend reads images yet.",
            id="ollama_openai.W003",
        )


@register(Tags.urls)
def check_mounts(**kwargs: Any) -> list[CheckMessage]:
    """Check the extra arguments of every ``include()`` of the app's urls."""
    if conf.problems():
        return []
    return [
        message
        for options in _mounts(get_resolver().url_patterns, {})
        for message in _check_mount(options)
    ]


def _mounts(
    patterns: list[URLPattern | URLResolver], inherited: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            options = {**inherited, **pattern.default_kwargs}
            if getattr(pattern.urlconf_module, "__name__", None) == URLS:
                yield options
            else:
                yield from _mounts(pattern.url_patterns, options)


def _check_mount(options: dict[str, Any]) -> Iterator[CheckMessage]:
    for option, value in options.items():
        if option not in OPTIONS:
            yield Error(
                f"A mount of {URLS} has the unknown option {option!r}.",
                hint=f"Use {' or '.join(repr(known) for known in OPTIONS)}.",
                id="ollama_openai.E005",
            )
        elif option == "case" and value not in get_args(Case):
            yield Error(
                f"A mount of {URLS} has the case {value!r}.",
                hint=f"Use {', '.join(repr(case) for case in get_args(Case))}.",
                id="ollama_openai.E005",
            )
        elif option == "backend" and value not in conf.get().BACKENDS:
            yield Error(
                f"A mount of {URLS} has the backend {value!r}, which is not in BACKENDS.",
                hint=_aliases(),
                id="ollama_openai.E004",
            )


def _aliases() -> str:
    return "There are " + ", ".join(repr(alias) for alias in backends) + "."
