"""The system checks: each id, what its message names, and when it keeps quiet."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from django.apps import apps
from django.core.checks import ERROR, WARNING, CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from pydantic import Field

from django_ollama_openai import _conf, checks, endpoints
from django_ollama_openai._gateway.policy import policies
from django_ollama_openai.auth import BaseAuthenticator, Caller
from django_ollama_openai.backends import DummyBackend
from django_ollama_openai.endpoints import Endpoint
from django_ollama_openai.policies import BasePolicy

if TYPE_CHECKING:
    import pytest_django
    from pytest_django import Settings

GATEWAY = "django_ollama_openai.urls"
DUMMY = "django_ollama_openai.backends.DummyBackend"
OPENAI = "django_ollama_openai.backends.OpenAIBackend"
STATIC = "django_ollama_openai.auth.StaticKeyAuthenticator"
SESSION = "django_ollama_openai.auth.SessionAuthenticator"
HERE = __name__
SECRET = "sk-very-secret"
URL = f"http://user:{SECRET}@gpu-1:11434"


@pytest.fixture(scope="module", autouse=True)
def json_support(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> None:
    """Let Django find out whether the database has JSON, as its check of the notes' fields does."""
    with django_db_blocker.unblock():
        assert connection.features.supports_json_field


class NeedsArguments(BaseAuthenticator):
    def __init__(self, key: str) -> None:
        self.key = key


class NoAuthenticator:
    pass


class Lenient(BasePolicy):
    def admit(self, admission: Any) -> None:
        return None


class Nobody(BaseAuthenticator):
    def authenticate(self, request: HttpRequest) -> Caller | None:
        return None


class Hostless(DummyBackend):
    def __init__(self, *, alias: str) -> None:
        super().__init__(alias=alias)


class ClosesLoudly(DummyBackend):
    """Shows that what a check makes is closed again."""

    open = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        type(self).open += 1

    def close(self) -> None:
        type(self).open -= 1


def found(settings: Settings, options: Any) -> list[CheckMessage]:
    settings.OLLAMA_OPENAI = options
    return checks.check_settings()


def mounted(settings: Settings, *patterns: Any) -> list[CheckMessage]:
    settings.ROOT_URLCONF = patterns
    return checks.check_mounts()


def text(message: CheckMessage) -> str:
    return f"{message.msg} {message.hint or ''}"


FINE: list[dict[str, Any]] = [
    {},
    {"HOST": URL, "API_KEYS": [SECRET]},
    {"AUTHENTICATION": [STATIC], "API_KEYS": [SECRET]},
    {"AUTHENTICATION": [STATIC], "ALLOW_ANONYMOUS": True},
    {"AUTHENTICATION": [], "ALLOW_ANONYMOUS": True},
    {"AUTHENTICATION": [SESSION]},
    {"BACKENDS": {"d": {"BACKEND": DUMMY, "OPTIONS": {"replies": ["x"]}}}},
    {"BACKENDS": {"d": {"BACKEND": DUMMY}}, "MODELS": {"m": {"BACKEND": "d"}, "n": {}}},
    {"MODELS": {"m": {"BACKEND": "default"}}},
    {"DEFAULT_MODEL": "llama3.2", "ALLOWED_MODELS": ["llama*"]},
    {"DEFAULT_MODEL": "llama3.2"},
    {"MODELS": {"a": {"FALLBACKS": ["b", "c"]}, "b": {"FALLBACKS": ["c"]}, "c": {}}},
    {"MODELS": {"gpt-*": {"FALLBACKS": ["llama3.2"]}, "llama3.2": {"FALLBACKS": ["tiny"]}}},
    # As many ways through as could never be gone one by one.
    {
        "MODELS": {
            f"m{number}": {"FALLBACKS": [f"m{other}" for other in range(number + 1, 60)]}
            for number in range(60)
        }
    },
    {"ALLOWED_MODELS": ["llama*"]},
    {"REMOTE_IMAGES": True},
    {"BACKENDS": {"o": {"BACKEND": OPENAI, "BASE_URL": "http://gpu-1:8000/v1"}}},
    {
        "BACKENDS": {
            "o": {
                "BACKEND": OPENAI,
                "BASE_URL": "https://gpu-1/v1/",
                "OPTIONS": {
                    "api_key": SECRET,
                    "unsupported_parameters": ["tool_choice"],
                    "timeout": 5,
                },
            }
        }
    },
    {"MAX_CONCURRENCY": 1},
    {"QUEUE_TIMEOUT": 60},
    {"MAX_CONCURRENCY": 1, "QUEUE_TIMEOUT": 60, "STREAM_KEEPALIVE_SECONDS": 61},
    {"BACKENDS": {"b": {"MAX_CONCURRENCY": 1, "QUEUE_TIMEOUT": 1}}, "QUEUE_TIMEOUT": 60},
]

