"""The app's settings: one dict, ``OLLAMA_OPENAI``, typed, read lazily.

:func:`get` returns the current values. They are read again after ``setting_changed``, so that
``override_settings`` works in a site's tests.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from ._wire.case import Case

__all__ = [
    "ANY_ORIGIN",
    "AUTHENTICATORS",
    "COMMANDS",
    "DEFAULT_BACKEND",
    "ENDPOINTS",
    "POLICIES",
    "PRUNERS",
    "SECTIONS",
    "SETTING",
    "APIKey",
    "BackendConfig",
    "Limits",
    "ModelConfig",
    "Section",
    "Settings",
    "get",
    "is_pattern",
    "make",
    "named_by_apps",
    "plain_reason",
    "problems",
    "reasons",
    "section",
    "section_models",
]

T = TypeVar("T")

SETTING = "OLLAMA_OPENAI"
DEFAULT_BACKEND = "default"
ANY_ORIGIN: Final = "*"

#: The attributes by which the ``AppConfig`` of an app names what it brings: nothing if ``None``.
AUTHENTICATORS: Final = "ollama_openai_authenticators"
COMMANDS: Final = "ollama_openai_commands"
ENDPOINTS: Final = "ollama_openai_urls"
POLICIES: Final = "ollama_openai_policies"
PRUNERS: Final = "ollama_openai_pruners"
SECTIONS: Final = "ollama_openai_settings"

_STATIC_KEYS: Final = ("django_ollama_openai.auth.StaticKeyAuthenticator",)
_SESSION: Final = ("django_ollama_openai.auth.SessionAuthenticator",)


class Section(BaseModel):
    """The base of typed sections of ``OLLAMA_OPENAI``: immutable, and without unknown keys."""

    # Not strict: tuples pass for lists, and values from the environment for numbers.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class BackendConfig(Section):
    """One entry of ``BACKENDS``."""

    BACKEND: str = Field(
        "django_ollama_openai.backends.OllamaBackend",
        description="Dotted path of the backend class.",
    )
    HOST: str | None = Field(None, description="The constructor's `host`.", repr=False)
    BASE_URL: str | None = Field(None, description="The constructor's `base_url`.", repr=False)
    OPTIONS: dict[str, Any] = Field(
        default_factory=dict, description="Further keywords of the constructor.", repr=False
    )
    MAX_CONCURRENCY: int | None = Field(None, ge=1, description="Overrides the top-level key.")
    QUEUE_TIMEOUT: float | None = Field(None, gt=0, description="Overrides the top-level key.")
    MAX_QUEUE: int | None = Field(None, ge=0, description="Overrides the top-level key.")

    def keywords(self) -> dict[str, Any]:
        """Return the keywords for the constructor of the backend."""
        named = {"host": self.HOST, "base_url": self.BASE_URL}
        return {**self.OPTIONS, **{name: value for name, value in named.items() if value}}


class ModelConfig(Section):
    """One entry of ``MODELS``."""

    MODEL: str | None = Field(
        None, description="The engine's name of the model; the public name if absent."
    )
    BACKEND: str | None = Field(
        None, description="Alias of the backend; the mount's backend if absent."
    )
    OPTIONS: dict[str, Any] = Field(
        default_factory=dict,
        description="Engine options for this model, such as `num_ctx`; those of a request win.",
    )
    FALLBACKS: list[str] = Field(
        default_factory=list,
        description="Public names of models to try in this order, if this one fails before the "
        "first piece of its answer; then their own fallbacks.",
    )


_NO_MODEL: Final = ModelConfig()

_SENDABLE: Final = re.compile(r"[!-~]+")


class APIKey(Section):
    """One entry of ``API_KEYS`` that has a name."""

    KEY: str = Field(repr=False, description="The secret.")
    NAME: str = Field("", description="Name of the caller in signals and logs.")

    @field_validator("KEY")
    @classmethod
    def _check_key(cls, value: str) -> str:
        # os.environ.get("AI_KEY", "") in a site's settings must not admit all callers.
        if not value:
            raise ValueError("The key is empty; set the environment variable that it comes from")
        if not _SENDABLE.fullmatch(value):
            raise ValueError("The key may only have visible ASCII characters, and no spaces")
        return value


@dataclass(slots=True, frozen=True)
class Limits:
    """The limits on the use of a backend: the keys with these names."""

    max_concurrency: int | None
    queue_timeout: float
    max_queue: int


def _first(own: T | None, general: T) -> T:
    return general if own is None else own


_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)"
    r"(:(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def _origin(value: str) -> str:
    """Return ``value`` as browsers write an origin: in lower case, without the default port.

    Raises:
        ValueError: It is not an origin.
    """
    if value == ANY_ORIGIN:
        return value
    match = _ORIGIN.fullmatch(value.lower())
    if match is None:
        raise ValueError(
            "An origin is a scheme, a host and at most a port, such as 'https://app.example', "
            f"without a slash at the end; {ANY_ORIGIN!r} stands for all origins"
        )
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


class Settings(Section):
    """All keys of ``OLLAMA_OPENAI`` with their defaults."""

    HOST: str | None = Field(
        None,
        description="Address of Ollama: short for `HOST` of the `default` backend. If neither is "
        "set, `$OLLAMA_HOST`, then `http://127.0.0.1:11434`.",
        repr=False,
    )
    BACKENDS: dict[str, BackendConfig] = Field(
        default_factory=dict,
        description="The engines: alias → `BACKEND`, `HOST` or `BASE_URL`, `OPTIONS`. If it is "
        "empty or the top-level `HOST` is set, there is also an Ollama called `default`.",
        validate_default=True,
        repr=False,
    )
    DEFAULT_MODEL: str | None = Field(
        None,
        description="Model of requests that name none. Without one that the caller may use, such a "
        "request is a 400.",
    )
    MODELS: dict[str, ModelConfig] = Field(
        default_factory=dict,
        description="Model aliases: name or pattern → `MODEL`, `BACKEND`, `OPTIONS`, `FALLBACKS`.",
    )
    ALLOWED_MODELS: list[str] | None = Field(
        None,
        description="Patterns of the public names that clients may use; others are a 404 and not "
        "listed. `None` allows all.",
    )
    AUTHENTICATION: list[str] = Field(
        default_factory=lambda: [*_STATIC_KEYS, *named_by_apps(AUTHENTICATORS), *_SESSION],
        description="Dotted paths of the authenticators, in the order in which they are tried. "
        "The default also has those of installed apps, before the session's.",
    )
    POLICIES: list[str] = Field(
        default_factory=lambda: named_by_apps(POLICIES),
        description="Dotted paths of the policies, in the order in which they are called: the last "
        "gate of a request, such as for limits. The default has those of installed apps.",
    )
    API_KEYS: list[APIKey] = Field(
        default_factory=list,
        description='API keys: strings, or `{"KEY": …, "NAME": …}`.',
        repr=False,
    )
    ALLOW_ANONYMOUS: bool = Field(
        False,
        strict=True,
        description="Whether to answer requests that no authenticator recognises.",
    )
    RESPONSE_CASE: Case = Field(
        "both", description="Spelling of the responses: `both`, `snake` or `camel`."
    )
    UNSUPPORTED_PARAMETERS: Literal["reject", "ignore"] = Field(
        "reject",
        description="Treatment of parameters that would change the answer and that the backend "
        "does not support: `reject` answers 400 and names them, `ignore` drops them and names them "
        "in the `x-ignored-parameters` header.",
    )
    MAX_BODY_BYTES: int = Field(
        32 * 2**20,
        ge=1,
        description="The largest body that is accepted, in bytes, once it is decoded; a larger one "
        "is a 413.",
    )
    MAX_PROMPT_CHARACTERS: int = Field(
        4_000_000,
        ge=1,
        description="Maximum text of a request, in characters: all messages, prompts or inputs "
        "together, without images and audio. More is a 400.",
    )
    MAX_CHOICES: int = Field(
        32,
        ge=1,
        description="Maximum number of choices of a request: `n`, times the number of prompts. "
        "Each is a request to the engine, and they run at the same time.",
    )
    MAX_CONCURRENCY: int | None = Field(
        None,
        ge=1,
        description="Number of requests that each backend works on at once, in each process; "
        "further ones wait. `None` means no limit.",
    )
    QUEUE_TIMEOUT: float = Field(
        10,
        gt=0,
        description="Maximum time that a request waits in the queue, in seconds; then it is a 503.",
    )
    MAX_QUEUE: int = Field(
        500,
        ge=0,
        description="Maximum number of requests that wait for a backend; a further one is a 503.",
    )
    STREAM_KEEPALIVE_SECONDS: float = Field(
        15, gt=0, description="Seconds of silence after which a stream gets a `: ping` comment."
    )
    CLIENT_TIMEOUT: float = Field(
        60,
        gt=0,
        le=86_400,
        description="Seconds that a client may read nothing of a stream while all buffers are "
        "full; then the stream ends and the engine is free.",
    )
    CORS_ORIGINS: list[Annotated[str, AfterValidator(_origin)]] = Field(
        default_factory=list,
        description="Origins whose pages may call the gateway with a key, such as "
        '`"https://app.example"`; `["*"]` allows all. Cookies of a session are never accepted '
        "from other origins.",
    )
    LOG_ENGINE_ERRORS: bool = Field(
        False,
        strict=True,
        description="Whether the log includes an engine's own messages about its failures. They "
        "may name files and hosts, or quote a request. Clients never see them.",
    )
    REMOTE_IMAGES: bool = Field(
        False,
        description="Whether `image_url` may be an http(s) address, which the site fetches: public "
        "addresses only, within limits on size, time, redirects and type.",
    )

    RESPONSE_STORE: str | None = Field(
        None,
        description="Dotted path of the class that stores responses for `store` and "
        "`previous_response_id`. If absent, nothing is stored.",
    )

    @field_validator("BACKENDS")
    @classmethod
    def _add_default_backend(
        cls, value: dict[str, BackendConfig], info: ValidationInfo
    ) -> dict[str, BackendConfig]:
        host = info.data.get("HOST")
        if value and not host:
            return value
        default = value.get(DEFAULT_BACKEND, BackendConfig())
        if host and not default.HOST:
            default = default.model_copy(update={"HOST": host})
        return {**value, DEFAULT_BACKEND: default}

    @field_validator("API_KEYS", mode="before")
    @classmethod
    def _expand_strings(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return [{"KEY": entry} if isinstance(entry, str) else entry for entry in value]

    def limits(self, alias: str) -> Limits:
        """Return the limits of the backend ``alias``, which has an entry in ``BACKENDS``."""
        entry = self.BACKENDS[alias]
        return Limits(
            _first(entry.MAX_CONCURRENCY, self.MAX_CONCURRENCY),
            _first(entry.QUEUE_TIMEOUT, self.QUEUE_TIMEOUT),
            _first(entry.MAX_QUEUE, self.MAX_QUEUE),
        )

    def model(self, name: str) -> ModelConfig:
        """Return the entry of ``MODELS`` for the public name ``name``, by default an empty one."""
        key = self.model_key(name)
        return _NO_MODEL if key is None else self.MODELS[key]

    def model_key(self, name: str) -> str | None:
        """Return the key in ``MODELS`` for the public name ``name``: the name itself, or the first
        pattern that matches it; ``None`` if there is none."""
        if name in self.MODELS:
            return name
        return next((key for key in self._patterns if fnmatchcase(name, key)), None)

    @functools.cached_property
    def _patterns(self) -> list[str]:
        return [key for key in self.MODELS if is_pattern(key)]

    def allows_model(self, name: str) -> bool:
        """Return whether ``ALLOWED_MODELS`` allows the public name ``name``."""
        patterns = self.ALLOWED_MODELS
        return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def is_pattern(name: str) -> bool:
    """Return whether ``name``, a key of ``MODELS``, is a glob pattern."""
    return any(character in name for character in "*?[")


def named_by_apps(attribute: str) -> list[str]:
    """Return the dotted paths that the installed apps list in ``attribute`` of their configs."""
    paths: list[str] = []
    for app in apps.get_app_configs():
        named = getattr(app, attribute, None)
        if isinstance(named, (list, tuple)):
            paths += named
        elif named is not None:
            # A system check reports it. Without that, the site must not run without a policy that
            # it should have: what is no path cannot be imported.
            paths.append(named)
    return paths


def section_models() -> dict[str, type[Section]]:
    """Return the models of the sections that installed apps add, by name.

    Those that cannot be used are left out: a system check reports them.
    """
    models: dict[str, type[Section]] = {}
    for app in apps.get_app_configs():
        sections = getattr(app, SECTIONS, None)
        for name, path in sections.items() if isinstance(sections, dict) else ():
            with suppress(Exception):
                model = import_string(path)
                if issubclass(model, Section) and name not in Settings.model_fields:
                    models.setdefault(name, model)
    return models


def problems() -> list[tuple[str, str]]:
    """Return the mistakes in ``OLLAMA_OPENAI``: pairs of the key's path and the reason."""
    return _read().problems


