"""``OLLAMA_OPENAI``: every key, what it accepts, and what is said of what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings

from django_ollama_openai import _conf
from django_ollama_openai.backends import backends

if TYPE_CHECKING:
    from pytest_django import Settings

OLLAMA = "django_ollama_openai.backends.OllamaBackend"
SECRET = "sk-very-secret"
URL = f"http://user:{SECRET}@gpu-1:11434"

DEFAULTS: dict[str, Any] = {
    "HOST": None,
    "BACKENDS": {"default": _conf.BackendConfig()},
    "DEFAULT_MODEL": None,
    "MODELS": {},
    "ALLOWED_MODELS": None,
    "AUTHENTICATION": [
        "django_ollama_openai.auth.StaticKeyAuthenticator",
        "django_ollama_openai.auth.SessionAuthenticator",
    ],
    "POLICIES": [],
    "API_KEYS": [],
    "ALLOW_ANONYMOUS": False,
    "RESPONSE_CASE": "both",
    "UNSUPPORTED_PARAMETERS": "reject",
    "MAX_BODY_BYTES": 32 * 1024 * 1024,
    "MAX_PROMPT_CHARACTERS": 4_000_000,
    "MAX_CHOICES": 32,
    "MAX_CONCURRENCY": None,
    "QUEUE_TIMEOUT": 10,
    "MAX_QUEUE": 500,
    "STREAM_KEEPALIVE_SECONDS": 15,
    "CLIENT_TIMEOUT": 60,
    "CORS_ORIGINS": [],
    "LOG_ENGINE_ERRORS": False,
    "REMOTE_IMAGES": False,
    "RESPONSE_STORE": None,
}

ACCEPTED: list[tuple[str, Any, Any]] = [
    ("HOST", "http://gpu-1:11434", "http://gpu-1:11434"),
    ("HOST", None, None),
    ("DEFAULT_MODEL", "llama3.2", "llama3.2"),
    ("MODELS", {"m": {}}, {"m": _conf.ModelConfig()}),
    (
        "MODELS",
        {"m": {"MODEL": "x", "BACKEND": "b", "OPTIONS": {"num_ctx": 1}}},
        {"m": _conf.ModelConfig(MODEL="x", BACKEND="b", OPTIONS={"num_ctx": 1})},
    ),
    ("ALLOWED_MODELS", ("llama*", "qwen*"), ["llama*", "qwen*"]),
    ("ALLOWED_MODELS", [], []),
    ("AUTHENTICATION", ("a.B",), ["a.B"]),
    ("POLICIES", ("a.B",), ["a.B"]),
    ("API_KEYS", ("one", {"KEY": "two"}), [_conf.APIKey(KEY="one"), _conf.APIKey(KEY="two")]),
    ("API_KEYS", [{"KEY": "k", "NAME": "n"}], [_conf.APIKey(KEY="k", NAME="n")]),
    ("ALLOW_ANONYMOUS", True, True),
    ("ALLOW_ANONYMOUS", False, False),
    *(("RESPONSE_CASE", case, case) for case in ("both", "snake", "camel")),
    *(("UNSUPPORTED_PARAMETERS", way, way) for way in ("reject", "ignore")),
    ("MAX_BODY_BYTES", "1000", 1000),
    ("MAX_BODY_BYTES", 1, 1),
    ("MAX_PROMPT_CHARACTERS", 1, 1),
    ("MAX_CHOICES", 1, 1),
    ("MAX_CONCURRENCY", "4", 4),
    ("MAX_CONCURRENCY", None, None),
    ("QUEUE_TIMEOUT", "0.5", 0.5),
    ("MAX_QUEUE", 0, 0),
    ("STREAM_KEEPALIVE_SECONDS", "2.5", 2.5),
    ("STREAM_KEEPALIVE_SECONDS", 1, 1),
    ("CORS_ORIGINS", ["*"], ["*"]),
    ("CORS_ORIGINS", ("https://App.example",), ["https://app.example"]),
    ("CORS_ORIGINS", ["https://a.b:443", "http://a.b:443"], ["https://a.b", "http://a.b:443"]),
    ("CORS_ORIGINS", ["http://[::1]:80", "app://x_y"], ["http://[::1]", "app://x_y"]),
    ("REMOTE_IMAGES", "1", True),
    ("RESPONSE_STORE", "a.B", "a.B"),
]

REFUSED: list[tuple[Any, str, str]] = [
    # the setting, the path of the key at fault, what the reason says
    ({"HOST": [URL]}, "HOST", "string"),
    ({"HOST": 11434}, "HOST", "string"),
    ({"BACKENDS": [URL]}, "BACKENDS", "dictionary"),
    ({"BACKENDS": {"a": URL}}, "BACKENDS.a", "dict with some of the keys"),
    ({"BACKENDS": {"a": {"BACKEND": object}}}, "BACKENDS.a.BACKEND", "string"),
    ({"BACKENDS": {"a": {"HOST": [URL]}}}, "BACKENDS.a.HOST", "string"),
    ({"BACKENDS": {"a": {"BASE_URL": [URL]}}}, "BACKENDS.a.BASE_URL", "string"),
    ({"BACKENDS": {"a": {"OPTIONS": [SECRET]}}}, "BACKENDS.a.OPTIONS", "dictionary"),
    ({"BACKENDS": {"a": {"HOTS": URL}}}, "BACKENDS.a.HOTS", "unknown"),
    ({"DEFAULT_MODEL": 3}, "DEFAULT_MODEL", "string"),
    ({"MODELS": ["m"]}, "MODELS", "dictionary"),
    ({"MODELS": {"m": "llama3.2"}}, "MODELS.m", "dict with some of the keys"),
    ({"MODELS": {"m": {"MODEL": 3}}}, "MODELS.m.MODEL", "string"),
    ({"MODELS": {"m": {"BACKEND": 3}}}, "MODELS.m.BACKEND", "string"),
    ({"MODELS": {"m": {"OPTIONS": 3}}}, "MODELS.m.OPTIONS", "dictionary"),
    ({"MODELS": {"m": {"MODLE": "x"}}}, "MODELS.m.MODLE", "unknown"),
    ({"ALLOWED_MODELS": "llama*"}, "ALLOWED_MODELS", "list"),
    ({"ALLOWED_MODELS": [3]}, "ALLOWED_MODELS.0", "string"),
    ({"AUTHENTICATION": "a.B"}, "AUTHENTICATION", "list"),
    ({"AUTHENTICATION": [3]}, "AUTHENTICATION.0", "string"),
    ({"POLICIES": "a.B"}, "POLICIES", "list"),
    ({"API_KEYS": SECRET}, "API_KEYS", "list"),
    ({"API_KEYS": {SECRET: "name"}}, "API_KEYS", "list"),
    ({"API_KEYS": [SECRET, ""]}, "API_KEYS.1.KEY", "empty"),
    ({"API_KEYS": [{"KEY": ""}, SECRET]}, "API_KEYS.0.KEY", "empty"),
    ({"API_KEYS": [SECRET + "\n"]}, "API_KEYS.0.KEY", "visible ASCII"),
    ({"API_KEYS": ["Bearer " + SECRET]}, "API_KEYS.0.KEY", "visible ASCII"),
    ({"API_KEYS": [SECRET + "\udcfc\u00fc"]}, "API_KEYS.0.KEY", "visible ASCII"),
    ({"API_KEYS": [{"NAME": SECRET}]}, "API_KEYS.0", "required"),
    ({"API_KEYS": [{"KEY": SECRET, "NAEM": "x"}]}, "API_KEYS.0", "unknown"),
    ({"API_KEYS": [SECRET, None]}, "API_KEYS.1", "dict with some of the keys"),
    # A text from the environment must not open the site by accident.
    ({"ALLOW_ANONYMOUS": "no"}, "ALLOW_ANONYMOUS", "boolean"),
    ({"ALLOW_ANONYMOUS": "true"}, "ALLOW_ANONYMOUS", "boolean"),
    ({"ALLOW_ANONYMOUS": 1}, "ALLOW_ANONYMOUS", "boolean"),
    ({"ALLOW_ANONYMOUS": None}, "ALLOW_ANONYMOUS", "boolean"),
    ({"RESPONSE_CASE": "CAMEL"}, "RESPONSE_CASE", "'both', 'snake' or 'camel'"),
    ({"UNSUPPORTED_PARAMETERS": "drop"}, "UNSUPPORTED_PARAMETERS", "'reject' or 'ignore'"),
    ({"MAX_BODY_BYTES": 0}, "MAX_BODY_BYTES", "greater than or equal to 1"),
    ({"MAX_PROMPT_CHARACTERS": 0}, "MAX_PROMPT_CHARACTERS", "greater than or equal to 1"),
    ({"MAX_BODY_BYTES": "lots"}, "MAX_BODY_BYTES", "integer"),
    ({"MAX_BODY_BYTES": 1.5}, "MAX_BODY_BYTES", "integer"),
    ({"MAX_CONCURRENCY": 0}, "MAX_CONCURRENCY", "greater than or equal to 1"),
    ({"QUEUE_TIMEOUT": 0}, "QUEUE_TIMEOUT", "greater than 0"),
    ({"CLIENT_TIMEOUT": 0}, "CLIENT_TIMEOUT", "greater than 0"),
    ({"CLIENT_TIMEOUT": float("inf")}, "CLIENT_TIMEOUT", "less than or equal to 86400"),
    ({"QUEUE_TIMEOUT": None}, "QUEUE_TIMEOUT", "number"),
    ({"MAX_QUEUE": -1}, "MAX_QUEUE", "greater than or equal to 0"),
    ({"BACKENDS": {"a": {"MAX_CONCURRENCY": 0}}}, "BACKENDS.a.MAX_CONCURRENCY", "or equal to 1"),
    ({"BACKENDS": {"a": {"QUEUE_TIMEOUT": 0}}}, "BACKENDS.a.QUEUE_TIMEOUT", "greater than 0"),
    ({"BACKENDS": {"a": {"MAX_QUEUE": -1}}}, "BACKENDS.a.MAX_QUEUE", "or equal to 0"),
    ({"STREAM_KEEPALIVE_SECONDS": "0"}, "STREAM_KEEPALIVE_SECONDS", "greater than 0"),
    ({"STREAM_KEEPALIVE_SECONDS": float("nan")}, "STREAM_KEEPALIVE_SECONDS", "greater than 0"),
    ({"STREAM_KEEPALIVE_SECONDS": "often"}, "STREAM_KEEPALIVE_SECONDS", "number"),
    ({"CORS_ORIGINS": "https://a.b"}, "CORS_ORIGINS", "list"),
    *(
        ({"CORS_ORIGINS": ["*", origin]}, "CORS_ORIGINS.1", "'https://app.example'")
        for origin in (
            "app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://*.example",
            f"https://user:{SECRET}@app.example",
            "https://app.example:port",
            "https://ä.example",
            "https://a.b\n",
            "null",
            "",
        )
    ),
    ({"REMOTE_IMAGES": "some"}, "REMOTE_IMAGES", "boolean"),
    ({"API_KEY": SECRET}, "API_KEY", "unknown"),
    ({1: SECRET}, "1", "strings"),
    (None, "", "dict with some of the keys"),
    (SECRET, "", "dict with some of the keys"),
    ([("HOST", URL)], "", "dict with some of the keys"),
]


def test_without_the_setting_the_defaults_hold(settings: Settings) -> None:
    del settings.OLLAMA_OPENAI
    current = _conf.get()
    assert {name: getattr(current, name) for name in _conf.Settings.model_fields} == DEFAULTS
    assert _conf.problems() == []
    assert list(backends) == ["default"]
    assert Client().get("/ai/health?probe=live").status_code == 200


def test_every_key_has_a_default_and_a_description() -> None:
    assert list(_conf.Settings.model_fields) == list(DEFAULTS)
    for table in (_conf.Settings, _conf.BackendConfig, _conf.ModelConfig, _conf.APIKey):
        assert [name for name, field in table.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(("key", "given", "expected"), ACCEPTED)
def test_accepted(key: str, given: Any, expected: Any) -> None:
    with override_settings(OLLAMA_OPENAI={key: given}):
        assert getattr(_conf.get(), key) == expected
        assert _conf.problems() == []


@pytest.mark.parametrize(("setting", "path", "reason"), REFUSED)
def test_refused(setting: Any, path: str, reason: str) -> None:
    with override_settings(OLLAMA_OPENAI=setting):
        problems = _conf.problems()
        assert [told for where, told in problems if where.startswith(path) and reason in told]
        with pytest.raises(ImproperlyConfigured, match=r"^OLLAMA_OPENAI") as caught:
            _conf.get()
        assert path.split(".")[0] in str(caught.value)
        assert SECRET not in str(caught.value) + repr(caught.value) + str(problems)
        # What Django's page for errors and a logger would print.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_all_problems_are_reported_at_once() -> None:
    with override_settings(OLLAMA_OPENAI={"HOTS": 1, "MAX_BODY_BYTES": 0, "MODELS": {"m": 1}}):
        assert {path for path, _ in _conf.problems()} == {"HOTS", "MAX_BODY_BYTES", "MODELS.m"}


def test_a_changed_setting_holds_at_once_and_only_as_long_as_it_is_set() -> None:
    before = _conf.get()
    with override_settings(OLLAMA_OPENAI={"DEFAULT_MODEL": "outer"}):
        with override_settings(OLLAMA_OPENAI={"DEFAULT_MODEL": "inner"}):
            assert _conf.get().DEFAULT_MODEL == "inner"
        assert _conf.get().DEFAULT_MODEL == "outer"
        with override_settings(OLLAMA_OPENAI={"DEFAULT_MODEL": 5}):
            assert _conf.problems()
        assert _conf.get().DEFAULT_MODEL == "outer"
    assert _conf.get() == before


def test_other_settings_do_not_make_it_read_again() -> None:
    before = _conf.get()
    with override_settings(DEBUG=True):
        assert _conf.get() is before


def test_secrets_are_in_no_representation() -> None:
    with override_settings(
        OLLAMA_OPENAI={
            "HOST": URL,
            "API_KEYS": [SECRET, {"KEY": SECRET + "2", "NAME": "named"}],
            "BACKENDS": {"b": {"HOST": URL, "OPTIONS": {"headers": {"X-Key": SECRET}}}},
        }
    ):
        current = _conf.get()
        shown = [current, *current.API_KEYS, backends["default"], backends["b"]]
        assert SECRET not in "".join(f"{value!r} {value!s}" for value in shown)
        assert "named" in repr(current.API_KEYS)


@pytest.mark.parametrize("key", ["HOST", "BASE_URL"])
def test_the_credentials_of_a_host_are_not_in_the_representation_of_its_entry(key: str) -> None:
    with override_settings(OLLAMA_OPENAI={"BACKENDS": {"b": {key: URL}}}):
        entry = _conf.get().BACKENDS["b"]
        assert SECRET not in f"{entry!r} {entry!s}"


def test_the_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _conf.get().DEFAULT_MODEL = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "host"),
    [
        ({}, None),
        ({"HOST": "http://a"}, "http://a"),
        ({"BACKENDS": {"default": {"HOST": "http://b"}}}, "http://b"),
        ({"HOST": "http://a", "BACKENDS": {"default": {"HOST": "http://b"}}}, "http://b"),
        ({"HOST": "http://a", "BACKENDS": {"default": {"OPTIONS": {"timeout": 1}}}}, "http://a"),
    ],
)
def test_host_is_short_for_that_of_the_default_backend(
    setting: dict[str, Any], host: str | None
) -> None:
    with override_settings(OLLAMA_OPENAI={**setting, "DEFAULT_MODEL": "m"}):
        entry = _conf.get().BACKENDS["default"]
        assert entry.model_dump(include={"BACKEND", "HOST"}) == {"BACKEND": OLLAMA, "HOST": host}


def test_host_is_that_of_no_other_backend() -> None:
    with override_settings(OLLAMA_OPENAI={"HOST": "http://a", "BACKENDS": {"b": {}}}):
        assert {alias: entry.HOST for alias, entry in _conf.get().BACKENDS.items()} == {
            "default": "http://a",
            "b": None,
        }


def test_who_names_backends_names_all_of_them() -> None:
    with override_settings(OLLAMA_OPENAI={"BACKENDS": {"b": {}}}):
        assert list(_conf.get().BACKENDS) == ["b"]


def test_the_keywords_of_a_backend() -> None:
    entry = _conf.BackendConfig(HOST="h", BASE_URL="u", OPTIONS={"timeout": 1, "host": "ignored"})
    assert entry.keywords() == {"host": "h", "base_url": "u", "timeout": 1}
    assert _conf.BackendConfig().keywords() == {}


def test_the_limits_of_a_backend_are_its_own_before_the_general_ones() -> None:
    own = {"MAX_CONCURRENCY": 1, "QUEUE_TIMEOUT": 2.5, "MAX_QUEUE": 0}
    general = {"MAX_CONCURRENCY": 8, "QUEUE_TIMEOUT": 5, "MAX_QUEUE": 9}
    entries = {"a": own, "b": {}, "c": {"MAX_QUEUE": 1}}
    with override_settings(OLLAMA_OPENAI={"BACKENDS": entries, **general}):
        assert _conf.get().limits("a") == _conf.Limits(1, 2.5, 0)
        assert _conf.get().limits("b") == _conf.Limits(8, 5, 9)
        assert _conf.get().limits("c") == _conf.Limits(8, 5, 1)
    with override_settings(OLLAMA_OPENAI={}):
        assert _conf.get().limits("default") == _conf.Limits(None, 10, 500)


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (None, "anything", True),
        ([], "anything", False),
        (["llama*"], "llama3.2:latest", True),
        (["llama*"], "LLAMA3.2", False),
        (["*/small:?b"], "team/small:7b", True),
        (["*/small:?b"], "team/small:70b", False),
        (["[lq]*", "exact"], "qwen", True),
        (["[lq]*", "exact"], "exact", True),
        (["exact"], "exact\n", False),
    ],
)
def test_allowed_models_are_globs(patterns: list[str] | None, name: str, allowed: bool) -> None:
    assert _conf.Settings(ALLOWED_MODELS=patterns).allows_model(name) is allowed