LOOPED = {"FALLBACKS": ["a"]}

WRONG: list[tuple[dict[str, Any], str, int, list[str]]] = [
    # the setting, the id, its level, what the message and its hint name
    ({"HOTS": URL}, "E001", ERROR, ["HOTS", "HOST, BACKENDS, DEFAULT_MODEL"]),
    ({"RESPONSE_CASE": "kebab"}, "E001", ERROR, ["RESPONSE_CASE", "'both', 'snake' or 'camel'"]),
    ({"UNSUPPORTED_PARAMETERS": "drop"}, "E001", ERROR, ["UNSUPPORTED_PARAMETERS", "'ignore'"]),
    ({"MAX_BODY_BYTES": 0}, "E001", ERROR, ["MAX_BODY_BYTES", "greater than or equal to 1"]),
    ({"API_KEYS": [SECRET, ""]}, "E001", ERROR, ["API_KEYS", "empty"]),
    ({"API_KEYS": SECRET}, "E001", ERROR, ["API_KEYS", "list"]),
    ({"CORS_ORIGINS": ["*/"]}, "E001", ERROR, ["CORS_ORIGINS.0", "'https://app.example'"]),
    ({"BACKENDS": {"b": {"HOTS": URL}}}, "E001", ERROR, ["BACKENDS.b.HOTS"]),
    (
        {"BACKENDS": {"b": {"OPTIONS": {"tiemout": SECRET}}}},
        "E002",
        ERROR,
        [
            "['BACKENDS']['b']",
            "'tiemout'",
            "OllamaBackend does not take",
            "but HOST, max_num_ctx, headers",
            "timeout",
        ],
    ),
    (
        {"HOST": URL, "BACKENDS": {"default": {"BACKEND": f"{HERE}.Hostless"}}},
        "E002",
        ERROR,
        ["['BACKENDS']['default']", "'HOST'", "OLLAMA_OPENAI['HOST']"],
    ),
    ({"BACKENDS": {"b": {"BACKEND": "no.Way"}}}, "E002", ERROR, ["['b']['BACKEND']", "no.Way"]),
    (
        {"BACKENDS": {"b": {"BACKEND": f"{HERE}.NoAuthenticator"}}},
        "E002",
        ERROR,
        ["['b']['BACKEND']", "not a subclass of BaseBackend"],
    ),
    ({"BACKENDS": {"b": {"BACKEND": DUMMY, "HOST": URL}}}, "E002", ERROR, ["['b']", "'HOST'"]),
    ({"BACKENDS": {"o": {"BACKEND": OPENAI}}}, "E002", ERROR, ["['BACKENDS']['o']", "base_url"]),
    (
        {"BACKENDS": {"o": {"BACKEND": OPENAI, "HOST": URL}}},
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "base_url: it is missing; set BASE_URL"],
    ),
    (
        {"BACKENDS": {"o": {"BACKEND": OPENAI, "BASE_URL": f"{URL}/v1"}}},
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "base_url", "'api_key' or 'headers'"],
    ),
    (
        {"BACKENDS": {"o": {"BACKEND": OPENAI, "BASE_URL": "http://gpu-1/v1/embeddings"}}},
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "base_url", "Leave the endpoint out"],
    ),
    (
        {"BACKENDS": {"o": {"BACKEND": OPENAI, "BASE_URL": f"http://gpu-1/v1?key={SECRET}"}}},
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "base_url", "no '?'"],
    ),
    (
        {
            "BACKENDS": {
                "o": {
                    "BACKEND": OPENAI,
                    "BASE_URL": "http://gpu-1/v1",
                    "OPTIONS": {"api_key": f"{SECRET}\n"},
                }
            }
        },
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "api_key", "no line ends"],
    ),
    (
        {
            "BACKENDS": {
                "o": {
                    "BACKEND": OPENAI,
                    "BASE_URL": "http://gpu-1/v1",
                    "OPTIONS": {"api_key": ""},
                }
            }
        },
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "api_key", "empty"],
    ),
    (
        {
            "BACKENDS": {
                "o": {
                    "BACKEND": OPENAI,
                    "BASE_URL": "http://gpu-1/v1",
                    "OPTIONS": {"unsupported_parameters": ["tool-choice"]},
                }
            }
        },
        "E002",
        ERROR,
        ["['BACKENDS']['o']", "unsupported_parameters", "'tool-choice'", "tool_choice"],
    ),
    ({"POLICIES": ["no.Way"]}, "E010", ERROR, ["['POLICIES']", "no.Way"]),
    ({"AUTHENTICATION": ["no.Way"]}, "E003", ERROR, ["['AUTHENTICATION']", "no.Way"]),
    (
        {"AUTHENTICATION": [f"{HERE}.NeedsArguments"]},
        "E003",
        ERROR,
        ["['AUTHENTICATION']", "NeedsArguments", "'key'"],
    ),
    (
        {"AUTHENTICATION": [STATIC, f"{HERE}.NoAuthenticator"]},
        "E003",
        ERROR,
        ["NoAuthenticator", "not a subclass of BaseAuthenticator"],
    ),
    (
        {"MODELS": {"m": {"BACKEND": "gone"}}, "BACKENDS": {"d": {"BACKEND": DUMMY}}},
        "E004",
        ERROR,
        ["['MODELS']['m']['BACKEND']", "'gone'", "'d'"],
    ),
    (
        {"MODELS": {"a": {"FALLBACKS": ["b"]}, "b": {"FALLBACKS": ["x", "c"]}, "c": LOOPED}},
        "E007",
        ERROR,
        ["['MODELS']['a']['FALLBACKS']", "'a' -> 'b' -> 'c' -> 'a'"],
    ),
    ({"MODELS": {"a": {"FALLBACKS": ["a"]}}}, "E007", ERROR, ["['a']", "'a' -> 'a'"]),
    ({"MODELS": {"m": {}, "a*": {"FALLBACKS": ["m", "ab"]}}}, "E007", ERROR, ["'a*' -> 'a*'"]),
    ({"MODELS": {"m": {"FALLBACKS": ["gpt-*"]}}}, "E007", ERROR, ["'gpt-*'", "pattern"]),
    ({"RESPONSE_STORE": "no.Way"}, "E006", ERROR, ["RESPONSE_STORE", "'no.Way'"]),
    ({"RESPONSE_STORE": STATIC}, "E006", ERROR, ["not a subclass of BaseResponseStore"]),
    ({"AUTHENTICATION": []}, "W001", WARNING, ["API_KEYS", "AUTHENTICATION", "ALLOW_ANONYMOUS"]),
    ({"AUTHENTICATION": [STATIC]}, "W001", WARNING, ["admits no callers", "API_KEYS"]),
    (
        {"DEFAULT_MODEL": "qwen3", "ALLOWED_MODELS": ["llama*"]},
        "W002",
        WARNING,
        ["DEFAULT_MODEL", "'qwen3'", "ALLOWED_MODELS"],
    ),
    (
        {"AUTHENTICATION": [SESSION], "API_KEYS": [SECRET]},
        "W003",
        WARNING,
        ["API_KEYS", "no effect", "StaticKeyAuthenticator"],
    ),
    (
        {"MAX_CONCURRENCY": 1, "QUEUE_TIMEOUT": 15},
        "W004",
        WARNING,
        ["'default'", "QUEUE_TIMEOUT", "STREAM_KEEPALIVE_SECONDS", "15"],
    ),
    (
        {"BACKENDS": {"a": {}, "b": {"MAX_CONCURRENCY": 1}}, "STREAM_KEEPALIVE_SECONDS": 5},
        "W004",
        WARNING,
        ["'b'", "QUEUE_TIMEOUT is 10", "STREAM_KEEPALIVE_SECONDS 5"],
    ),
]


