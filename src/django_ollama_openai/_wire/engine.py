"""What all requests that go to an engine have in common: the model, and the engine's own options.

The fields beyond OpenAI's are Ollama's; OpenAI's clients send them as ``extra_body``. What decides
over the server's memory, devices and threads is not among them: that is the site's, in ``MODELS``.
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

_MAX_DURATION: Final = 64
"""In characters: it takes long to find out that millions of them are no duration."""

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def _is_stop(value: Any, handler: Any) -> Any:
    # A plain union would report one error for each of its branches.
    many = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if value is None or isinstance(value, str) or (many and len(value) <= 4):
        # Engines would stop at an empty string before the first token.
        left = [text for text in value if text] if many else value
        return handler(left or None)
    raise PydanticCustomError("stop", "Input should be a string or up to 4 strings")


def _is_duration(value: Any, handler: Any) -> Any:
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


def _is_think(value: Any, handler: Any) -> Any:
    if value is None or isinstance(value, bool) or value in ("low", "medium", "high", "max"):
        return value
    raise PydanticCustomError(
        "think", "Input should be a boolean, 'low', 'medium', 'high' or 'max'"
    )


Stop: TypeAlias = Annotated[
    str | Annotated[list[str], Field(max_length=4)] | None, WrapValidator(_is_stop)
]
Think: TypeAlias = Annotated[
    bool | Literal["low", "medium", "high", "max"] | None, WrapValidator(_is_think)
]
KeepAlive: TypeAlias = Annotated[
    float | str | None,
    WrapValidator(_is_duration),
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

    Ollama itself answers a wrong type with 500, and takes no notice of a name that it does not
    know; here both are a 400.
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
    """A request for an engine; each endpoint adds its own fields."""

    prompt_field: ClassVar[str] = "input"
    """The field that has the text for the engine."""

    model: str | None = Field(None, min_length=1)

    options: EngineOptions | None = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None

    _engine_options: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def engine_options(self) -> dict[str, Any]:
        """The engine's own options of this model, from ``MODELS``; the request's fields win."""
        return self._engine_options

    @property
    def prompt_characters(self) -> int:
        """How much text there is for the engine; 0 for a request that is asked as another."""
        return 0

    def routed_to(self, model: str, engine_options: dict[str, Any]) -> Self:
        """The same request, for ``model`` as the engine calls it."""
        if (model, engine_options) == (self.model, self._engine_options):
            return self
        routed = self.model_copy(update={"model": model})
        routed._engine_options = engine_options
        return routed

    def without(self, parameters: Sequence[str]) -> Self:
        """The same request, with nothing said about ``parameters``."""
        return self.model_copy(update=dict.fromkeys(parameters))
