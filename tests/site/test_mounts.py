"""What a mount and the settings make of a request: spelling, backend, model, parameters.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.urls import include, path, resolve, reverse

from django_ollama_openai import urls
from django_ollama_openai._views.openapi import describe
from django_ollama_openai.backends import DummyBackend, backends
from django_ollama_openai.endpoints import Endpoint
from django_ollama_openai.endpoints import path as endpoint_path
from tests.fast_lane import CLIENTS, IDS, sender
from tests.ollama_server import OllamaServer
from tests.project import urls as site_urls

if TYPE_CHECKING:
    from pytest_django import Settings

Ask: TypeAlias = Callable[..., Any]
Configure: TypeAlias = Callable[..., None]

GATEWAY = "django_ollama_openai.urls"
HERE = __name__
DUMMY = "django_ollama_openai.backends.DummyBackend"
HI = {"role": "user", "content": "Hi"}
MODEL = "smollm2:135m"

OPTIONAL: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "logprobs": True,
    "logit_bias": {"1": -100},
    "audio": {"voice": "alloy"},
    "modalities": ["text", "audio"],
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "options": {"top_k": 1},
    "think": False,
    "truncate": True,
}
NEUTRAL: dict[str, Any] = {
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "reasoning_effort": None,
    "n": 1,
    "logprobs": False,
    "logit_bias": {},
    "audio": None,
    "functions": [],
    "function_call": None,
    "modalities": ["text"],
    "prediction": None,
    "web_search_options": None,
    "options": {},
    "think": None,
    "truncate": False,
    "keep_alive": "5m",
}
ALWAYS_FINE: dict[str, Any] = {
    "user": "ada",
    "metadata": {"a": "b"},
    # A hint, which clients send unasked.
    "verbosity": "low",
    "store": True,
    "service_tier": "auto",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "something_new": [1],
}


class Plain(DummyBackend):
    """Honours none of the optional parameters."""

    supported_parameters = frozenset()


@pytest.fixture(params=CLIENTS, ids=IDS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """A chat completion request by either client."""
    send = sender(request.param)

    def ask(mount: str = "/ai/", **changes: Any) -> Any:
        return send("POST", f"{mount}v1/chat/completions", {"messages": [HI], **changes})

    return ask


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Configure:
    """Sets ``OLLAMA_OPENAI``, in front of backends with canned replies."""

    def configure(**options: Any) -> None:
        settings.OLLAMA_OPENAI = {
            "BACKENDS": {
                "default": {"BACKEND": DUMMY, "OPTIONS": {"replies": ["from default"]}},
                "second": {"BACKEND": DUMMY, "OPTIONS": {"replies": ["from second"]}},
                "plain": {"BACKEND": f"{HERE}.Plain"},
            },
            "MODELS": {"plain": {"BACKEND": "plain"}},
            "DEFAULT_MODEL": "m",
            "ALLOW_ANONYMOUS": True,
            **options,
        }

    configure()
    return configure


def content(response: Any) -> str:
    assert response.status_code == 200, response.content
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def chunks(response: Any) -> list[dict[str, Any]]:
    """What the frames of a stream hold, but for the last, which is ``[DONE]``."""
    *frames, done, end = response.getvalue().decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def asked(alias: str = "default") -> Any:
    """The last request that a backend got."""
    backend = backends[alias]
    assert isinstance(backend, DummyBackend)
    return backend.requests[-1]


# Spelling of responses

SNAKE = {"prompt_tokens", "completion_tokens", "total_tokens"}
CAMEL = {"promptTokens", "completionTokens", "totalTokens"}


@pytest.mark.parametrize("case", ["both", "snake", "camel"])
@pytest.mark.parametrize("by_mount", [False, True])
def test_a_completion_in_each_spelling(
    ask: Ask, configure: Configure, settings: Settings, case: str, by_mount: bool
) -> None:
    configure(RESPONSE_CASE="camel" if by_mount and case != "camel" else case)
    if by_mount:
        settings.ROOT_URLCONF = (path("ai/", include(GATEWAY), {"case": case}),)
    body = ask().json()
    usage, choice = set(body["usage"]), set(body["choices"][0])
    assert usage >= {"both": SNAKE | CAMEL, "snake": SNAKE, "camel": CAMEL}[case]
    assert bool(usage & SNAKE) is (case != "camel")
    assert bool(usage & CAMEL) is (case != "snake")
    assert ("finish_reason" in choice) is (case != "camel")
    assert ("finishReason" in choice) is (case != "snake")
    assert ("systemFingerprint" in body) is (case == "camel")


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("case", ["both", "snake", "camel"])
def test_the_end_of_a_stream_in_each_spelling(
    ask: Ask, configure: Configure, case: str, include_usage: bool
) -> None:
    configure(RESPONSE_CASE=case)
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    *others, last = chunks(ask(stream=True, **options))
    if case == "camel":
        assert last["choices"][0]["message"]["content"] == "from default"
        assert last["choices"][0]["finishReason"] == "stop"
        assert last["usage"]["totalTokens"] == 3
        assert [chunk for chunk in others if chunk.get("usage")] == []
        return
    with_usage = [chunk for chunk in [*others, last] if chunk.get("usage")]
    # Clients add up what they see: it comes once, or not at all.
    assert with_usage == ([] if case == "snake" and not include_usage else [last])
    finish = others[-1] if include_usage else last
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert ("finishReason" in finish["choices"][0]) is (case == "both")
    assert (last["choices"] == []) is include_usage


def test_errors_are_spelt_alike_on_every_mount(ask: Ask) -> None:
    for mount in ("/ai/", "/snake/", "/camel/"):
        body = ask(mount, messages=[]).json()
        assert list(body) == ["error"]
        assert list(body["error"]) == ["message", "type", "param", "code"]


# Spelling of requests


@pytest.mark.parametrize("mount", ["/ai/", "/snake/", "/camel/"])
@pytest.mark.parametrize(
    ("snake", "camel", "value"),
    [
        ("top_p", "topP", 0.25),
        ("max_tokens", "maxTokens", 7),
        ("max_completion_tokens", "maxCompletionTokens", 8),
        ("frequency_penalty", "frequencyPenalty", 0.5),
        ("presence_penalty", "presencePenalty", -0.5),
        ("tool_choice", "toolChoice", "none"),
        ("parallel_tool_calls", "parallelToolCalls", False),
        ("reasoning_effort", "reasoningEffort", "low"),
        ("logit_bias", "logitBias", {"1": 2.0}),
    ],
)
def test_requests_are_read_in_both_spellings(
    ask: Ask, mount: str, snake: str, camel: str, value: Any
) -> None:
    for spelling in (snake, camel):
        content(ask(mount, **{spelling: value}))
        assert getattr(asked(), snake) == value
    content(ask(mount, **{camel: value, snake: None}))
    assert getattr(asked(), snake) is None


def test_nested_fields_are_read_in_both_spellings_too(ask: Ask) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    response = ask(
        stream=True,
        streamOptions={"includeUsage": True},
        responseFormat={"type": "json_schema", "jsonSchema": {"name": "n", "schema": {"a_b": 1}}},
        messages=[
            {"role": "assistant", "toolCalls": [call], "reasoningContent": "so"},
            {"role": "tool", "content": "x", "toolCallId": "c"},
        ],
    )
    assert chunks(response)[-1]["usage"]
    request = asked()
    assert request.response_format.json_schema.schema_ == {"a_b": 1}
    assert request.messages[0].tool_calls[0].function.name == "f"
    assert request.messages[0].reasoning_content == "so"
    assert request.messages[1].tool_call_id == "c"


# Which backend


def test_the_backend_of_a_mount(ask: Ask) -> None:
    assert content(ask("/ai/")) == "from default"
    assert content(ask("/second/")) == "from second"


def test_what_the_path_captures_selects_no_backend(ask: Ask, settings: Settings) -> None:
    assert content(ask("/plain/by-path/")) == "from default"
    settings.ROOT_URLCONF = (
        path("own/<slug:backend>/<slug:case>/x/", include(GATEWAY), {"backend": "second"}),
        path("<slug:backend>/<slug:case>/", include(GATEWAY)),
    )
    assert content(ask("/second/camel/")) == "from default"
    assert content(ask("/own/default/camel/x/")) == "from second"
    assert "usage" in ask("/second/nonsense/").json()


def test_a_model_may_live_elsewhere_than_its_mount(ask: Ask, configure: Configure) -> None:
    configure(
        MODELS={
            "here": {"MODEL": "x"},
            "there": {"MODEL": "y", "BACKEND": "second"},
            "default": {"BACKEND": "default"},
        }
    )
    assert content(ask("/ai/", model="there")) == "from second"
    assert asked("second").model == "y"
    assert content(ask("/second/", model="here")) == "from second"
    assert content(ask("/second/", model="default")) == "from default"


def test_options_of_an_outer_include_hold_unless_the_inner_has_its_own(
    ask: Ask, settings: Settings
) -> None:
    inner = [
        path("a/", include(GATEWAY)),
        path("b/", include(GATEWAY), {"backend": "default"}),
    ]
    settings.ROOT_URLCONF = (path("api/", include(inner), {"backend": "second"}),)
    assert content(ask("/api/a/")) == "from second"
    assert content(ask("/api/b/")) == "from default"


def test_a_mount_whose_options_are_wrong_says_so_in_json(ask: Ask, settings: Settings) -> None:
    for options in ({"case": "kebab"}, {"backend": "gone"}):
        settings.ROOT_URLCONF = (path("ai/", include(GATEWAY), options),)
        response = ask()
        assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
        assert "gone" not in response.text


# Which model


@pytest.mark.compat("chat.request.model")
def test_the_default_model(ask: Ask, configure: Configure) -> None:
    configure(DEFAULT_MODEL="gpt", MODELS={"gpt": {"MODEL": "llama", "BACKEND": "second"}})
    for changes in ({}, {"model": None}):
        response = ask(**changes)
        assert content(response) == "from second"
        assert response.json()["model"] == "gpt"
        assert asked("second").model == "llama"
    assert ask(model="other").json()["model"] == "other"


@pytest.mark.parametrize("name", ["secret", None])
def test_a_default_model_that_is_not_allowed_does_not_exist(
    ask: Ask, configure: Configure, name: str | None
) -> None:
    configure(DEFAULT_MODEL=name, ALLOWED_MODELS=["public*"])
    response = ask()
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "Missing required parameter: 'model'. There is no default model.",
        "type": "invalid_request_error",
        "param": "model",
        "code": None,
    }
    assert ask(model="public-1").status_code == 200


@pytest.mark.compat("chat.response.model")
def test_the_answer_names_the_model_as_it_was_asked_for(ask: Ask, configure: Configure) -> None:
    configure(MODELS={"gpt-4o": {"MODEL": "llama"}})
    assert ask(model="gpt-4o").json()["model"] == "gpt-4o"
    assert {chunk["model"] for chunk in chunks(ask(model="gpt-4o", stream=True))} == {"gpt-4o"}
    assert asked().model == "llama"


def test_the_options_of_a_model_reach_ollama_and_the_request_wins(
    ask: Ask, configure: Configure, ollama: OllamaServer
) -> None:
    options = {"num_ctx": 8192, "temperature": 0.1, "top_k": 5, "keep_alive": "1h"}
    configure(
        BACKENDS={},
        HOST=ollama.url,
        MODELS={"long": {"MODEL": MODEL, "OPTIONS": options}, "plain": {"MODEL": MODEL}},
    )
    assert ask(model="long").status_code == 200
    assert ask(model="long", temperature=0.9, maxTokens=3).status_code == 200
    assert ask(model="plain").status_code == 200
    first, second, third = (chat.body for chat in ollama.chats())
    assert first["options"] == {"num_ctx": 8192, "temperature": 0.1, "top_k": 5}
    assert first["keep_alive"] == "1h"
    assert second["options"] == {**first["options"], "temperature": 0.9, "num_predict": 3}
    assert "options" not in third
    assert "keep_alive" not in third


def test_the_options_of_a_model_are_not_the_clients_to_set(ask: Ask, configure: Configure) -> None:
    configure(MODELS={"m": {"OPTIONS": {"num_ctx": 1}}})
    content(ask(model="m", num_ctx=10**9, engine_options={"a": 1}, _engine_options={"a": 1}))
    assert asked().engine_options == {"num_ctx": 1}


# Parameters that a backend cannot honour


@pytest.mark.compat(
    "chat.request.audio",
    "chat.request.modalities",
    "chat.request.prediction",
    "chat.request.web_search_options",
)
@pytest.mark.parametrize("parameter", list(OPTIONAL))
def test_what_would_change_the_answer_is_refused(ask: Ask, parameter: str) -> None:
    response = ask(model="plain", **{parameter: OPTIONAL[parameter]})
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("unsupported_parameter", parameter)
    assert repr(parameter) in error["message"]
    assert content(ask(model="m", **{parameter: OPTIONAL[parameter]})) == "from default"


@pytest.mark.parametrize("parameter", [name for name in OPTIONAL if "_" in name])
def test_it_is_refused_in_the_other_spelling_too(ask: Ask, parameter: str) -> None:
    first, *rest = parameter.split("_")
    camel = first + "".join(word.title() for word in rest)
    response = ask(model="plain", **{camel: OPTIONAL[parameter]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.compat(
    "chat.request.metadata",
    "chat.request.modalities",
    "chat.request.prompt_cache_key",
    "chat.request.safety_identifier",
    "chat.request.service_tier",
    "chat.request.store",
    "chat.request.verbosity",
    "responses.request.text.verbosity",
)
@pytest.mark.parametrize("value", [NEUTRAL, dict.fromkeys(OPTIONAL), ALWAYS_FINE])
def test_what_would_not_change_the_answer_is_fine(ask: Ask, value: dict[str, Any]) -> None:
    response = ask(model="plain", **value)
    assert response.status_code == 200
    assert "x-ignored-parameters" not in response.headers


@pytest.mark.compat("chat.request.function_call", "chat.request.functions")
def test_functions_are_refused_by_their_own_name(ask: Ask, configure: Configure) -> None:
    fields = {"functions": [{"name": "f"}], "function_call": {"name": "f"}}
    assert ask(model="plain", **fields).json()["error"]["param"] == "functions"
    configure(UNSUPPORTED_PARAMETERS="ignore")
    response = ask(model="plain", **fields)
    assert response.headers["x-ignored-parameters"] == "functions, function_call"
    assert (asked("plain").tools, asked("plain").tool_choice) == (None, None)


@pytest.mark.compat("http.header.x-ignored-parameters")
@pytest.mark.parametrize("stream", [False, True])
def test_it_may_be_ignored_and_is_named_in_a_header(
    ask: Ask, configure: Configure, stream: bool
) -> None:
    configure(UNSUPPORTED_PARAMETERS="ignore")
    response = ask(model="plain", stream=stream, **OPTIONAL, **ALWAYS_FINE)
    assert response.status_code == 200
    assert response.headers["x-ignored-parameters"] == ", ".join(OPTIONAL)
    request = asked("plain")
    assert [name for name in OPTIONAL if getattr(request, name, None) is not None] == []
    assert "x-ignored-parameters" not in ask(model="plain", stream=stream).headers


@pytest.mark.compat(
    "chat.request.audio",
    "chat.request.logit_bias",
    "chat.request.prediction",
    "chat.request.web_search_options",
)
def test_what_ollama_cannot_honour(ask: Ask, configure: Configure, ollama: OllamaServer) -> None:
    configure(BACKENDS={}, HOST=ollama.url, MODELS={}, UNSUPPORTED_PARAMETERS="ignore")
    response = ask(model="smollm2-tools:135m", **{**OPTIONAL, "reasoning_effort": "none"})
    refused = set(response.headers["x-ignored-parameters"].split(", "))
    assert set(OPTIONAL) - refused == {
        "logprobs",
        "options",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "think",
        "tools",
        "truncate",
    }
    sent = ollama.chats()[0].body
    assert set(sent) >= {"tools", "format", "think", "logprobs", "truncate"}
    assert not refused & {*sent, *sent.get("options", {})}


# The rest of the site


@pytest.mark.django_db
@pytest.mark.parametrize("stream", [False, True])
def test_a_site_with_atomic_requests(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    atomic = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "default", atomic)
    response = ask(stream=stream)
    assert response.status_code == 200
    assert b"default" in response.getvalue()


def test_no_database_opens_a_transaction_around_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    atomic = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    for alias in ("default", "archive"):
        monkeypatch.setitem(connections.settings, alias, atomic)
    endpoint = Endpoint()
    views: list[Any] = [endpoint.view, endpoint.aview]
    for view in views:
        assert BaseHandler().make_view_atomic(view) is view


def test_two_mounts_can_be_reversed(settings: Settings) -> None:
    settings.ROOT_URLCONF = (
        path("one/", include((GATEWAY, "gateway"), namespace="one")),
        path("<slug:tenant>/two/", include((GATEWAY, "gateway"), namespace="two")),
    )
    assert reverse("one:ollama_openai_chat_completions") == "/one/v1/chat/completions"
    assert reverse("two:ollama_openai_models", args=["x"]) == "/x/two/v1/models"
    name = "team/model:7b"
    url = reverse("one:ollama_openai_model", kwargs={"model_id": name})
    assert url == "/one/v1/models/team/model:7b"
    assert resolve(url).kwargs == {"model_id": name}


def test_mounts_without_a_namespace_can_be_reversed_too() -> None:
    for name, rest in {
        "chat_completions": "v1/chat/completions",
        "models": "v1/models",
        "health": "health",
        "root": "",
    }.items():
        assert resolve(reverse(f"ollama_openai_{name}")).route.endswith(f"/{rest}")


def test_an_app_may_replace_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    def list_chats(admission: Any) -> dict[str, Any]:
        return {}

    endpoint = Endpoint()
    endpoint.get(scope="sessions")(list_chats)
    module = ModuleType("replacing_urls")
    inner = [endpoint_path("completions", endpoint, name="chats")]
    module.urlpatterns = [path("v1/chat/", include(inner))]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    app = apps.get_app_config("site_under_test")
    monkeypatch.setattr(app, "ollama_openai_urls", module.__name__, raising=False)
    patterns = urls.gateway_patterns()
    assert [each.name for each in urls.core_patterns if each not in patterns] == [
        "ollama_openai_chat_completions"
    ]
    described = describe([*patterns, *module.urlpatterns], "snake")["paths"]
    assert list(described["/v1/chat/completions"]) == ["get"]
    assert list(described["/v1/responses"]) == ["post"]


def test_an_app_may_add_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """``test_prometheus`` and ``test_notes`` ask for some."""
    app = apps.get_app_config("site_under_test")
    monkeypatch.setattr(app, "ollama_openai_urls", site_urls.__name__, raising=False)
    assert dict(urls.optional_endpoints())[app] == site_urls.urlpatterns
    for none in (None, 5):
        monkeypatch.setattr(app, "ollama_openai_urls", none)
        assert app not in dict(urls.optional_endpoints())
    for wrong in ("tests.nowhere", "json", ""):
        monkeypatch.setattr(app, "ollama_openai_urls", wrong)
        with pytest.raises(ImproperlyConfigured, match=rf"'tests\.project' names {wrong!r} "):
            list(urls.optional_endpoints())
