"""Translate the embeddings of engines into OpenAI's response.

Performance matters: 2048 inputs have millions of numbers.
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

#: The smallest number that is infinite as a float32.
_FLOAT32_MAX: Final = 3.4028235677973366e38

Number: TypeAlias = Annotated[float, Field(gt=-_FLOAT32_MAX, lt=_FLOAT32_MAX)]


class _OllamaResponse(TypedDict):
    embeddings: list[list[Number]]
    prompt_eval_count: NotRequired[int | None]


_OLLAMA_RESPONSE: Final = TypeAdapter(_OllamaResponse)


def ollama_embeddings(body: bytes, request: EmbeddingsRequest) -> Embeddings:
    """Return the embeddings in ``body``, the response of Ollama's ``POST /api/embed``.

    Raises:
        UpstreamError: The response is invalid.
        InvalidRequest: As for :func:`to_embeddings`.
    """
    try:
        response = _OLLAMA_RESPONSE.validate_json(body, strict=True)
    except ValueError as error:
        raise UpstreamError("The engine sent an invalid response.") from error
    usage = Usage(prompt_tokens=response.get("prompt_eval_count") or 0)
    return to_embeddings(response["embeddings"], usage, request)


class _Vector(TypedDict):
    index: int
    embedding: list[Number]


class _Usage(TypedDict):
    prompt_tokens: int


class _OpenAIResponse(TypedDict, total=False):
    error: dict[str, Any]
    data: list[_Vector]
    usage: _Usage


_OPENAI_RESPONSE: Final = TypeAdapter(_OpenAIResponse)


def openai_embeddings(responses: Iterable[Any], request: EmbeddingsRequest) -> Embeddings:
    """Return the embeddings in ``responses`` of an engine with OpenAI's API, as JSON bytes or
    parsed JSON. There is one response for each batch of inputs, in order.

    Raises:
        GatewayError: The engine refused the request or failed.
        InvalidRequest: As for :func:`to_embeddings`.
    """
    vectors: list[list[float]] = []
    usage = Usage()
    for body in responses:
        try:
            response = (
                _OPENAI_RESPONSE.validate_json(body, strict=True)
                if isinstance(body, bytes)
                else _OPENAI_RESPONSE.validate_python(body, strict=True)
            )
            if "error" in response:
                raise engine_error(response["error"], param="input")
            data, counts = response["data"], response["usage"]
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent an invalid response.") from error
        if sorted(vector["index"] for vector in data) != list(range(len(data))):
            raise UpstreamError("The engine did not return one vector for each input.")
        # Nine digits identify any float32; llama-server writes seventeen.
        vectors += [
            [float(f"{number:.9g}") for number in vector["embedding"]]
            for vector in sorted(data, key=itemgetter("index"))
        ]
        usage += Usage(prompt_tokens=counts["prompt_tokens"])
    return to_embeddings(vectors, usage, request)


def to_embeddings(
    vectors: list[list[float]], usage: Usage, request: EmbeddingsRequest
) -> Embeddings:
    """Return the embeddings for ``request`` after checking ``vectors``.

    Raises:
        UpstreamError: There is not one vector for each input, or their lengths differ.
        InvalidRequest: The request has a number of ``dimensions`` other than the model's. Engines
            do not report this as an error.
    """
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != len(request.inputs()) or len(lengths) != 1 or 0 in lengths:
        raise UpstreamError("The engine did not return one vector for each input.")
    (length,) = lengths
    dimensions = request.dimensions
    if dimensions is not None and dimensions > length:
        raise InvalidRequest(
            f"'dimensions' may be up to {length} for this model, not {dimensions}.",
            param="dimensions",
        )
    if dimensions is not None and dimensions < length:
        raise UnsupportedParameter(
            f"This model has {length} dimensions, and its engine cannot reduce them.",
            param="dimensions",
        )
    return Embeddings(vectors, usage)


def embeddings_response(
    embeddings: Embeddings, model: str, encoding_format: Literal["float", "base64"], case: Case
) -> bytes:
    """Return the body of OpenAI's response; ``model`` is the model's public name."""
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
    """Return the numbers as little-endian float32 in base64."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
