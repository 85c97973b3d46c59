"""System checks, which report mistakes in the configuration at start-up.

======================  ==========================================================
``ollama_openai.E001``  ``OLLAMA_OPENAI`` has an unknown key or an invalid value
``ollama_openai.E002``  the entry of a backend is invalid
``ollama_openai.E003``  an authenticator cannot be imported or created
``ollama_openai.E004``  a model or a mount names a backend that does not exist
``ollama_openai.E005``  a mount has an unknown option or an invalid value
``ollama_openai.E006``  the response store cannot be imported or created
``ollama_openai.E007``  fallbacks form a circle, or name a pattern
``ollama_openai.E008``  an attribute of an app's config cannot be used
``ollama_openai.E009``  an app has a path that another app or the gateway itself has
``ollama_openai.E010``  a policy cannot be imported or created
``ollama_openai.W001``  no caller can authenticate
``ollama_openai.W002``  ``DEFAULT_MODEL`` is not among ``ALLOWED_MODELS``
``ollama_openai.W003``  there are ``API_KEYS`` but no authenticator for them
``ollama_openai.W004``  ``QUEUE_TIMEOUT`` is longer than the time to the first keep-alive
``ollama_openai.W005``  a backend is not ready (reported by ``check`` and ``runserver`` only)
``ollama_openai.W006``  an authenticator or a policy of an installed app is not used
======================  ==========================================================
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, get_args

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver
from django.utils.module_loading import import_string

from . import _conf
from ._gateway.admission import authenticators
from ._gateway.failures import describe_failure
from ._gateway.mount import OPTIONS
from ._wire.case import Case
from .auth import BaseAuthenticator, StaticKeyAuthenticator
from .backends import BaseBackend, InvalidBackendError, backends
from .backends._fan_out import fan_out
from .exceptions import GatewayError
from .policies import BasePolicy
from .response_store import response_store

__all__ = ["check_apps", "check_engines", "check_mounts", "check_paths", "check_settings"]

URLS = "django_ollama_openai.urls"

#: The commands that report on engines. Other commands run the checks too, but need no engine and
#: should not wait for one.
COMMANDS: Final = (["check"], ["runserver"])

ENGINES_WITHIN_SECONDS: Final = 2


@register(Tags.compatibility)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check ``OLLAMA_OPENAI``."""
    problems = _conf.problems()
    if problems:
        return [
            Error(
                f"{_conf.SETTING}: {path or 'the setting'}: {reason}.",
                id="ollama_openai.E001",
            )
            for path, reason in problems
        ]
    return [
        *_check_backends(),
        *_check_classes(),
        *_check_access(),
        *_check_left_out(),
        *_check_models(),
        *_check_store(),
    ]


def _check_backends() -> Iterator[CheckMessage]:
    for alias in backends:
        engines: tuple[str, ...] = (alias,)
        try:
            backend = backends.create(alias)
        except InvalidBackendError as error:
            yield Error(str(error), id="ollama_openai.E002")
        else:
            engines = backend.engines()
            backend.close()
        yield from _check_queue(alias, engines)


def _check_queue(alias: str, engines: tuple[str, ...]) -> Iterator[CheckMessage]:
    settings = _conf.get()
    limits, keepalive = settings.limits(alias), settings.STREAM_KEEPALIVE_SECONDS
    is_limited = any(settings.limits(each).max_concurrency is not None for each in engines)
    if is_limited and limits.queue_timeout >= keepalive:
        yield Warning(
            f"{_conf.SETTING}: for the backend {alias!r} QUEUE_TIMEOUT is {limits.queue_timeout:g} "
            f"seconds and STREAM_KEEPALIVE_SECONDS {keepalive:g}: a stream that waits has begun by "
            "then, and can be no 503 any more.",
            hint="Make QUEUE_TIMEOUT the smaller one.",
            id="ollama_openai.W004",
        )