def plain_reason(item: ErrorDetails) -> str:
    """Return pydantic's message about ``item`` without its prefix for errors of validators."""
    return item["msg"].removeprefix("Value error, ")


def reasons(
    error: ValidationError, reason: Callable[[ErrorDetails], str] = plain_reason
) -> list[tuple[str, str]]:
    """Return the mistakes in a configuration: pairs of the path and the reason."""
    # Inputs are left out: they may be secrets.
    return [
        (".".join(str(step) for step in item["loc"]), reason(item))
        for item in error.errors(include_url=False, include_input=False)
    ]


def get() -> Settings:
    """Return the current settings.

    Raises:
        ImproperlyConfigured: ``OLLAMA_OPENAI`` is not valid.
    """
    values = _read()
    if values.problems:
        path, reason = values.problems[0]
        where = f"{SETTING}[{path!r}]" if path else SETTING
        raise ImproperlyConfigured(f"{where}: {reason}.") from None
    return values.settings


def section(name: str) -> Any:
    """Return the section ``name`` of ``OLLAMA_OPENAI``, which an installed app has added: an
    instance of its model, with the defaults of what the site does not set.

    Raises:
        ImproperlyConfigured: ``OLLAMA_OPENAI`` is not valid, or no installed app has the section.
    """
    get()
    try:
        return _read().sections[name]
    except KeyError:
        raise ImproperlyConfigured(f"{SETTING} has no section {name!r}.") from None


