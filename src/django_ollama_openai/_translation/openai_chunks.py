"""Chunks of an engine that speaks OpenAI's format itself, as deltas."""

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
    # Those of text completions.
    tokens: list[str] | None
    token_logprobs: list[FiniteFloat | None] | None
    top_logprobs: list[dict[str, FiniteFloat] | None] | None


class _Choice(TypedDict, total=False):
    # One of the three, by what it is a choice of.
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

_BROKEN: Final = frozenset({"abort", "error"})
"""How SGLang, vLLM and OpenRouter call the end of an answer that they gave up."""


class OpenAIChunks:
    """The state of one streamed answer: feed it every chunk, then ``finish()``.

    The request has ``include_usage``, so the usage follows the finish reason. ``blame`` has the
    names for errors.
    """

    __slots__ = ("_blame", "_calls", "_count", "_has_begun", "_is_finished")

    param: ClassVar[str] = "messages"
    """The field of the request that may be too long."""

    def __init__(self, **error_context: Unpack[ErrorContext]) -> None:
        self._blame: ErrorContext = {"param": self.param, **error_context}
        self._has_begun = False
        self._is_finished = False
        self._calls: dict[int | None, tuple[int, str | None]] = {}
        """The place of the last call and its id, by the engine's index or ``None`` for none."""
        self._count = 0

    def feed(self, data: Any) -> Delta:
        """The delta that one ``chat.completion.chunk`` stands for; ``data`` is its JSON, as bytes
        or parsed.

        Raises:
            UpstreamError: the chunk makes no sense, or tells of a failure.
            InvalidRequest: the engine refuses the request.
        """
        try:
            chunk = (
                _CHUNK.validate_json(data, strict=True)
                if isinstance(data, bytes)
                else _CHUNK.validate_python(data, strict=True)
            )
            if chunk.get("error") is not None:
                raise engine_error(chunk["error"], **self._blame)
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
        """The engine has ended the stream.

        Raises:
            UpstreamError: without a finish reason.
        """
        if not self._has_begun:
            raise UpstreamError("The engine sent an invalid response.")
        if not self._is_finished:
            raise UpstreamError("The engine's response ended before it was complete.")

    def _message(self, choice: _Choice) -> _Message:
        # Azure leaves it out where it has only something to say of its filters.
        return choice.get("delta") or {}

    def _choice(self, choice: _Choice, delta: Delta) -> None:
        message = self._message(choice)
        delta.content = message.get("content") or message.get("refusal") or ""
        # Engines have two names for it.
        delta.reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        delta.tool_calls = [self._tool_call(call) for call in message.get("tool_calls") or ()]
        if logprobs := choice.get("logprobs"):
            delta.logprobs = _entries(logprobs)
        if delta.content or delta.reasoning or delta.tool_calls:
            delta.tokens = 1
        if reason := choice.get("finish_reason"):
            if reason in _BROKEN:
                raise UpstreamError("The engine's response ended before it was complete.")
            delta.finish_reason = reason
            self._is_finished = True

    def _tool_call(self, call: _ToolCall) -> ToolCallDelta:
        function = call.get("function") or {}
        index, id, name = call.get("index"), call.get("id"), function.get("name")
        known = self._calls.get(index)
        # Those of a whole answer have no index, and some engines send whole calls in a stream,
        # without one or all with the same.
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
    """The same for an answer in one piece, a ``chat.completion``."""

    __slots__ = ()

    def _message(self, choice: _Choice) -> _Message:
        return choice["message"]


class OpenAITextChunks(OpenAIChunks):
    """The same for a ``text_completion``, streamed or in one piece.

    llama-server gives one of ``alternatives`` for each token at the least; here it may be none.
    """

    __slots__ = ("_alternatives",)

    param = "prompt"

    def __init__(self, *, alternatives: int, **error_context: Unpack[ErrorContext]) -> None:
        super().__init__(**error_context)
        self._alternatives = alternatives

    def feed(self, data: Any) -> Delta:
        delta = super().feed(data)
        for entry in delta.logprobs or ():
            del entry["top_logprobs"][self._alternatives :]
        return delta

    def _message(self, choice: _Choice) -> _Message:
        return {"content": choice["text"]}


def _entries(logprobs: _Logprobs) -> list[dict[str, Any]]:
    """``logprobs`` as entries of a chat's ``logprobs.content``. Of text completions OpenAI's own
    are lists side by side; llama-server's are those of a chat."""
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
            # The first token of an echoed prompt has none.
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