def _check_classes() -> Iterator[CheckMessage]:
    settings = _conf.get()
    for key, attribute, id in _LISTS:
        base, named = _BASES[attribute], _conf.named_by_apps(attribute)
        for path in getattr(settings, key):
            # Another check reports what apps name in vain.
            if path in named and _unusable(path, base):
                continue
            try:
                _conf.make(path, base, key)
            except ImproperlyConfigured as error:
                yield Error(str(error), id=id)


def _check_access() -> Iterator[CheckMessage]:
    settings = _conf.get()
    try:
        active = authenticators(settings)
    except ImproperlyConfigured:
        return
    has_keys = any(isinstance(each, StaticKeyAuthenticator) for each in active)
    if settings.API_KEYS and not has_keys:
        yield Warning(
            f"{_conf.SETTING}['API_KEYS'] has no effect: AUTHENTICATION has no "
            "StaticKeyAuthenticator.",
            id="ollama_openai.W003",
        )
    useful = [
        each for each in active if settings.API_KEYS or type(each) is not StaticKeyAuthenticator
    ]
    if not settings.ALLOW_ANONYMOUS and not useful:
        yield Warning(
            f"{_conf.SETTING} admits no callers: there are neither API_KEYS nor other "
            "authenticators.",
            hint="Set API_KEYS, add an authenticator to AUTHENTICATION, or set ALLOW_ANONYMOUS.",
            id="ollama_openai.W001",
        )


def _check_left_out() -> Iterator[CheckMessage]:
    settings = _conf.get()
    for key, attribute, _ in _LISTS:
        left_out = [
            path for path in _conf.named_by_apps(attribute) if path not in getattr(settings, key)
        ]
        if left_out:
            yield Warning(
                f"{_conf.SETTING}[{key!r}] leaves out {', '.join(map(repr, left_out))}, which "
                "installed apps name.",
                hint=f"Add them, or silence this warning if that is intended. Without {key}, all "
                "are used.",
                id="ollama_openai.W006",
            )


def _check_models() -> Iterator[CheckMessage]:
    settings = _conf.get()
    for name, model in settings.MODELS.items():
        if model.BACKEND is not None and model.BACKEND not in settings.BACKENDS:
            yield Error(
                f"{_conf.SETTING}['MODELS'][{name!r}]['BACKEND'] is {model.BACKEND!r}, which is "
                "not in BACKENDS.",
                hint=_aliases(),
                id="ollama_openai.E004",
            )
    yield from _check_fallbacks(settings)
    if settings.DEFAULT_MODEL and not settings.allows_model(settings.DEFAULT_MODEL):
        yield Warning(
            f"{_conf.SETTING}['DEFAULT_MODEL'] is {settings.DEFAULT_MODEL!r}, which ALLOWED_MODELS "
            "does not allow.",
            id="ollama_openai.W002",
        )


def _check_fallbacks(settings: _conf.Settings) -> Iterator[CheckMessage]:
    for name, model in settings.MODELS.items():
        where = f"{_conf.SETTING}['MODELS'][{name!r}]['FALLBACKS']"
        for fallback in model.FALLBACKS:
            if _conf.is_pattern(fallback):
                yield Error(
                    f"{where} has {fallback!r}, which is a pattern.",
                    hint="Name the models to try.",
                    id="ollama_openai.E007",
                )
        loop = _loop(settings, [name], set())
        # Each loop is reported once, for its first model.
        if loop and name == min(loop, key=list(settings.MODELS).index):
            yield Error(
                f"{where} is a loop: {' -> '.join(map(repr, [*loop, loop[0]]))}.",
                hint="A model that has failed would be tried again; remove one of them.",
                id="ollama_openai.E007",
            )


def _loop(settings: _conf.Settings, path: list[str], seen: set[str]) -> list[str] | None:
    """Return a loop of fallbacks that continues ``path`` and leads back to its begin, as keys of
    ``MODELS``; ``None`` if there is none. The keys in ``seen`` are not followed again."""
    for fallback in settings.MODELS[path[-1]].FALLBACKS:
        key = settings.model_key(fallback)
        if key == path[0]:
            return path
        if key is not None and key not in seen:
            seen.add(key)
            if loop := _loop(settings, [*path, key], seen):
                return loop
    return None


