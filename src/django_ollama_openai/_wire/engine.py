"""The fields that all requests to an engine share: the model and the engine's own options.

The fields that OpenAI does not have are Ollama's; OpenAI's clients send them as ``extra_body``.
Options for the server's memory, devices and threads are not accepted: only the site sets them, in
``MODELS``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, PrivateAttr, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from .base import WireModel

__all__ = ["INT32_MAX", "INT64_MAX", "INT64_MIN", "EngineOptions", "EngineRequest", "Stop", "Think"]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INT32_MAX = 2**31 - 1
MAX_KEEP_ALIVE_SECONDS: Final = 24 * 60 * 60

#: In characters: matching millions of characters would take long.
_MAX_DURATION: Final = 64

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def _validate_stop(value: Any, handler: Any) -> Any:
    # A plain union would report an error for each of its members.
    many = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if value is None or isinstance(value, str) or (many and len(value) <= 4):
        # At an empty string engines would stop before the first token.
        left = [text for text in value if text] if many else value
        return handler(left or None)
    raise PydanticCustomError("stop", "Input should be a string or up to 4 strings")


def _validate_duration(value: Any, handler: Any) -> Any:
    seconds = _seconds(value)
    if value is None or (seconds is not None and 0 <= seconds <= MAX_KEEP_ALIVE_SECONDS):
        return value
    raise PydanticCustomError(
        "keep_alive", "Input should be seconds or a duration such as '5m', up to 24 hours"
    )


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        if len(value) > _MAX_DURATION:
            return None
        parts = _DURATION.findall(value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            return None
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


def _validate_think(value: Any, handler: Any) -> Any:
    if value is None or isinstance(value, bool) or value in ("low", "medium", "high", "max"):
        return value
    raise PydanticCustomError(
        "think", "Input should be a boolean, 'low', 'medium', 'high' or 'max'"
    )


Stop: TypeAlias = Annotated[
    str | Annotated[list[str], Field(max_length=4)] | None, WrapValidator(_validate_stop)
]
Think: TypeAlias = Annotated[
    bool | Literal["low", "medium", "high", "max"] | None, WrapValidator(_validate_think)
]
KeepAlive: TypeAlias = Annotated[
    float | str | None,
    WrapValidator(_validate_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": MAX_KEEP_ALIVE_SECONDS},
                {"type": "string", "pattern": f"^({_DURATION.pattern})+$"},
                {"type": "null"},
            ],
            "description": "How long the model stays loaded: seconds, or a duration such as `5m`; "
            "up to 24 hours.",
        }
    ),
]


class EngineOptions(WireModel):
    """Ollama's options for sampling, and the size of the context.

    Wrong types and unknown names are errors with status 400. Ollama itself responds to a wrong type
    with 500 and ignores unknown names.
    """

    model_config = ConfigDict(extra="forbid")

    num_ctx: int | None = Field(None, ge=1, le=INT32_MAX)
    num_keep: int | None = Field(None, ge=-1, le=INT32_MAX)
    num_predict: int | None = Field(None, ge=1, le=INT32_MAX)
    seed: int | None = Field(None, ge=INT64_MIN, le=INT64_MAX)
    stop: Stop = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_k: int | None = Field(None, ge=0, le=INT32_MAX)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, ge=0, le=1)
    repeat_last_n: int | None = Field(None, ge=-1, le=INT32_MAX)
    repeat_penalty: float | None = Field(None, ge=0, le=100)
    presence_penalty: float | None = Field(None, ge=-100, le=100)
    frequency_penalty: float | None = Field(None, ge=-100, le=100)


class EngineRequest(WireModel):
    """The base class of requests to an engine; each endpoint adds its own fields."""

    #: The field with the text for the engine.
    prompt_field: ClassVar[str] = "input"

    model: str | None = Field(None, min_length=1)

    options: EngineOptions | None = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None

    _engine_options: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def engine_options(self) -> dict[str, Any]:
        """The options of this model in ``MODELS``; fields of the request have precedence."""
        return self._engine_options

    @property
    def prompt_characters(self) -> int:
        """The number of characters of the prompt; 0 for requests that are translated first."""
        return 0

    def routed_to(self, model: str, engine_options: dict[str, Any]) -> Self:
        """Return the request for ``model``, the engine's own name, with the site's options."""
        if (model, engine_options) == (self.model, self._engine_options):
            return self
        routed = self.model_copy(update={"model": model})
        routed._engine_options = engine_options
        return routed

    def without(self, parameters: Sequence[str]) -> Self:
        """Return the request with ``parameters`` set to ``None``."""
        return self.model_copy(update=dict.fromkeys(parameters))
