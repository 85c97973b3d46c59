"""``MODELS`` by pattern, and ``FALLBACKS``: which backend answers, and when another one does.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from django.test import Client

from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.delta import Delta
from django_ollama_openai.backends import DummyBackend, backends
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.signals import completion_failed, completion_finished
from tests.fast_lane import CLIENTS, IDS, sender
from tests.ollama_server import Answer, Close, Hold, OllamaServer, Reply, Send, error, line

if TYPE_CHECKING:
    from pytest_django import Settings

Ask: TypeAlias = Callable[..., Any]
Configure: TypeAlias = Callable[..., None]

KEY = "sk-test-key"
HERE = __name__
DUMMY = "django_ollama_openai.backends.DummyBackend"
OLLAMA = "django_ollama_openai.backends.OllamaBackend"
MODEL = "smollm2:135m"
EMBEDDER = "all-minilm:22m"
DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens there

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "stream": (
        "chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "stream": True},
    ),
    "completions": ("completions", {"prompt": "Hi"}),
    "responses": ("responses", {"input": "Hi"}),
    "embeddings": ("embeddings", {"input": "Hi"}),
}


class Plain(DummyBackend):
    """Knows no optional parameter, and makes no embeddings."""

    supports_embeddings = False
    supported_parameters = frozenset()


@pytest.fixture(params=CLIENTS, ids=IDS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """A request by either client, of which all is read."""
    send = sender(request.param)

    def ask(kind: str = "chat", model: str = "m", **changes: Any) -> Any:
        endpoint, body = BODIES[kind]
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": model, **body, **changes}
        response = send("POST", f"/ai/v1/{endpoint}", body, headers=headers)
        response.received = response.getvalue()
        return response

    return ask


@pytest.fixture
def configure(settings: Settings) -> Iterator[Configure]:
    def configure(**options: Any) -> None:
        settings.OLLAMA_OPENAI = {"API_KEYS": [KEY], **options}

    yield configure
    backends.close()


@pytest.fixture
def endings() -> Iterator[list[dict[str, Any]]]:
    """What the signals said at the end of each completion."""
    told: list[dict[str, Any]] = []

    def tell(**facts: Any) -> None:
        told.append(facts)

    for signal in (completion_finished, completion_failed):
        signal.connect(tell)
    yield told
    for signal in (completion_finished, completion_failed):
        signal.disconnect(tell)


@pytest.fixture
def second() -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


def two(ollama: OllamaServer, second: OllamaServer, **options: Any) -> dict[str, Any]:
    """A model on ``ollama`` that falls back on one on ``second``."""
    return {
        "BACKENDS": {
            "first": {
                "BACKEND": OLLAMA,
                "HOST": ollama.url,
                "MAX_CONCURRENCY": 1,
                "MAX_QUEUE": 0,
                "OPTIONS": {"timeout": 0.5},
            },
            "second": {"BACKEND": OLLAMA, "HOST": second.url},
        },
        "MODELS": {
            "m": {"MODEL": MODEL, "BACKEND": "first", "FALLBACKS": ["other"]},
            "embedder": {"MODEL": EMBEDDER, "BACKEND": "first", "FALLBACKS": ["embedder-2"]},
            "other": {"MODEL": MODEL, "BACKEND": "second"},
            "embedder-2": {"MODEL": EMBEDDER, "BACKEND": "second"},
        },
        **options,
    }


def engine_requests(server: OllamaServer) -> list[str]:
    return [request.path for request in list(server.requests)]


# Which backend


def dummy(*models: str, says: str = "") -> dict[str, Any]:
    return {"BACKEND": DUMMY, "OPTIONS": {"replies": [says or models[0]], "models": models}}


def spread() -> dict[str, Any]:
    return {
        "BACKENDS": {
            "default": dummy("llama3.2", "gpt-local", "cloud/spare", says="default"),
            "cloud": dummy("gpt-4o", "gpt-5", "cloud/big", "other", says="cloud"),
            "small": dummy("tiny", says="small"),
        },
        "MODELS": {
            "gpt-local": {},
            "gpt-*": {"BACKEND": "cloud"},
            "cloud/*": {"BACKEND": "cloud"},
            "gpt-4*": {"BACKEND": "small"},
            "text-*": {"MODEL": "tiny", "BACKEND": "small"},
        },
    }


@pytest.mark.parametrize(
    ("model", "backend", "asked"),
    [
        ("gpt-local", "default", "gpt-local"),
        ("gpt-5", "cloud", "gpt-5"),
        ("gpt-4o", "cloud", "gpt-4o"),
        ("cloud/big", "cloud", "cloud/big"),
        ("text-davinci-003", "small", "tiny"),
        ("llama3.2", "default", "llama3.2"),
        ("GPT-5", "default", "GPT-5"),
    ],
)
def test_a_name_in_full_counts_first_then_the_first_pattern(
    ask: Ask, configure: Configure, model: str, backend: str, asked: str
) -> None:
    configure(**spread())
    answer = ask(model=model).json()
    assert answer["choices"][0]["message"]["content"] == backend
    assert answer["model"] == model
    answerer: Any = backends[backend]
    assert [request.model for request in answerer.requests] == [asked]


def test_what_patterns_let_through_is_listed(configure: Configure) -> None:
    configure(**spread())
    headers = {"Authorization": f"Bearer {KEY}"}
    listed = Client().get("/ai/v1/models", headers=headers).json()["data"]
    assert [(card["id"], card["metadata"]["backend"]) for card in listed] == [
        ("gpt-local", "default"),
        ("llama3.2", "default"),
        ("gpt-4o", "cloud"),
        ("gpt-5", "cloud"),
        ("cloud/big", "cloud"),
    ]
    for card in listed:
        assert Client().get(f"/ai/v1/models/{card['id']}", headers=headers).json() == card
    tiny = Client().get("/ai/v1/models/text-anything", headers=headers).json()
    assert (tiny["id"], tiny["metadata"]["backend"]) == ("text-anything", "small")


def test_only_models_that_are_allowed_come_through_a_pattern(
    ask: Ask, configure: Configure
) -> None:
    configure(**spread(), ALLOWED_MODELS=["gpt-5"])
    assert ask(model="gpt-4o").status_code == 404
    assert ask(model="gpt-5").status_code == 200
    headers = {"Authorization": f"Bearer {KEY}"}
    listed = Client().get("/ai/v1/models", headers=headers).json()["data"]
    assert [card["id"] for card in listed] == ["gpt-5"]


# Another one instead

FAILS: dict[str, Reply] = {
    "500": error(500, "model runner has unexpectedly stopped"),
    "503": error(503, "server busy"),
    "404": error(404, "model not found"),
    "closes": Reply([], before=[Close()]),
    "garbage": Reply([Send(b"<html>\n")]),
    "hangs": Reply([Hold()]),
    "hangs before its head": Reply([], before=[Hold()]),
}


@pytest.mark.once
@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("failure", FAILS)
def test_a_failure_before_the_first_delta(
    ask: Ask,
    configure: Configure,
    endings: list[dict[str, Any]],
    ollama: OllamaServer,
    second: OllamaServer,
    kind: str,
    failure: str,
) -> None:
    configure(**two(ollama, second))
    for path in ("/api/chat", "/api/generate", "/api/embed"):
        ollama.routes[path] = FAILS[failure]
    model = "embedder" if kind == "embeddings" else "m"
    response = ask(kind, model)
    assert response.status_code == 200
    assert b'"error": {' not in response.received.replace(b'"error":{', b'"error": {')
    if kind != "stream":
        assert response.json()["model"] == model
    assert (len(engine_requests(ollama)), len(engine_requests(second))) == (1, 1)
    (ending,) = endings
    assert (ending["model"], ending["backend"]) == (model, "second")
    assert ending["answered_by"] == ("embedder-2" if kind == "embeddings" else "other")
    assert ending["signal"] is completion_finished
    assert backends["first"].slots.running == 0


def test_an_engine_that_cannot_be_reached(
    ask: Ask, configure: Configure, second: OllamaServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = two(second, second)
    settings["BACKENDS"]["first"]["HOST"] = DEAD
    configure(**settings)
    with caplog.at_level(logging.WARNING, "django_ollama_openai"):
        assert ask("stream").status_code == 200
    failed, falls_back = (record.getMessage() for record in caplog.records)
    assert "backend 'first' failed: The engine cannot be reached" in failed
    assert "for the model 'm' falls back on 'other'" in falls_back


def test_a_backend_that_is_full(
    ask: Ask, configure: Configure, ollama: OllamaServer, second: OllamaServer
) -> None:
    configure(**two(ollama, second))
    with backends["first"].slots.acquire(QueueTicket()):
        assert ask().status_code == 200
    assert engine_requests(ollama) == []
    assert engine_requests(second) == ["/api/chat"]


def test_all_choices(
    ask: Ask, configure: Configure, ollama: OllamaServer, second: OllamaServer
) -> None:
    configure(**two(ollama, second))
    ollama.routes["/api/chat"] = error(500, "no")
    second.reply(Answer(["a"]), Answer(["b"]), Answer(["c"]))
    choices = ask(n=3).json()["choices"]
    assert sorted(choice["message"]["content"] for choice in choices) == ["a", "b", "c"]
    # The first that fails speaks for all that wait.
    assert len(engine_requests(ollama)) == 1


def test_all_choices_are_of_one_model(
    ask: Ask, configure: Configure, ollama: OllamaServer, second: OllamaServer
) -> None:
    settings = two(ollama, second)
    settings["BACKENDS"]["first"]["MAX_CONCURRENCY"] = 2
    configure(**settings)
    # One is at work there when the other has failed.
    ollama.reply(Answer(["of the first"], pause=0.3), error(500, "no"))
    second.reply(Answer(["of the second"]), Answer(["of the second"]))
    choices = ask(n=2).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["of the second"] * 2


def test_a_fallback_that_cannot_be_made_is_passed_over(
    ask: Ask, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    settings = chain(m=["broken", "up"])
    settings["BACKENDS"]["broken"] = {"BACKEND": "no.Way"}
    settings["MODELS"]["broken"] = {"BACKEND": "broken"}
    configure(**settings)
    with caplog.at_level(logging.ERROR, "django_ollama_openai"):
        assert ask().json()["choices"][0]["message"]["content"] == "up"
    assert "to the backend 'broken' crashed" in caplog.text


def test_a_model_is_listed_as_long_as_somebody_answers_for_it(configure: Configure) -> None:
    configure(**chain(m=["up"]), ALLOWED_MODELS=["m"])
    headers = {"Authorization": f"Bearer {KEY}"}
    (card,) = Client().get("/ai/v1/models", headers=headers).json()["data"]
    assert (card["id"], card["metadata"]["backend"]) == ("m", "up")
    assert Client().get("/ai/v1/models/m", headers=headers).json() == card


@pytest.mark.parametrize(
    ("fallbacks", "status"),
    [
        ({"m": ["up"]}, 200),
        ({"m": ["up"], "a": ["m"]}, 200),
        ({"m": ["up"], "a": []}, 503),
        ({"m": ["a"], "a": ["m"]}, 503),
    ],
)
def test_a_site_is_ready_if_others_stand_in_for_what_is_down(
    configure: Configure, fallbacks: dict[str, list[str]], status: int
) -> None:
    settings = chain(**fallbacks)
    settings["BACKENDS"]["default"] = dummy("d")
    configure(**settings)
    assert Client().get("/ai/health").status_code == status


def test_there_is_no_fallback_after_the_first_delta(
    ask: Ask,
    configure: Configure,
    endings: list[dict[str, Any]],
    ollama: OllamaServer,
    second: OllamaServer,
) -> None:
    configure(**two(ollama, second))
    part = {"model": MODEL, "message": {"role": "assistant", "content": "Hel"}, "done": False}
    ollama.reply(Reply([line(part), Close()]))
    response = ask("stream")
    assert b"Hel" in response.received
    assert b"bad_upstream" in response.received
    assert engine_requests(second) == []
    (ending,) = endings
    assert (ending["backend"], ending["answered_by"]) == ("first", "m")
    assert ending["signal"] is completion_failed


def test_there_is_no_fallback_for_an_invalid_request(
    ask: Ask, configure: Configure, ollama: OllamaServer, second: OllamaServer
) -> None:
    configure(**two(ollama, second))
    ollama.reply(error(400, "invalid format"))
    response = ask()
    assert response.status_code == 400
    assert "invalid format" in response.json()["error"]["message"]
    assert engine_requests(second) == []


def test_when_all_fail_the_client_is_told_of_the_first(
    ask: Ask,
    configure: Configure,
    endings: list[dict[str, Any]],
    ollama: OllamaServer,
    second: OllamaServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure(**two(ollama, second))
    ollama.reply(error(503, "busy"))
    second.reply(error(500, "no"))
    with caplog.at_level(logging.WARNING, "django_ollama_openai"):
        response = ask()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "upstream_unavailable"
    messages = [record.getMessage() for record in caplog.records]
    # One line for each failure.
    assert ["failed" in message for message in messages[:3]] == [True, False, True]
    (ending,) = endings
    assert ending["error"].status == 503
    assert (ending["backend"], ending["answered_by"]) == ("first", "m")
    ((other, failure),) = ending["failures"]
    assert (other, failure.status) == ("second", 502)


def test_a_refusal_by_the_second_is_not_what_the_client_is_told(
    ask: Ask, configure: Configure, ollama: OllamaServer, second: OllamaServer
) -> None:
    configure(**two(ollama, second))
    ollama.reply(error(503, "busy"))
    second.reply(error(400, "the prompt exceeds the context length"))
    assert ask().status_code == 503


def test_a_crash_is_a_failure_too(ask: Ask, configure: Configure) -> None:
    configure(
        BACKENDS={"first": {"BACKEND": f"{HERE}.Crashing"}, "second": dummy("d", says="fine")},
        MODELS={
            "m": {"BACKEND": "first", "FALLBACKS": ["d"]},
            "d": {"BACKEND": "second"},
        },
    )
    assert ask().json()["choices"][0]["message"]["content"] == "fine"


class Crashing(DummyBackend):
    def chat(self, request: ChatCompletionRequest) -> Delta:
        raise RuntimeError("secret detail")

    async def achat(self, request: ChatCompletionRequest) -> Delta:
        raise RuntimeError("secret detail")


# Which others


def chain(**fallbacks: list[str]) -> dict[str, Any]:
    """Models on backends of their own, all of which are down but that of ``up``."""
    down = {"BACKEND": OLLAMA, "HOST": DEAD}
    return {
        "BACKENDS": {
            "default": down,
            **dict.fromkeys(fallbacks, down),
            "up": dummy("up", says="up"),
        },
        "MODELS": {
            "up": {"BACKEND": "up"},
            **{name: {"BACKEND": name, "FALLBACKS": others} for name, others in fallbacks.items()},
        },
    }


@pytest.mark.parametrize(
    ("fallbacks", "asked"),
    [
        ({"m": ["a", "b"], "a": [], "b": ["up"]}, ["a", "b", "up"]),
        ({"m": ["a", "b"], "a": ["up"], "b": []}, ["a", "b", "up"]),
        ({"m": ["a", "up"], "a": []}, ["a", "up"]),
        # Loops, which the check is there for, end all the same.
        ({"m": ["a"], "a": ["m", "up"]}, ["a", "up"]),
        ({"m": ["m", "a"], "a": ["a", "b"], "b": ["a", "m", "up"]}, ["a", "b", "up"]),
    ],
)
def test_fallbacks_of_fallbacks_come_last(
    ask: Ask,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    fallbacks: dict[str, list[str]],
    asked: list[str],
) -> None:
    configure(**chain(**fallbacks))
    with caplog.at_level(logging.WARNING, "django_ollama_openai"):
        assert ask().json()["choices"][0]["message"]["content"] == "up"
    steps = [message for message in caplog.messages if "falls back" in message]
    assert [step.rsplit("'", 2)[1] for step in steps] == asked


def test_a_loop_without_a_way_out_ends(ask: Ask, configure: Configure) -> None:
    configure(**chain(m=["a"], a=["m"]))
    assert ask().status_code == 503


def test_a_fallback_that_does_not_support_the_request_is_passed_over(
    ask: Ask, configure: Configure
) -> None:
    settings = chain(m=["plain", "up"])
    settings["BACKENDS"]["plain"] = {"BACKEND": f"{HERE}.Plain", "OPTIONS": {"replies": ["plain"]}}
    settings["MODELS"]["plain"] = {"BACKEND": "plain"}
    configure(**settings)
    assert ask().json()["choices"][0]["message"]["content"] == "plain"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert ask(tools=tools).json()["choices"][0]["message"]["content"] == "up"
    assert ask("embeddings").status_code == 200


def test_a_fallback_may_be_hidden_from_clients(ask: Ask, configure: Configure) -> None:
    configure(**chain(m=["up"]), ALLOWED_MODELS=["m"])
    assert ask(model="up").status_code == 404
    assert ask().json()["choices"][0]["message"]["content"] == "up"


def test_a_fallback_may_match_a_pattern(ask: Ask, configure: Configure) -> None:
    configure(
        BACKENDS={"default": {"BACKEND": OLLAMA, "HOST": DEAD}, "cloud": dummy("c", says="cloud")},
        MODELS={
            "llama*": {"FALLBACKS": ["gpt-5"]},
            "gpt-*": {"BACKEND": "cloud"},
        },
    )
    answer = ask(model="llama3.2").json()
    assert answer["choices"][0]["message"]["content"] == "cloud"
    answerer: Any = backends["cloud"]
    assert [request.model for request in answerer.requests] == ["gpt-5"]