def _check_store() -> Iterator[CheckMessage]:
    try:
        response_store()
    except ImproperlyConfigured as error:
        yield Error(str(error), id="ollama_openai.E006")


@register(Tags.compatibility)
def check_apps(**kwargs: Any) -> list[CheckMessage]:
    """Check the attributes by which the configs of installed apps name what they bring."""
    sections: dict[str, str] = dict.fromkeys(_conf.Settings.model_fields, "django_ollama_openai")
    messages: list[CheckMessage] = []
    for app in apps.get_app_configs():
        reasons = list(_named_in_vain(app))
        named = getattr(app, _conf.SECTIONS, None)
        for name in named if isinstance(named, dict) else ():
            if name in sections:
                reasons.append(
                    f"adds the section {name!r} to {_conf.SETTING}, which {sections[name]!r} has, "
                    "too"
                )
            sections.setdefault(name, app.name)
        messages += [
            Error(f"The app {app.name!r} {reason}.", id="ollama_openai.E008") for reason in reasons
        ]
    return messages


def _named_in_vain(app: AppConfig) -> Iterator[str]:
    for attribute, (kind, description) in _TYPES.items():
        named = getattr(app, attribute, None)
        if named is None:
            continue
        if not isinstance(named, kind):
            yield f"has {named!r} as {attribute}, which is not {description}"
        elif attribute in _BASES:
            for path in named.values() if isinstance(named, dict) else named:
                if reason := _unusable(path, _BASES[attribute]):
                    yield f"names {path!r} in {attribute}, which {reason}"


_TYPES: Final[dict[str, tuple[Any, str]]] = {
    _conf.ENDPOINTS: (str, "the dotted path of a module"),
    _conf.AUTHENTICATORS: ((list, tuple), "a list of dotted paths"),
    _conf.COMMANDS: (dict, "a dict of names and dotted paths"),
    _conf.POLICIES: ((list, tuple), "a list of dotted paths"),
    _conf.PRUNERS: ((list, tuple), "a list of dotted paths"),
    _conf.SECTIONS: (dict, "a dict of names and dotted paths"),
}

_BASES: Final[dict[str, type]] = {
    _conf.AUTHENTICATORS: BaseAuthenticator,
    _conf.POLICIES: BasePolicy,
    _conf.SECTIONS: _conf.Section,
}

#: The keys whose defaults have what apps name in an attribute, and the ids of their errors.
_LISTS: Final = (
    ("AUTHENTICATION", _conf.AUTHENTICATORS, "ollama_openai.E003"),
    ("POLICIES", _conf.POLICIES, "ollama_openai.E010"),
)


def _unusable(path: str, base: type) -> str | None:
    try:
        named = import_string(path)
    except Exception as error:
        return f"cannot be imported: {error}"
    if isinstance(named, type) and issubclass(named, base):
        return None
    return f"is not a subclass of {base.__name__}"


@register(Tags.compatibility)
def check_engines(**kwargs: Any) -> list[CheckMessage]:
    """Check that the engine of each backend is ready, in ``check`` and ``runserver``."""
    if sys.argv[1:2] not in COMMANDS or _conf.problems():
        return []
    pings = {alias: backend.ping for alias, backend in _engines()}
    late = f"It did not answer within {ENGINES_WITHIN_SECONDS} seconds."
    reasons: dict[str, str | None] = dict.fromkeys(pings, late)
    for alias, error in fan_out(pings, ENGINES_WITHIN_SECONDS):
        reasons[alias] = None if error is None else _reason(error, alias)
    return [
        Warning(
            f"{_conf.SETTING}: the backend {alias!r} is not ready. {reason}",
            hint="Run 'manage.py ollama status' for details.",
            id="ollama_openai.W005",
        )
        for alias, reason in reasons.items()
        if reason is not None
    ]


