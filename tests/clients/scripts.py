"""What the scripted Ollama answers to every client, and what has to have arrived there."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Literal

import jsonschema_rs
from pydantic import BaseModel

from tests.ollama_server import Answer, OllamaServer, Reply, Wait, line

__all__ = [
    "ANSWER",
    "BROKEN",
    "CALLS",
    "CITY",
    "CITY_ANSWER",
    "CUT_OFF",
    "EMBEDDING_MODEL",
    "FORECASTS",
    "IMAGE",
    "MODEL",
    "REASONED_ANSWER",
    "TEXT",
    "THINKING_MODEL",
    "TOOLS_MODEL",
    "WEATHER_ANSWERS",
    "WEATHER_TEXT",
    "City",
    "Place",
    "assert_call_was_required",
    "assert_round_trip",
    "forecast",
    "required_call",
]

MODEL: Final = "gpt-4o-mini"
TOOLS_MODEL: Final = "team/tools:small"
THINKING_MODEL: Final = "thinker"
EMBEDDING_MODEL: Final = "all-minilm:22m"

TEXT: Final = "Hello wörld \u2028\x85 [DONE]!"
ANSWER: Final = Answer(["Hello", " wörld ", "\u2028\x85", " [DONE]", "!"], prompt_tokens=12)
REASONED_ANSWER: Final = Answer(["6"], thinking=["3 and", " 3"])
CUT_OFF: Final = Answer(["Hel"], done_reason="length")

IMAGE: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


# Structured output


class Country(BaseModel):
    name: str
    code: Literal["FR", "IT"]


class City(BaseModel):
    """Nested, with an enumeration and with a value that may be null."""

    name: str
    country: Country
    population: int | None
    districts: list[str]


CITY: Final = City(
    name="Paris",
    country=Country(name="France", code="FR"),
    population=None,
    districts=["Le Marais", "Belleville"],
)
_CITY_JSON = CITY.model_dump_json()
CITY_ANSWER: Final = Answer([_CITY_JSON[:12], _CITY_JSON[12:40], _CITY_JSON[40:]])


# Tools


class Place(BaseModel):
    city: str
    country: Literal["FR", "IT"]


def forecast(city: str) -> str:
    """The result of the tool."""
    return FORECASTS[city]


FORECASTS: Final = {"Paris": "sunny, 21 °C", "Rome": "rain"}

CALLS: Final[list[dict[str, Any]]] = [
    {
        "id": "call_9mth0lrj",
        "function": {
            "index": 0,
            "name": "get_weather",
            "arguments": {"place": {"city": "Paris", "country": "FR"}, "days": 2},
        },
    },
    {
        "id": "call_4kxw77ab",
        "function": {
            "index": 1,
            "name": "get_weather",
            "arguments": {"place": {"city": "Rome", "country": "IT"}, "days": 1},
        },
    },
]
WEATHER_TEXT: Final = "Sunny in Paris, rain in Rome."
WEATHER_ANSWERS: Final = (
    Answer([], tool_calls=CALLS),
    Answer(["Sunny in Paris,", " rain in Rome."]),
)


def assert_round_trip(ollama: OllamaServer, *, stream: bool, further: int = 0) -> None:
    """The calls and their results came back to Ollama as it gave and as it wants them; ``further``
    requests followed. An answer that is stored is always streamed to the gateway."""
    first, second, *rest = (request.body for request in ollama.chats())
    assert len(rest) == further
    assert (first["stream"], second["stream"]) == (stream, stream)
    assert first["tools"] == second["tools"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assistant, *results = second["messages"][len(first["messages"]) :]
    assert assistant == {"role": "assistant", "content": "", "tool_calls": CALLS}
    assert results == [
        {
            "role": "tool",
            "content": forecast(call["function"]["arguments"]["place"]["city"]),
            "tool_call_id": call["id"],
            "tool_name": "get_weather",
        }
        for call in CALLS
    ]


def required_call(name: str, arguments: dict[str, Any]) -> tuple[Answer, Answer]:
    """The answers of a model that would rather talk, until it is asked for nothing but a call."""
    written = json.dumps({"name": name, "arguments": arguments})
    return Answer(["I would rather not."]), Answer([written[:9], written[9:40], written[40:]])


def assert_call_was_required(ollama: OllamaServer, name: str, parameters: Any) -> None:
    """The second attempt left the model no choice but to call the function."""
    free, bound = (request.body for request in ollama.chats())
    assert [tool["function"]["name"] for tool in free["tools"]] == [name]
    assert "tools" not in bound
    (call,) = bound["format"]["anyOf"]
    assert call["properties"]["name"] == {"const": name}
    # References lead to other places within the format, so compare what both accept.
    for arguments in ({}, *(call["function"]["arguments"] for call in CALLS)):
        accepted = jsonschema_rs.is_valid(parameters, arguments)
        whole = {"name": name, "arguments": arguments}
        assert jsonschema_rs.is_valid(bound["format"], whole) == accepted


# Failures

BROKEN: Final = Reply(
    [
        line({"model": "smollm2:135m", "message": {"content": "Hel"}, "done": False}),
        Wait(0.1),
        line({"error": "llama runner process has terminated"}),
    ]
)
