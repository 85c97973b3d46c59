"""``v1/completions`` through the official OpenAI client, on both servers."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.ollama_server import Answer, Close, OllamaServer, Reply, line, recorded
from tests.recordings import load
from tests.servers import Site

MODEL = "smollm2:135m"


@pytest.mark.compat("completions.request.model")
def test_a_completion_in_one_piece(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(recorded(load("generate_raw")))
    completion = client.completions.create(
        model=MODEL, prompt="The capital of France is", temperature=0, seed=1, stop="\n\n\n"
    )
    (choice,) = completion.choices
    assert choice.text.startswith(" Paris.")
    assert choice.finish_reason == "length"
    assert (completion.object, completion.model) == ("text_completion", MODEL)
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 16)
    sent = ollama.generates()[0].body
    # The text is gone on with, not answered.
    assert sent["raw"] is True
    assert sent["prompt"] == "The capital of France is"
    assert sent["options"] == {"temperature": 0, "seed": 1, "stop": ["\n\n\n"], "num_predict": 16}


@pytest.mark.compat("completions.request.stream")
def test_a_stream(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer([" Pa", "ris\x85\u2028"], prompt_tokens=5))
    *chunks, last = client.completions.create(
        model=MODEL, prompt="Once", stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == " Paris\x85\u2028"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 7


@pytest.mark.compat("completions.request.prompt", "completions.request.n")
@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts_with_several_choices_each(
    client: openai.OpenAI, ollama: OllamaServer, stream: bool
) -> None:
    ollama.reply(*[Answer(["!"])] * 4)
    create: Any = client.completions.create
    answer = create(model=MODEL, prompt=["one", "two"], n=2, echo=True, seed=5, stream=stream)
    texts: dict[int, str] = {}
    for part in answer if stream else [answer]:
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert texts == {0: "one!", 1: "one!", 2: "two!", 3: "two!"}
    asked = sorted(
        (chat.body["prompt"], chat.body["options"]["seed"]) for chat in ollama.generates()
    )
    assert asked == [("one", 5), ("one", 6), ("two", 5), ("two", 6)]


@pytest.mark.compat("completions.request.logprobs")
def test_log_probabilities(client: openai.OpenAI, ollama: OllamaServer) -> None:
    def scored(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    entry = {**scored(" Paris", -0.5), "top_logprobs": [scored(" Rome", -1.5)]}
    answer = {"response": " Paris", "logprobs": [entry], "done": True, "done_reason": "stop"}
    ollama.reply(Reply([line(answer)]))
    completion = client.completions.create(model=MODEL, prompt="Once", logprobs=1)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == [" Paris"]
    assert logprobs.token_logprobs == [-0.5]
    # OpenAI adds the token itself.
    assert logprobs.top_logprobs == [{" Rome": -1.5, " Paris": -0.5}]
    assert logprobs.text_offset == [0]
    assert ollama.generates()[0].body["top_logprobs"] == 1


@pytest.mark.compat(
    "completions.request.prompt (tokens)",
    "completions.request.best_of",
    "completions.request.logit_bias",
)
def test_what_cannot_be_done_is_a_400(client: openai.OpenAI, ollama: OllamaServer) -> None:
    def refused(**fields: Any) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as raised:
            client.completions.create(**{"model": MODEL, "prompt": "a", **fields})
        return raised.value

    assert refused(suffix="b").param == "suffix"
    assert refused(prompt=[1, 2]).param == "prompt"
    assert refused(prompt=[]).param == "prompt"
    assert refused(prompt=["a", ""]).param == "prompt[1]"
    assert refused(prompt=["a"] * 33).param == "prompt"
    assert refused(n=33).param == "n"
    assert refused(best_of=3).param == "best_of"
    assert refused(logit_bias={"5": 1}).param == "logit_bias"
    assert refused(echo=True, logprobs=1).param == "logprobs"
    ollama.reply(recorded(load("chat_long_notruncate")))
    too_long = refused()
    assert (too_long.code, too_long.param) == ("context_length_exceeded", "prompt")


def test_a_model_that_is_not_there(client: openai.OpenAI) -> None:
    for model in ("missing", "gone"):
        with pytest.raises(openai.NotFoundError) as raised:
            client.completions.create(model=model, prompt="a")
        assert raised.value.code == "model_not_found"


def test_a_stream_that_breaks_off(client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Reply([line({"model": MODEL, "response": "He", "done": False}), Close()]))
    with pytest.raises(openai.APIError) as raised:
        list(client.completions.create(model=MODEL, prompt="a", stream=True))
    assert raised.value.code == "bad_upstream"


def test_signals(site: Site, client: openai.OpenAI, ollama: OllamaServer) -> None:
    ollama.reply(Answer(["a"], prompt_tokens=2), Answer(["a"], prompt_tokens=3))
    raw = client.completions.with_raw_response.create(model=MODEL, prompt=["x", "y"])
    _, finished = site.signals(raw.headers["x-request-id"], 2)
    assert finished["content"] == "a"
    assert finished["usage"]["prompt_tokens"] == 5