@pytest.mark.parametrize("options", FINE)
def test_a_valid_configuration_has_no_messages(settings: Settings, options: dict[str, Any]) -> None:
    assert found(settings, options) == []


@pytest.mark.parametrize(("options", "id", "level", "named"), WRONG)
def test_each_mistake_is_reported(
    settings: Settings, options: dict[str, Any], id: str, level: int, named: list[str]
) -> None:
    (message,) = found(settings, options)
    assert message.id == f"ollama_openai.{id}"
    assert message.level == level
    assert message.msg.startswith("OLLAMA_OPENAI")
    assert [name for name in named if name not in text(message)] == []
    assert SECRET not in text(message)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"BACKENDS": {"b": {"HOTS": "x"}}}, ["BACKEND", "HOST", "BASE_URL", "OPTIONS"]),
        ({"MODELS": {"m": {"MODLE": "x"}}}, ["MODEL", "BACKEND", "OPTIONS"]),
        ({"API_KEYS": [{"KEY": "k", "NAEM": "x"}]}, ["KEY", "NAME"]),
    ],
)
def test_an_unknown_key_of_an_entry_is_named_with_those_that_are_allowed(
    settings: Settings, options: dict[str, Any], allowed: list[str]
) -> None:
    told = " ".join(text(message) for message in found(settings, options))
    assert [key for key in allowed if not re.search(rf"\b{key}\b", told)] == []