def make(path: str, base: type[T], key: str) -> T:
    """Return the only instance of the class at ``path``, which ``key`` of the setting names.

    Raises:
        ImproperlyConfigured: There is no such class, it cannot be created, or it is not a subclass
            of ``base``.
    """
    where = f"{SETTING}[{key!r}]"
    try:
        # Several threads may need it first at the same time, and it may have state.
        with _creating:
            instance = _create(path)
    except Exception as error:
        raise ImproperlyConfigured(f"{where}: could not create {path!r}: {error}.") from error
    if not isinstance(instance, base):
        raise ImproperlyConfigured(f"{where}: {path!r} is not a subclass of {base.__name__}.")
    return instance


_creating = threading.RLock()


@functools.cache
def _create(path: str) -> object:
    return import_string(path)()


@dataclass(slots=True)
class _Values:
    """The content of ``OLLAMA_OPENAI``; ``settings`` has the defaults if there are problems."""

    settings: Settings
    sections: dict[str, Section]
    problems: list[tuple[str, str]]


@functools.cache
def _read() -> _Values:
    configured = getattr(settings, SETTING, {})
    models = section_models()
    values = _Values(Settings.model_construct(), {}, [])
    own = configured
    if isinstance(configured, dict):
        own = {key: value for key, value in configured.items() if key not in models}
        for name, model in models.items():
            try:
                values.sections[name] = model.model_validate(configured.get(name, {}))
            except ValidationError as error:
                mistakes = reasons(error, partial(_reason, model=model))
                values.problems += [
                    (f"{name}.{path}".rstrip("."), reason) for path, reason in mistakes
                ]
    try:
        values.settings = Settings.model_validate(own)
    except ValidationError as error:
        values.problems[:0] = reasons(
            error, partial(_reason, model=Settings, further=tuple(models))
        )
    return values


