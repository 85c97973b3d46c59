"""Choose the engine of the example site: an Ollama if one is running, otherwise a small model
inside the site.

Your own site does not need this: it has a fixed ``OLLAMA_OPENAI``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from django_ollama_openai._translation.model_cards import ModelCard
from django_ollama_openai.backends import OllamaBackend
from django_ollama_openai.exceptions import GatewayError

#: The model if Ollama has no models, or cannot be reached.
MODEL = "llama3.2"


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine of the example site: an entry for ``BACKENDS``, the default model, and an entry
    for ``MODELS``.

    ``why`` explains the choice to the user. ``problem`` explains why the engine cannot answer yet;
    it does not stop commands that need no engine.
    """

    name: str
    model: str
    backend: dict[str, Any]
    options: dict[str, Any]
    why: str
    problem: str = ""


class NoModel(Exception):
    """Ollama cannot be reached, or has no chat model."""


def choose(engine: str = "", model: str = "") -> Engine:
    """Return the engine ``"ollama"`` or ``"llamacpp"``, or for ``None`` the one that is available.

    ``model`` is one of Ollama's models.
    """
    if engine not in ("", "ollama", "llamacpp"):
        raise ImproperlyConfigured(
            f"EXAMPLE_ENGINE is {engine!r}; set it to 'ollama' or 'llamacpp', or leave it out."
        )
    if engine == "llamacpp":
        return embedded("EXAMPLE_ENGINE asks for the model inside the site.")
    try:
        found = find_chat_model()
        return ollama(model or found)
    except NoModel as error:
        if engine or model:
            problem = (
                f"{error} Start it with 'ollama serve', get a model with 'ollama pull "
                f"{model or MODEL}', and set OLLAMA_HOST if it runs elsewhere."
            )
            return replace(ollama(model or MODEL), why=problem, problem=problem)
        stand_in = "So a very small model inside the site answers; it knows little and errs often."
        return embedded(f"{error} {stand_in}")


def ollama(model: str) -> Engine:
    # Without HOST the backend looks at $OLLAMA_HOST itself.
    backend = {"BACKEND": "django_ollama_openai.backends.OllamaBackend"}
    return Engine("Ollama", model, backend, {}, f"Ollama at {ollama_host()} answers.")


def embedded(why: str) -> Engine:
    model = "smollm2-135m-instruct"
    backend = {
        "BACKEND": "django_ollama_openai.backends.LlamaCppBackend",
        "OPTIONS": {"name": model},
    }
    # docs/quickstart.rst explains these values; a test compares them.
    options = {"max_tokens": 400, "seed": 4}
    return Engine("llama.cpp, inside this site", model, backend, options, why)


def find_chat_model() -> str:
    """Return the default model among Ollama's.

    Raises:
        NoModel: There is no chat model.
    """
    backend = OllamaBackend(connect_timeout=1, timeout=5)
    try:
        cards = backend.list_models()
    except (GatewayError, ValueError):  # ValueError: $OLLAMA_HOST is not an address
        raise NoModel(f"No Ollama answers at {ollama_host()}.") from None
    finally:
        backend.close()
    chatting = {card.id: card.metadata["capabilities"] for card in cards if can_chat(card)}
    if not chatting:
        raise NoModel(f"Ollama at {ollama_host()} has no model that can chat.")
    # Cloud models need an account, and reasoning models take long to their first word.
    return min(chatting, key=lambda name: (name.endswith("cloud"), "thinking" in chatting[name]))


def can_chat(card: ModelCard) -> bool:
    """Return whether the model supports chat completions."""
    abilities = card.metadata.get("capabilities") or ()
    return "completion" in abilities and "embedding" not in abilities


def ollama_host() -> str:
    """Return Ollama's address, without credentials."""
    host = os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
    return host.rpartition("@")[2]