@pytest.mark.parametrize(
    "options",
    [
        {"HOST": "http://gpu-1:port"},
        {"HOST": "http://[::1"},
        {"HOST": "ftp://gpu-1"},
        {"HOST": "http://"},
        {"HOST": "http://gpu-1:11434/v1"},
        {"HOST": "http://gpu-1:11434/api/"},
        {"BACKENDS": {"default": {"OPTIONS": {"timeout": 0}}}},
        {"BACKENDS": {"default": {"OPTIONS": {"headers": {"X-Key": 5}}}}},
        {"BACKENDS": {"default": {"BACKEND": DUMMY, "OPTIONS": {"replies": "Hello"}}}},
        {"BACKENDS": {"default": {"OPTIONS": {"timeout": "soon"}}}},
    ],
)
def test_a_bad_value_for_a_backend_is_found_at_start_up(
    settings: Settings, options: dict[str, Any]
) -> None:
    (message,) = found(settings, options)
    assert message.id == "ollama_openai.E002"
    # What pydantic puts before a reason helps nobody.
    assert "Value error" not in message.msg


@pytest.mark.parametrize("options", [None, SECRET, [("HOST", URL)], 5])
def test_a_setting_that_is_no_dict_is_an_error(settings: Settings, options: Any) -> None:
    (message,) = found(settings, options)
    assert message.id == "ollama_openai.E001"
    assert "OLLAMA_OPENAI" in message.msg
    assert "This should be a dict" in message.msg
    assert SECRET not in text(message)
    # The other check has nothing to add, and does not crash.
    assert checks.check_mounts() == []