def _reason(item: ErrorDetails, model: type[BaseModel], further: tuple[str, ...] = ()) -> str:
    if item["type"] not in ("extra_forbidden", "model_type"):
        return plain_reason(item)
    path = item["loc"][:-1] if item["type"] == "extra_forbidden" else item["loc"]
    table = _table_at(model, path) or model
    known = ", ".join([*table.model_fields, *(further if table is model else ())])
    if item["type"] == "model_type":
        return f"This should be a dict with some of the keys {known}"
    return f"This key is unknown; there are {known}"


def _table_at(annotation: Any, path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the model that stands at ``path`` within ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not path:
            return annotation
        field = annotation.model_fields.get(str(path[0]))
        return None if field is None else _table_at(field.annotation, path[1:])
    # Elements of lists and dicts have a step of their own, alternatives have none.
    rest = path[1:] if get_origin(annotation) in (list, dict) else path
    tables = (_table_at(each, rest) for each in get_args(annotation))
    return next((table for table in tables if table is not None), None)


def _reread(*, setting: str, **kwargs: Any) -> None:
    if setting in (SETTING, "INSTALLED_APPS"):
        _read.cache_clear()
        # With their state: what one test has counted is not for the next.
        _create.cache_clear()


setting_changed.connect(_reread, dispatch_uid="django_ollama_openai._conf")
