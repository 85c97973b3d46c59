"""The fields that requests for generated text share."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..exceptions import InvalidRequest
from .base import JSONSchemaExtra, WireModel
from .engine import INT64_MAX, INT64_MIN, EngineRequest, Stop, Think

__all__ = ["SAMPLING_FIELDS", "GenerationRequest", "SamplingRequest", "StreamOptions"]

#: The fields of :class:`SamplingRequest` that every engine accepts under the same name.
SAMPLING_FIELDS: Final = (
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "temperature",
    "top_p",
)

MAX_BIASES = 1_000


class SamplingRequest(EngineRequest):
    """The base class of requests for generated text.

    A parameter that is absent or ``null`` leaves the default to the engine.
    """

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    stop: Stop = None
    seed: int | None = Field(None, ge=INT64_MIN, le=INT64_MAX)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)

    stream: bool | None = None
    stream_options: Any = None

    # Ollama's, in addition to those of every request.
    think: Think = None
    shift: bool | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "'stream_options' is only allowed when 'stream' is true.", param="stream_options"
            )
        return self


class StreamOptions(WireModel):
    include_usage: bool | None = None


class GenerationRequest(SamplingRequest):
    """The base class of completion requests, with several choices."""

    logit_bias: Annotated[dict[str, float], JSONSchemaExtra(maxProperties=MAX_BIASES)] | None = None

    n: int | None = Field(None, ge=1, le=128)
    stream_options: StreamOptions | None = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _limit_biases(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_BIASES:
            raise PydanticCustomError("logit_bias", "Input should have up to 1000 keys")
        return value

    @property
    def include_usage(self) -> bool:
        """Return whether the stream ends with an extra chunk with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def option(self, name: str) -> int | None:
        """Return the integer option ``name`` of the request, or else of the site, or ``None``."""
        for given in (getattr(self.options, name, None), self.engine_options.get(name)):
            if isinstance(given, int):
                return given
        return None

    def for_choice(self, number: int) -> Self:
        """Return the request for one of the ``n`` choices. Call it after the request was routed.

        Each choice gets a different seed if there is one, since equal seeds give equal choices.
        """
        update: dict[str, Any] = {} if self.n is None else {"n": None}
        seed = self.seed if self.seed is not None else self.option("seed")
        if seed is not None and number:
            update["seed"] = (seed + number - INT64_MIN) % 2**64 + INT64_MIN
        return self.model_copy(update=update) if update else self