def test_all_mistakes_are_reported_at_once(settings: Settings) -> None:
    messages = found(
        settings,
        {
            "BACKENDS": {"a": {"BACKEND": "no.Way"}, "b": {"BACKEND": "no.Way"}},
            "AUTHENTICATION": ["no.Way"],
            "MODELS": {"m": {"BACKEND": "c"}, "n": {"BACKEND": "d"}},
            "DEFAULT_MODEL": "qwen3",
            "ALLOWED_MODELS": [],
        },
    )
    ids = ["E002", "E002", "E003", "E004", "E004", "W002"]
    assert [message.id for message in messages] == [f"ollama_openai.{id}" for id in ids]


def test_what_a_check_makes_is_closed(settings: Settings) -> None:
    assert found(settings, {"BACKENDS": {"a": {"BACKEND": f"{HERE}.ClosesLoudly"}}}) == []
    assert ClosesLoudly.open == 0


def test_a_host_is_named_only_if_it_is_the_mistake(settings: Settings) -> None:
    options = {"HOST": URL, "BACKENDS": {"default": {"OPTIONS": {"tiemout": 1}}}}
    (message,) = found(settings, {"ALLOW_ANONYMOUS": True, **options})
    assert "'tiemout'" in message.msg
    assert "['HOST']" not in message.msg


def test_every_id_of_the_table_is_tested() -> None:
    listed = {
        line.split("``")[1] for line in (checks.__doc__ or "").splitlines() if "``oll" in line
    }
    tested = {f"ollama_openai.{row[1]}" for row in WRONG}
    elsewhere = {f"ollama_openai.{id}" for id in ("E005", "E008", "E009", "W005", "W006")}
    assert listed == tested | elsewhere


