"""The responses of ``POST v1/responses``: the response object, and the events of a stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from .common import Count, ExtraKey, TokenLogprob

__all__ = ["Response", "ResponseEvent"]


# Output

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class ReasoningText(TypedDict):
    type: Literal["reasoning_text"]
    text: str


class SummaryText(TypedDict):
    type: Literal["summary_text"]
    text: str


class OutputMessage(TypedDict):
    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class OutputReasoning(TypedDict):
    """The model's reasoning, as a summary if the request has `reasoning.summary`."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[SummaryText]
    content: list[ReasoningText]


class OutputFunctionCall(TypedDict):
    """A function call; its arguments are the text of a JSON object."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    namespace: NotRequired[str]
    arguments: str


class OutputCustomToolCall(TypedDict):
    """A call of a custom tool, with its input."""

    id: str
    type: Literal["custom_tool_call"]
    status: ItemStatus
    call_id: str
    name: str
    namespace: NotRequired[str]
    input: str


OutputItem: TypeAlias = Annotated[
    OutputMessage | OutputReasoning | OutputFunctionCall | OutputCustomToolCall,
    Field(discriminator="type"),
]


# Fields repeated from the request


class PlainTextFormat(TypedDict):
    type: Literal["text", "json_object"]


class SchemaTextFormat(TypedDict):
    type: Literal["json_schema"]
    name: str
    schema: dict[str, Any]
    description: NotRequired[str]
    strict: NotRequired[bool]


class ResponseText(TypedDict):
    format: NotRequired[Annotated[PlainTextFormat | SchemaTextFormat, Field(discriminator="type")]]
    verbosity: NotRequired[str]


class ResponseReasoning(TypedDict):
    effort: str | None
    summary: str | None


class ResponseFunctionTool(TypedDict):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class ResponseTextInput(TypedDict):
    type: Literal["text"]


class ResponseGrammarInput(TypedDict):
    type: Literal["grammar"]
    definition: str
    syntax: Literal["lark", "regex"]


class ResponseCustomTool(TypedDict):
    type: Literal["custom"]
    name: str
    description: NotRequired[str]
    format: NotRequired[
        Annotated[ResponseTextInput | ResponseGrammarInput, Field(discriminator="type")]
    ]


class ResponseNamespaceTool(TypedDict):
    type: Literal["namespace"]
    name: str
    description: str
    tools: list[Annotated[ResponseFunctionTool | ResponseCustomTool, Field(discriminator="type")]]


ResponseTool: TypeAlias = Annotated[
    ResponseFunctionTool | ResponseCustomTool | ResponseNamespaceTool, Field(discriminator="type")
]


class ChosenTool(TypedDict):
    type: Literal["function", "custom"]
    name: str
    namespace: NotRequired[str]


class HostedTool(TypedDict):
    """A hosted tool, which is not supported."""

    type: str


class ChosenTools(TypedDict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ChosenTool | HostedTool]


# The response


class ResponseError(TypedDict):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens", "content_filter"]


class InputTokensDetails(TypedDict):
    cached_tokens: Count
    cache_write_tokens: Count


class OutputTokensDetails(TypedDict):
    reasoning_tokens: Count


class ResponseUsage(TypedDict):
    """The token counts of a response."""

    input_tokens: Annotated[Count, ExtraKey("promptTokens")]
    input_tokens_details: InputTokensDetails
    output_tokens: Annotated[Count, ExtraKey("completionTokens")]
    output_tokens_details: OutputTokensDetails
    total_tokens: Annotated[Count, ExtraKey("totalTokens")]


class ResponseConversation(TypedDict):
    id: str


class Response(TypedDict):
    """A response. Fields that are not in the request are `null`, or have OpenAI's default."""

    id: str
    object: Literal["response"]
    created_at: Count
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    completed_at: Count | None
    conversation: ResponseConversation | None
    error: ResponseError | None
    frequency_penalty: float
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ResponseReasoning | None
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: ResponseText
    tool_choice: (
        Literal["none", "auto", "required"]
        | Annotated[ChosenTool | ChosenTools, Field(discriminator="type")]
    )
    tools: list[ResponseTool]
    top_logprobs: Count
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]


# Events


class Event(TypedDict):
    sequence_number: Count


class ResponseStatusEvent(Event):
    """The current state of the response. The last event of every stream is one of these; of a
    cancelled response, it is `response.incomplete`."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: Response


class OutputItemEvent(Event):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: Count
    item: OutputItem


class TextEvent(Event):
    item_id: str
    output_index: Count


class ContentEvent(TextEvent):
    content_index: Count


class SummaryEvent(TextEvent):
    summary_index: Count


class ContentPartEvent(ContentEvent):
    type: Literal["response.content_part.added", "response.content_part.done"]
    part: Annotated[OutputText | ReasoningText, Field(discriminator="type")]


class SummaryPartEvent(SummaryEvent):
    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    part: SummaryText


class OutputTextDeltaEvent(ContentEvent):
    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[TokenLogprob]


class OutputTextDoneEvent(ContentEvent):
    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[TokenLogprob]


class ReasoningTextDeltaEvent(ContentEvent):
    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningTextDoneEvent(ContentEvent):
    type: Literal["response.reasoning_text.done"]
    text: str


class SummaryTextDeltaEvent(SummaryEvent):
    type: Literal["response.reasoning_summary_text.delta"]
    delta: str


class SummaryTextDoneEvent(SummaryEvent):
    type: Literal["response.reasoning_summary_text.done"]
    text: str


class ArgumentsDeltaEvent(TextEvent):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDoneEvent(TextEvent):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class InputDeltaEvent(TextEvent):
    type: Literal["response.custom_tool_call_input.delta"]
    delta: str


class InputDoneEvent(TextEvent):
    type: Literal["response.custom_tool_call_input.done"]
    input: str


ResponseEvent: TypeAlias = Annotated[
    ResponseStatusEvent
    | OutputItemEvent
    | ContentPartEvent
    | SummaryPartEvent
    | OutputTextDeltaEvent
    | OutputTextDoneEvent
    | ReasoningTextDeltaEvent
    | ReasoningTextDoneEvent
    | SummaryTextDeltaEvent
    | SummaryTextDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
    | InputDeltaEvent
    | InputDoneEvent,
    Field(discriminator="type"),
]
