"""Translate the responses of engines with OpenAI's API into deltas."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, NotRequired, TypeAlias, Unpack

from pydantic import Field, FiniteFloat, TypeAdapter
from pydantic_core import to_json
from typing_extensions import TypedDict

from .._wire.delta import Delta, ToolCallDelta, Usage, new_tool_call_id
from ..exceptions import UpstreamError
from .error_context import ErrorContext
from .logprobs import Logprob, logprob
from .openai_errors import engine_error

__all__ = ["OpenAIAnswer", "OpenAIChunks", "OpenAITextChunks"]


class _Function(TypedDict, total=False):
    name: str | None
    # Some engines send the object itself.
    arguments: str | dict[str, Any] | None


class _ToolCall(TypedDict):
    index: NotRequired[int | None]
    id: NotRequired[str | None]
    function: NotRequired[_Function | None]


class _Message(TypedDict, total=False):
    content: str | None
    refusal: str | None
    reasoning_content: str | None
    reasoning: str | None
    tool_calls: list[_ToolCall] | None


class _Logprobs(TypedDict, total=False):
    content: list[Logprob] | None
    # Of text completions only.
    tokens: list[str] | None
    token_logprobs: list[FiniteFloat | None] | None
    top_logprobs: list[dict[str, FiniteFloat] | None] | None


class _Choice(TypedDict, total=False):
    # One of these three, by the type of response.
    delta: _Message | None
    message: _Message
    text: str
    finish_reason: str | None
    logprobs: _Logprobs | None


Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]


class _PromptDetails(TypedDict, total=False):
    cached_tokens: Count | None


class _CompletionDetails(TypedDict, total=False):
    reasoning_tokens: Count | None


class _Usage(TypedDict):
    prompt_tokens: Count
    completion_tokens: NotRequired[Count | None]
    prompt_tokens_details: NotRequired[_PromptDetails | None]
    completion_tokens_details: NotRequired[_CompletionDetails | None]


class _Chunk(TypedDict, total=False):
    error: Any
    choices: list[_Choice]
    usage: _Usage | None


_CHUNK = TypeAdapter(_Chunk)

#: The finish reasons of SGLang, vLLM and OpenRouter for an incomplete response.
_ABORTED: Final = frozenset({"abort", "error"})


class OpenAIChunks:
    """The state of one stream of ``chat.completion.chunk``: ``feed()`` takes every chunk,
    ``finish()`` checks the end.

    The usage follows the finish reason, since the request has ``include_usage``. ``context`` is for
    error messages.
    """

    __slots__ = ("_calls", "_context", "_count", "_has_begun", "_is_finished")

    #: The field of the request that may be too long.
    param: ClassVar[str] = "messages"

    def __init__(self, **context: Unpack[ErrorContext]) -> None:
        self._context: ErrorContext = {"param": self.param, **context}
        self._has_begun = False
        self._is_finished = False
        #: The gateway's index and the id of the last call, by the engine's index, or ``None``.
        self._calls: dict[int | None, tuple[int, str | None]] = {}
        self._count = 0

    def feed(self, data: Any) -> Delta:
        """Return the delta for ``data``, one chunk as JSON bytes or parsed JSON.

        Raises:
            UpstreamError: The chunk is invalid, or reports a failure.
            InvalidRequest: The chunk reports that the request is invalid.
        """
        try:
            chunk = (
                _CHUNK.validate_json(data, strict=True)
                if isinstance(data, bytes)
                else _CHUNK.validate_python(data, strict=True)
            )
            if chunk.get("error") is not None:
                raise engine_error(chunk["error"], **self._context)
            delta = Delta(tokens=0)
            if usage := chunk.get("usage"):
                delta.usage = _usage(usage)
            for choice in chunk["choices"]:
                self._choice(choice, delta)
        except (ValueError, KeyError) as error:
            raise UpstreamError("The engine sent an invalid response.") from error
        self._has_begun = True
        return delta

    def finish(self) -> None:
        """Check that the response was complete when the engine ended the stream.

        Raises:
            UpstreamError: There was no finish reason.
        """
        if not self._has_begun:
            raise UpstreamError("The engine sent an invalid response.")
        if not self._is_finished:
            raise UpstreamError("The engine's response ended before it was complete.")

    def _message(self, choice: _Choice) -> _Message:
        # Azure omits it in chunks with results of its content filters.
        return choice.get("delta") or {}

    def _choice(self, choice: _Choice, delta: Delta) -> None:
        message = self._message(choice)
        delta.content = message.get("content") or message.get("refusal") or ""
        # Engines use one of these names or the other.
        delta.reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        delta.tool_calls = [self._tool_call(call) for call in message.get("tool_calls") or ()]
        if logprobs := choice.get("logprobs"):
            delta.logprobs = _entries(logprobs)
        if delta.content or delta.reasoning or delta.tool_calls:
            delta.tokens = 1
        if reason := choice.get("finish_reason"):
            if reason in _ABORTED:
                raise UpstreamError("The engine's response ended before it was complete.")
            delta.finish_reason = reason
            self._is_finished = True

    def _tool_call(self, call: _ToolCall) -> ToolCallDelta:
        function = call.get("function") or {}
        index, id, name = call.get("index"), call.get("id"), function.get("name")
        known = self._calls.get(index)
        # Calls of a whole response have no index. Some engines stream whole calls without an index,
        # or with the same index for all.
        is_first = False
        if known is None or (name is not None and (index is None or _is_other(id, known[1]))):
            if not name:
                raise ValueError("A tool call begins without a name")
            is_first = True
            known = self._calls[index] = (self._count, id)
            self._count += 1
        arguments = function.get("arguments") or ""
        return ToolCallDelta(
            index=known[0],
            id=(id or new_tool_call_id()) if is_first else None,
            name=name if is_first else None,
            arguments=arguments if isinstance(arguments, str) else to_json(arguments).decode(),
        )


def _is_other(id: str | None, known: str | None) -> bool:
    return None not in (id, known) and id != known


class OpenAIAnswer(OpenAIChunks):
    """The state of one ``chat.completion``, a response that is not streamed."""

    __slots__ = ()

    def _message(self, choice: _Choice) -> _Message:
        return choice["message"]


class OpenAITextChunks(OpenAIChunks):
    """The state of one ``text_completion``, streamed or not.

    Log probabilities are limited to ``alternatives`` for each token, since llama-server always
    sends at least one.
    """

    __slots__ = ("_alternatives",)

    param = "prompt"

    def __init__(self, *, alternatives: int, **context: Unpack[ErrorContext]) -> None:
        super().__init__(**context)
        self._alternatives = alternatives

    def feed(self, data: Any) -> Delta:
        delta = super().feed(data)
        for entry in delta.logprobs or ():
            del entry["top_logprobs"][self._alternatives :]
        return delta

    def _message(self, choice: _Choice) -> _Message:
        return {"content": choice["text"]}


def _entries(logprobs: _Logprobs) -> list[dict[str, Any]]:
    """Return ``logprobs`` as entries of a chat completion's ``logprobs.content``. OpenAI's text
    completions have parallel lists instead, llama-server's the entries themselves."""
    if tokens := logprobs.get("tokens"):
        numbers = logprobs.get("token_logprobs") or []
        tops = logprobs.get("top_logprobs") or [None] * len(tokens)
        return [
            logprob(
                {
                    "token": token,
                    "logprob": number,
                    "top_logprobs": [
                        {"token": other, "logprob": likely}
                        for other, likely in sorted((top or {}).items(), key=_likeliest_first)
                    ],
                }
            )
            for token, number, top in zip(tokens, numbers, tops, strict=True)
            # The first token of an echoed prompt has no log probability.
            if number is not None
        ]
    return [logprob(entry) for entry in logprobs.get("content") or ()]


def _likeliest_first(alternative: tuple[str, float]) -> float:
    return -alternative[1]


def _usage(usage: _Usage) -> Usage:
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=prompt_details.get("cached_tokens") or 0,
        reasoning_tokens=completion_details.get("reasoning_tokens") or 0,
    )