def _engines() -> Iterator[tuple[str, BaseBackend]]:
    for alias in backends:
        # Another check reports backends that cannot be created.
        with suppress(InvalidBackendError):
            if backends[alias].engines() == (alias,):
                yield alias, backends[alias]


def _reason(error: Exception, alias: str) -> str:
    if isinstance(error, GatewayError):
        return describe_failure(error, alias)
    return f"{type(error).__name__}: {error}"


@register(Tags.urls)
def check_mounts(**kwargs: Any) -> list[CheckMessage]:
    """Check the extra arguments of every ``include()`` of the app's urls."""
    if _conf.problems():
        return []
    return [
        message
        for path, own, inherited in _mounts(get_resolver().url_patterns, "", {})
        for message in _check_mount(f"The mount of {URLS} at {path!r}", own, inherited)
    ]


@register(Tags.urls)
def check_paths(**kwargs: Any) -> list[CheckMessage]:
    """Check that no app has a path that another app has, or that leads to the gateway itself. A
    route that is equal to one of the gateway's replaces it."""
    # Imported late, because that imports the views of all apps.
    from .urls import gateway_patterns, optional_endpoints, routes

    known: list[tuple[str, URLPattern | URLResolver]]
    known = [("django_ollama_openai", pattern) for pattern in gateway_patterns()]
    messages: list[CheckMessage] = []
    for app, patterns in optional_endpoints():
        for path in routes(patterns):
            owner = next((name for name, one in known if _matches(one, path)), None)
            if owner is not None:
                messages.append(
                    Error(
                        f"The app {app.name!r} has the path {path!r} below every mount of {URLS}, "
                        f"which {owner!r} has, too.",
                        hint="The first that is installed answers it.",
                        id="ollama_openai.E009",
                    )
                )
        known += [(app.name, pattern) for pattern in patterns]
    return messages


_ARGUMENT: Final = re.compile(r"<(?:(\w+):)?\w+>")
_SAMPLES: Final = {"int": "1", "uuid": "00000000-0000-0000-0000-000000000000"}


def _matches(pattern: URLPattern | URLResolver, route: str) -> bool:
    """Return whether ``pattern`` matches an example of ``route``, with or without a slash at its
    end."""
    example = _ARGUMENT.sub(lambda match: _SAMPLES.get(match[1], "x"), route)
    for path in (example, example.removesuffix("/")):
        with suppress(Resolver404):
            if pattern.resolve(path) is not None:
                return True
    return False


def _mounts(
    patterns: list[URLPattern | URLResolver], prefix: str, inherited: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield each mount's path, its own extra arguments, and those of the includes around it."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            path, own = f"{prefix}{pattern.pattern}", pattern.default_kwargs
            if getattr(pattern.urlconf_module, "__name__", None) == URLS:
                yield path, own, inherited
            else:
                yield from _mounts(pattern.url_patterns, path, {**inherited, **own})


def _check_mount(
    mount: str, own: dict[str, Any], inherited: dict[str, Any]
) -> Iterator[CheckMessage]:
    # The arguments of an include around it may be meant for other views.
    for option in own:
        if option not in OPTIONS:
            yield Error(
                f"{mount} has the unknown option {option!r}.",
                hint=f"Use {' or '.join(repr(known) for known in OPTIONS)}.",
                id="ollama_openai.E005",
            )
    options = {**inherited, **own}
    if "case" in options and options["case"] not in get_args(Case):
        yield Error(
            f"{mount} has the case {options['case']!r}.",
            hint=f"Use {', '.join(repr(case) for case in get_args(Case))}.",
            id="ollama_openai.E005",
        )
    backend = options.get("backend", _conf.DEFAULT_BACKEND)
    if not isinstance(backend, str) or backend not in _conf.get().BACKENDS:
        yield Error(
            f"{mount} has the backend {backend!r}, which is not in BACKENDS.",
            hint=_aliases(),
            id="ollama_openai.E004",
        )


def _aliases() -> str:
    return "There are " + ", ".join(repr(alias) for alias in backends) + "."