@pytest.mark.parametrize(
    ("command", "count"), [("check", 2), ("runserver", 2), ("migrate", 0), ("shell", 0)]
)
def test_an_engine_that_is_not_ready_is_reported_by_check_and_runserver(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, command: str, count: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", command])
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    settings.OLLAMA_OPENAI = {
        "BACKENDS": {
            "default": {"HOST": f"http://user:secret@127.0.0.1:{port}"},
            "vllm": {
                "BACKEND": OPENAI,
                "BASE_URL": f"http://127.0.0.1:{port}/v1",
            },
            "both": {
                "BACKEND": "django_ollama_openai.backends.PoolBackend",
                "OPTIONS": {"members": ["default", "vllm"]},
            },
            "dummy": {"BACKEND": DUMMY},
            "wrong": {"BACKEND": "nowhere.Backend"},
        },
    }
    messages = {message.msg for message in checks.check_engines()}
    assert len(messages) == count
    if count:
        for alias, path, advice in [
            ("default", "", "start it with `ollama serve`, or set HOST"),
            ("vllm", "/v1", "start it, or set BASE_URL"),
        ]:
            (message,) = (message for message in messages if f"backend {alias!r} is" in message)
            assert f"http://127.0.0.1:{port}{path}: {advice}." in message
            assert "secret" not in message


# Installed apps


class Colour(_conf.Section):
    RED: int = 0


class ShopSettings(_conf.Section):
    """A section of an app."""

    LIMIT: int = 5
    COLOURS: dict[str, Colour] = Field(default_factory=dict)


shop, other = Endpoint(), Endpoint()
urlpatterns = [
    endpoints.path("api/shop/", shop),
    path("api/", include([endpoints.path("orders/<int:number>/", shop)])),
]

Install: TypeAlias = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Gives the config of an installed app, or of another one, attributes."""

    def install(label: str = "site_under_test", **attributes: Any) -> None:
        for name, value in attributes.items():
            app = apps.get_app_config(label)
            monkeypatch.setattr(app, f"ollama_openai_{name}", value, raising=False)
        _conf._read.cache_clear()

    yield install
    monkeypatch.undo()
    _conf._read.cache_clear()


def test_an_app_brings_authenticators_policies_and_settings(
    settings: Settings, install: Install
) -> None:
    install(
        authenticators=[f"{HERE}.Nobody"],
        policies=[f"{HERE}.Lenient"],
        settings={"SHOP": f"{HERE}.ShopSettings"},
    )
    assert found(settings, {"ALLOW_ANONYMOUS": True}) == []
    assert checks.check_apps() == []
    assert [STATIC, f"{HERE}.Nobody", SESSION] == _conf.get().AUTHENTICATION
    assert [f"{HERE}.Lenient"] == _conf.get().POLICIES
    assert _conf.section("SHOP").LIMIT == 5
    settings.OLLAMA_OPENAI = {"SHOP": {"LIMIT": 7}}
    assert _conf.section("SHOP").LIMIT == 7
    with pytest.raises(ImproperlyConfigured, match="'SHOPS'"):
        _conf.section("SHOPS")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"LIMT": 1}, ["SHOP.LIMT", "there are LIMIT, COLOURS"]),
        ({"LIMIT": "few"}, ["SHOP.LIMIT", "integer"]),
        ({"COLOURS": {"a": {"REDD": 1}}}, ["SHOP.COLOURS.a.REDD", "there are RED."]),
        ({"COLOURS": {"a": 1}}, ["SHOP.COLOURS.a", "dict with some of the keys RED"]),
        (SECRET, ["SHOP", "dict with some of the keys LIMIT, COLOURS"]),
    ],
)
def test_a_section_of_an_app_that_is_wrong(
    settings: Settings, install: Install, section: Any, named: list[str]
) -> None:
    install(settings={"SHOP": f"{HERE}.ShopSettings"})
    (message,) = found(settings, {"SHOP": section})
    assert message.id == "ollama_openai.E001"
    assert [name for name in named if name not in message.msg] == []
    assert SECRET not in text(message)
    with pytest.raises(ImproperlyConfigured, match="SHOP"):
        _conf.section("SHOP")
    (message,) = found(settings, {"SHOPS": {}})
    assert "LOG_ENGINE_ERRORS" in message.msg
    assert message.msg.endswith("SHOP.")


@pytest.mark.parametrize(
    ("attribute", "named", "reason"),
    [
        ("authenticators", ["no.Way"], "cannot be imported"),
        ("authenticators", [f"{HERE}.NoAuthenticator"], "not a subclass of BaseAuthenticator"),
        ("policies", ["no.Way"], "cannot be imported"),
        ("policies", [f"{HERE}.Nobody"], "not a subclass of BasePolicy"),
        ("settings", {"SHOP": "no.Way"}, "cannot be imported"),
        ("settings", {"SHOP": f"{HERE}.NoAuthenticator"}, "not a subclass of Section"),
        ("settings", {"MODELS": f"{HERE}.ShopSettings"}, "'MODELS'"),
        ("settings", {"SHOP": 5}, "names 5 in ollama_openai_settings"),
        ("settings", [f"{HERE}.ShopSettings"], "not a dict of names and dotted paths"),
        ("authenticators", 5, "has 5 as ollama_openai_authenticators"),
        ("authenticators", f"{HERE}.Nobody", "not a list of dotted paths"),
        ("policies", f"{HERE}.Lenient", "not a list of dotted paths"),
        ("policies", [5], "names 5 in ollama_openai_policies"),
        ("policies", {5}, "has {5} as ollama_openai_policies"),
        ("urls", [HERE], "not the dotted path of a module"),
    ],
)
def test_an_attribute_of_an_app_that_cannot_be_used(
    settings: Settings, install: Install, attribute: str, named: Any, reason: str
) -> None:
    install(**{attribute: named})
    settings.ROOT_URLCONF = (path("ai/", include(GATEWAY)),)
    settings.OLLAMA_OPENAI = {"ALLOW_ANONYMOUS": True}
    (message,) = run_checks()
    assert (message.id, message.level) == ("ollama_openai.E008", ERROR)
    assert "'tests.project'" in message.msg
    assert reason in message.msg
    # The site can still start, and show it.
    assert "SHOP" not in _conf.section_models()


def test_an_app_that_names_nothing(settings: Settings, install: Install) -> None:
    install(authenticators=None, policies=None, settings=None, urls=None)
    settings.ROOT_URLCONF = (path("ai/", include(GATEWAY)),)
    settings.OLLAMA_OPENAI = {"ALLOW_ANONYMOUS": True}
    assert run_checks() == []


def test_a_policy_that_is_named_wrongly_is_not_left_out(install: Install) -> None:
    install(policies=5)
    with pytest.raises(ImproperlyConfigured, match="could not create 5"):
        policies(_conf.get())


def test_two_apps_with_one_section(install: Install) -> None:
    install(settings={"SHOP": f"{HERE}.ShopSettings"})
    install("admin", settings={"SHOP": f"{HERE}.Colour"})
    (message,) = checks.check_apps()
    assert message.id == "ollama_openai.E008"
    for name in ("'SHOP'", "'tests.project'", "'django.contrib.admin'"):
        assert name in message.msg


@pytest.mark.parametrize("key", ["AUTHENTICATION", "POLICIES"])
def test_a_list_of_the_sites_own_that_leaves_out_an_apps(
    settings: Settings, install: Install, key: str
) -> None:
    brought = {"AUTHENTICATION": f"{HERE}.Nobody", "POLICIES": f"{HERE}.Lenient"}
    install(authenticators=[brought["AUTHENTICATION"]], policies=[brought["POLICIES"]])
    options: dict[str, Any] = {"ALLOW_ANONYMOUS": True}
    assert found(settings, {**options, key: [brought[key]]}) == []
    (message,) = found(settings, {**options, key: []})
    assert (message.id, message.level) == ("ollama_openai.W006", WARNING)
    assert key in message.msg
    assert repr(brought[key]) in message.msg


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("api/shop", "api/shop/"),
        ("api/<str:anything>/", "api/shop/"),
        ("api/orders/<number>/", "api/orders/<int:number>/"),
    ],
)
def test_two_apps_with_one_path(
    install: Install, monkeypatch: pytest.MonkeyPatch, route: str, path: str
) -> None:
    install(urls=HERE)
    assert checks.check_paths() == []
    earlier = ModuleType("other_urls")
    earlier.urlpatterns = [endpoints.path(route, other)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_urls", earlier)
    install("messages", urls="other_urls")
    (message,) = checks.check_paths()
    assert (message.id, message.level) == ("ollama_openai.E009", ERROR)
    for name in (repr(path), "'tests.project'", "'django.contrib.messages'"):
        assert name in message.msg


@pytest.mark.parametrize("route", ["v1/models/", "v1/models/<str:id>/card/", "health/"])
def test_an_app_with_a_path_of_the_gateway(
    install: Install, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    module = ModuleType("other_urls")
    module.urlpatterns = [endpoints.path(route, other)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_urls", module)
    install(urls="other_urls")
    (message,) = checks.check_paths()
    assert "'django_ollama_openai'" in message.msg
    assert repr(route) in message.msg


def test_an_app_may_replace_a_path_of_the_gateway(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("other_urls")
    module.urlpatterns = [endpoints.path("v1/models", other)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_urls", module)
    install(urls="other_urls")
    assert checks.check_paths() == []
    install("messages", urls="other_urls")
    (message,) = checks.check_paths()
    assert "'v1/models'" in message.msg
    for name in ("'tests.project'", "'django.contrib.messages'"):
        assert name in message.msg


# Mounts


def an_include_of_an_include(**options: Any) -> Any:
    inner = [path("v/<int:version>/", include(GATEWAY), options)]
    return path("outer/", include([re_path(r"^inner/", include(inner))]))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("options", "id", "named"),
    [
        ({"tenant": "x"}, "E005", ["'tenant'", "'backend' or 'case'"]),
        ({"cases": "snake"}, "E005", ["'cases'", "'backend' or 'case'"]),
        ({"case": "kebab"}, "E005", ["'kebab'", "'both', 'snake', 'camel'"]),
        ({"case": None}, "E005", ["None", "'both', 'snake', 'camel'"]),
        ({"backend": "gone"}, "E004", ["'gone'", "BACKENDS", "'default'"]),
        ({"backend": None}, "E004", ["None", "'default'"]),
        ({"backend": ["default"]}, "E004", ["['default']", "'default'"]),
    ],
)
def test_a_bad_mount_is_named(
    settings: Settings, nested: bool, options: dict[str, Any], id: str, named: list[str]
) -> None:
    mount = an_include_of_an_include(**options) if nested else path("", include(GATEWAY), options)
    (message,) = mounted(settings, path("fine/", include(GATEWAY)), mount)
    assert message.id == f"ollama_openai.{id}"
    assert message.level == ERROR
    assert [name for name in named if name not in text(message)] == []


def test_a_mount_without_a_backend_needs_the_default_one(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {"BACKENDS": {"cluster": {"BACKEND": DUMMY}}}
    assert mounted(settings, path("ai/", include(GATEWAY), {"backend": "cluster"})) == []
    (message,) = mounted(settings, path("ai/", include(GATEWAY)))
    assert message.id == "ollama_openai.E004"
    assert "'ai/'" in message.msg
    assert "'default'" in message.msg
    assert "'cluster'" in text(message)


def test_arguments_of_an_outer_include_are_not_checked(
    settings: Settings,
) -> None:
    outer = [path("ai/", include(GATEWAY), {"case": "snake"})]
    assert mounted(settings, path("<slug:tenant>/", include(outer), {"theme": "dark"})) == []


@pytest.mark.parametrize(
    "options",
    [{}, {"case": "snake"}, {"case": "camel"}, {"case": "both"}, {"backend": "default"}],
)
def test_nothing_is_said_of_a_mount_that_is_fine(
    settings: Settings, options: dict[str, Any]
) -> None:
    assert mounted(settings, path("ai/", include(GATEWAY), options)) == []
    assert mounted(settings, an_include_of_an_include(**options)) == []


def test_an_option_may_come_from_an_include_further_out(settings: Settings) -> None:
    outer = [path("ai/", include(GATEWAY))]
    (message,) = mounted(settings, path("", include(outer), {"case": "kebab"}))
    assert message.id == "ollama_openai.E005"


def test_a_mount_in_a_namespace_is_checked_too(settings: Settings) -> None:
    named = include((GATEWAY, "gateway"), namespace="one")
    (message,) = mounted(settings, path("one/", named, {"case": "kebab"}))
    assert message.id == "ollama_openai.E005"


def test_arguments_of_other_urls_are_not_checked(settings: Settings) -> None:
    def view(request: HttpRequest, **options: Any) -> HttpResponse:
        return HttpResponse()

    assert mounted(settings, path("x", view, {"tenant": 1}), path("ai/", include(GATEWAY))) == []


@pytest.mark.parametrize("mounts", [0, 1, 3])
def test_the_app_may_be_mounted_any_number_of_times(settings: Settings, mounts: int) -> None:
    settings.OLLAMA_OPENAI = {}
    settings.ROOT_URLCONF = tuple(path(f"{n}/", include(GATEWAY)) for n in range(mounts))
    call_command("check", fail_level="WARNING")


def test_manage_py_check_passes_on_the_test_site(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {"HOST": URL, "BACKENDS": {"second": {"BACKEND": DUMMY}}}
    call_command("check", fail_level="WARNING")


def test_manage_py_check_fails_with_the_id_and_without_the_secret(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {"API_KYES": [SECRET], "HOST": URL}
    with pytest.raises(SystemCheckError, match=r"ollama_openai\.E001.*API_KYES") as caught:
        call_command("check")
    assert SECRET not in str(caught.value)
    assert _conf.problems()
