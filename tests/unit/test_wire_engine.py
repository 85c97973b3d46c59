"""The fields that every request for an engine has beside OpenAI's."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai._wire.engine import EngineOptions, EngineRequest
from django_ollama_openai._wire.responses import ResponsesRequest
from django_ollama_openai.exceptions import InvalidRequest

HELLO = [{"role": "user", "content": "Hello"}]


def parse(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.parse(json.dumps({"messages": HELLO, **fields}).encode())


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value


def test_options_are_read_in_both_spellings() -> None:
    options = parse(options={"numCtx": 8192, "top_k": 3, "stop": ["a"]}).options
    assert options is not None
    assert options.dump_known() == {"num_ctx": 8192, "top_k": 3, "stop": ["a"]}


@pytest.mark.compat("chat.request.options")
@pytest.mark.parametrize(
    "name", ["num_gpu", "num_thread", "main_gpu", "use_mmap", "num_batch", "numGpu", "made_up"]
)
def test_what_decides_over_the_server_is_not_the_clients(name: str) -> None:
    error = refused(options={name: 1})
    assert error.param == f"options.{name}"
    assert error.message == f"Unknown parameter: 'options.{name}'."


@pytest.mark.parametrize("name", [*EngineOptions.model_fields])
@pytest.mark.parametrize("value", ["hot", True, {}, [1], 10**400])
def test_a_wrong_type_is_named(name: str, value: Any) -> None:
    if name == "stop" and value == "hot":
        return
    assert (refused(options={name: value}).param or "").startswith(f"options.{name}")


@pytest.mark.parametrize("value", [0, 1.5, 86400, "0s", "5m", "1h30m", "1.5h", "300ms", "24h"])
def test_how_long_a_model_may_be_kept(value: Any) -> None:
    assert parse(keep_alive=value).keep_alive == value


@pytest.mark.compat("chat.request.keep_alive")
@pytest.mark.parametrize(
    "value", [-1, 86401, "-5s", "5", "", "m", "5 m", "25h", "1d", "5m!", True, [], {}, "9" * 5000]
)
def test_how_long_it_may_not(value: Any) -> None:
    assert refused(keep_alive=value).param == "keep_alive"


@pytest.mark.parametrize("value", ["1s" * 5_000_000, "1" * 5_000_000], ids=["durations", "digits"])
def test_a_duration_that_takes_long_to_read_is_not_read(value: str) -> None:
    started = time.process_time()
    assert refused(keep_alive=value).param == "keep_alive"
    assert time.process_time() - started < 1


@pytest.mark.parametrize("value", [True, False, "low", "medium", "high", "max", None])
def test_think(value: Any) -> None:
    assert parse(think=value).think == value


@pytest.mark.parametrize("value", [0, 1, "xhigh", "", [], {}])
def test_no_think(value: Any) -> None:
    assert refused(think=value).param == "think"


@pytest.mark.parametrize("value", ["yes", 1])
def test_truncate_is_a_boolean(value: Any) -> None:
    assert refused(truncate=value).param == "truncate"


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (ChatCompletionRequest, {"messages": HELLO}),
        (CompletionRequest, {"prompt": "Hello"}),
        (EmbeddingsRequest, {"input": "Hello"}),
        (ResponsesRequest, {"input": "Hello"}),
    ],
)
def test_the_name_of_a_model_is_not_empty(kind: type[EngineRequest], field: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kind.parse(json.dumps({"model": "", **field}).encode())
    assert (caught.value.status, caught.value.param) == (400, "model")
    assert kind.parse(json.dumps(field).encode()).model is None
