"""Embeddings, from an engine's answer to OpenAI's.

Both ways are made for large answers: 2048 inputs are millions of numbers.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from .._wire.case import Case, camel_keys
from .._wire.delta import Embeddings, Usage
from .._wire.embeddings import EmbeddingsRequest
from .._wire.sse import encode_json
from ..exceptions import InvalidRequest, UnsupportedParameter, UpstreamError
from .openai_errors import engine_error

__all__ = ["embeddings_response", "ollama_embeddings", "openai_embeddings", "to_embeddings"]

_FLOAT32_MAX: Final = 3.4028235677973366e38
"""From here on a number is infinite as a float32."""

Number: TypeAlias = Annotated[float, Field(gt=-_FLOAT32_MAX, lt=_FLOAT32_MAX)]


class _Answer(TypedDict):
    embeddings: list[list[Number]]
    prompt_eval_count: NotRequired[int | None]


_ANSWER: Final = TypeAdapter(_Answer)


def ollama_embeddings(body: bytes, request: EmbeddingsRequest) -> Embeddings:
    """The answer of Ollama's ``POST /api/embed``; raises as :func:`to_embeddings`."""
    try:
        answer = _ANSWER.validate_json(body, strict=True)
    except ValueError as error:
        raise UpstreamError("The engine sent an invalid response.") from error
    usage = Usage(prompt_tokens=answer.get("prompt_eval_count") or 0)
    return to_embeddings(answer["embeddings"], usage, request)


class _Vector(TypedDict):
    index: int
    embedding: list[Number]


class _Figures(TypedDict):
    prompt_tokens: int


class _OpenAIAnswer(TypedDict, total=False):
    error: dict[str, Any]
    data: list[_Vector]
    usage: _Figures


_OPENAI_ANSWER: Final = TypeAdapter(_OpenAIAnswer)


def openai_embeddings(answers: Iterable[Any], request: EmbeddingsRequest) -> Embeddings:
    """What an engine answered that speaks OpenAI's API, one piece of the inputs after the other;
    the JSON of each, as bytes or parsed.

    Raises:
        GatewayError: it refused or failed; and what :func:`to_embeddings` raises.
    """
    vectors: list[list[float]] = []
    usage = Usage()
    for answer in answers:
        try:
            part = (
                _OPENAI_ANSWER.validate_json(answer, strict=True)
                if isinstance(answer, bytes)
                else _OPENAI_ANSWER.validate_python(answer, strict=True)
            )
            if "error" in part:
                raise engine_error(part["error"], param="input")
            data, figures = part["data"], part["usage"]
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent an invalid response.") from error
        if sorted(vector["index"] for vector in data) != list(range(len(data))):
            raise UpstreamError("The engine did not return one vector for each input.")
        # Nine digits tell any two float32 apart; llama-server writes seventeen.
        vectors += [
            [float(f"{number:.9g}") for number in vector["embedding"]]
            for vector in sorted(data, key=itemgetter("index"))
        ]
        usage += Usage(prompt_tokens=figures["prompt_tokens"])
    return to_embeddings(vectors, usage, request)


def to_embeddings(
    vectors: list[list[float]], usage: Usage, request: EmbeddingsRequest
) -> Embeddings:
    """``vectors`` as the embeddings that ``request`` asks for.

    Raises:
        UpstreamError: there is not one for each input, or they are not of one length.
        InvalidRequest: the model has not as many dimensions as are asked for. Engines do not say.
    """
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != len(request.inputs()) or len(lengths) != 1 or 0 in lengths:
        raise UpstreamError("The engine did not return one vector for each input.")
    (length,) = lengths
    asked = request.dimensions
    if asked is not None and asked > length:
        raise InvalidRequest(
            f"'dimensions' may be up to {length} for this model, not {asked}.", param="dimensions"
        )
    if asked is not None and asked < length:
        raise UnsupportedParameter(
            f"This model has {length} dimensions, and its engine cannot reduce them.",
            param="dimensions",
        )
    return Embeddings(vectors, usage)


def embeddings_response(
    embeddings: Embeddings, model: str, encoding_format: Literal["float", "base64"], case: Case
) -> bytes:
    """The body of the response; ``model`` is the public name."""
    vectors: Sequence[Any] = embeddings.vectors
    if encoding_format == "base64":
        vectors = [_base64(vector) for vector in vectors]
    usage = {
        "prompt_tokens": embeddings.usage.prompt_tokens,
        "total_tokens": embeddings.usage.total_tokens,
    }
    spelled = camel_keys(usage)
    return encode_json(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "model": model,
            "usage": {"both": usage | spelled, "snake": usage, "camel": spelled}[case],
        }
    )


def _base64(vector: list[float]) -> str:
    """The numbers as float32, the lowest byte first."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
