"""The request of ``POST v1/chat/completions``.

Source: OpenAI's API reference, "Create chat completion". Fields beyond those named here are
accepted and kept, since OpenAI often adds new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

import pydantic_core
from annotated_types import MaxLen, MinLen
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..exceptions import InvalidRequest
from .base import (
    Content,
    FirstErrorOnly,
    JSONSchemaExtra,
    WireModel,
    parse_json,
    tagged_union,
)
from .case import to_camel
from .custom_tools import CustomReference, CustomTool, CustomToolCall
from .engine import INT32_MAX
from .generation import GenerationRequest
from .media import BASE64, IMAGE_URL, decode_base64, decode_data_uri, is_data_uri

__all__ = [
    "AllowedToolsChoice",
    "AssistantMessage",
    "AudioPart",
    "ChatCompletionRequest",
    "DeveloperMessage",
    "FunctionCall",
    "FunctionMessage",
    "FunctionReference",
    "FunctionTool",
    "ImagePart",
    "JSONSchemaFormat",
    "Message",
    "Part",
    "ReasoningEffort",
    "RefusalPart",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolChoice",
    "ToolMessage",
    "UserMessage",
    "chosen_functions",
    "content_media",
    "content_text",
]

# A body within the size limit could have millions of each, and validating them would block other
# requests. For the same reason validation of a list stops at the first error.
MAX_MESSAGES, MAX_TOOLS = 10_000, 1_000


class TextPart(WireModel):
    type: Literal["text"]
    text: str


class RefusalPart(WireModel):
    type: Literal["refusal"]
    refusal: str


class ImageURL(WireModel):
    """An image: a data URI, or the URL of an image that the gateway fetches."""

    url: Annotated[str, JSONSchemaExtra(pattern=IMAGE_URL)]
    detail: Literal["auto", "low", "high", "original"] | None = None

    _data: bytes | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _decode_image(self) -> Self:
        if is_data_uri(self.url):
            try:
                media_type, self._data = decode_data_uri(self.url)
            except ValueError as error:
                raise _invalid_media("an image", error) from None
            if not media_type.startswith("image/"):
                raise PydanticCustomError("media", "Input should be a data URI of type image/…")
        elif not self.url.lower().startswith(("http://", "https://")):
            raise PydanticCustomError("media", "Input should be a data URI or an http(s) URL")
        return self

    @property
    def data(self) -> bytes | None:
        """The bytes of the image; ``None`` for a URL that has not been fetched."""
        return self._data

    def set_data(self, data: bytes) -> None:
        """Set the bytes of the image after fetching it."""
        self._data = data


class ImagePart(WireModel):
    type: Literal["image_url"]
    image_url: ImageURL


class InputAudio(WireModel):
    """Audio data in base64."""

    data: Annotated[str, JSONSchemaExtra(pattern=BASE64)]
    format: Literal["wav", "mp3"]

    _bytes: bytes = PrivateAttr(b"")

    @model_validator(mode="after")
    def _decode_audio(self) -> Self:
        try:
            self._bytes = decode_base64(self.data)
        except ValueError as error:
            raise _invalid_media("base64 audio", error) from None
        return self

    @property
    def audio(self) -> bytes:
        """The bytes of the audio."""
        return self._bytes


class AudioPart(WireModel):
    type: Literal["input_audio"]
    input_audio: InputAudio


def _invalid_media(kind: str, error: ValueError) -> PydanticCustomError:
    return PydanticCustomError(
        "media", "Input should be {kind}: {reason}", {"kind": kind, "reason": str(error)}
    )


TextContent: TypeAlias = Content[TextPart]
UserPart: TypeAlias = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<image_url>")]
    | Annotated[AudioPart, Tag("<input_audio>")],
    tagged_union("type", "text", "image_url", "input_audio"),
]
UserContent: TypeAlias = Content[UserPart]
AssistantPart: TypeAlias = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    tagged_union("type", "text", "refusal"),
]
AssistantContent: TypeAlias = Content[AssistantPart]


Part: TypeAlias = TextPart | RefusalPart | ImagePart | AudioPart


def content_text(content: str | Sequence[Part] | None) -> str:
    """Return the text of a message, its text parts joined by line feeds."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(
        part.text if isinstance(part, TextPart) else part.refusal
        for part in content
        if isinstance(part, (TextPart, RefusalPart))
    )


def content_media(content: str | Sequence[Part] | None) -> list[bytes]:
    """Return the images and audio of a message as bytes, in order.

    Raises:
        InvalidRequest: An image has not been fetched.
    """
    media = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, AudioPart):
            media.append(part.input_audio.audio)
        elif isinstance(part, ImagePart):
            if part.image_url.data is None:
                raise InvalidRequest("Image URLs are not supported here; send a data URI instead.")
            media.append(part.image_url.data)
    return media


class FunctionCall(WireModel):
    """A function call. ``arguments`` is text from the model: usually a JSON object, but it may be
    incomplete, empty or prose."""

    name: str
    arguments: Annotated[
        str,
        BeforeValidator(lambda value: "" if value is None else value),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ]

    def arguments_object(self) -> dict[str, Any]:
        """Return the arguments as an object, for engines whose templates need one.

        Text that is not a JSON object, or would take too long to parse, becomes
        ``{"arguments": "the text"}``.
        """
        if not self.arguments.strip():
            return {}
        try:
            value = parse_json(self.arguments)
        except ValueError:
            value = None
        return value if isinstance(value, dict) else {"arguments": self.arguments}

    def arguments_json(self) -> str:
        """Return :meth:`arguments_object` as JSON."""
        return pydantic_core.to_json(self.arguments_object()).decode()


class ToolCall(WireModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall

    def dump_known(self, only: Collection[str] | None = None) -> dict[str, Any]:
        # Clients may omit the type, engines require it.
        return {"type": self.type, **super().dump_known(only)}


def _add_function_type(value: Any) -> Any:
    """Add the type, which clients may omit."""
    is_without = isinstance(value, dict) and "type" not in value
    return {**value, "type": "function"} if is_without else value


def _converted_to(model: type[WireModel]) -> AfterValidator:
    """Return a validator that turns a custom tool, a call of one or a reference to one into
    ``model``, that of the function that represents it."""

    def convert(custom: Any) -> Any:
        function: Any = model.model_validate(custom.as_function())
        function._custom = custom
        return function

    return AfterValidator(convert)


class _Custom(WireModel):
    """The base class of what represents a custom tool, a call of one or a reference to one."""

    _custom: WireModel = PrivateAttr()

    def dump_sent(self) -> dict[str, Any]:
        return self._custom.dump_sent()


def _function_or(custom: Any, function: Any, converted: Any) -> Any:
    """Return the union of ``function`` and ``custom``, which is converted to ``converted``, a
    subclass of ``function``."""
    return Annotated[
        Annotated[function, Tag("<function>")]
        | Annotated[custom, _converted_to(converted), Tag("<custom>")],
        tagged_union("type", "function", "custom"),
    ]


class CustomFunctionCall(_Custom, ToolCall):
    """The call of the function that represents a custom tool."""


# For type checkers, since validation turns all custom tools into functions.
if TYPE_CHECKING:
    AnyToolCall: TypeAlias = ToolCall
else:
    AnyToolCall = Annotated[
        _function_or(CustomToolCall, ToolCall, CustomFunctionCall),
        BeforeValidator(_add_function_type),
    ]


class SystemMessage(WireModel):
    role: Literal["system"]
    content: TextContent


class DeveloperMessage(WireModel):
    role: Literal["developer"]
    content: TextContent


class UserMessage(WireModel):
    role: Literal["user"]
    content: UserContent


class AssistantMessage(WireModel):
    """A message of the model. Clients send its reasoning under either of two names, and a refusal
    with ``null`` as the content. ``function_call`` is the deprecated form of ``tool_calls``."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Annotated[list[AnyToolCall], MaxLen(MAX_TOOLS), FirstErrorOnly()] | None = None
    function_call: FunctionCall | None = None


class ToolMessage(WireModel):
    """The result of a tool call, with images if it comes from the Responses API."""

    role: Literal["tool"]
    content: UserContent
    tool_call_id: str


class FunctionMessage(WireModel):
    """The result of a ``function_call`` (deprecated by OpenAI, but still in use)."""

    role: Literal["function"]
    content: str | None
    name: str


Message: TypeAlias = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[DeveloperMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")]
    | Annotated[FunctionMessage, Tag("<function>")],
    tagged_union("role", "system", "developer", "user", "assistant", "tool", "function"),
]


class Function(WireModel):
    """A function that the model may call; ``parameters`` is a JSON schema, kept unchanged."""

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(WireModel):
    type: Literal["function"]
    function: Function


class CustomFunction(_Custom, FunctionTool):
    """The function that represents a custom tool."""


if TYPE_CHECKING:
    Tool: TypeAlias = FunctionTool
else:
    Tool = _function_or(CustomTool, FunctionTool, CustomFunction)


class FunctionName(WireModel):
    name: str = Field(min_length=1)


class FunctionReference(WireModel):
    """A reference to a function in ``tools`` by its name."""

    type: Literal["function"]
    function: FunctionName


class CustomFunctionReference(_Custom, FunctionReference):
    """The reference to the function that represents a custom tool."""


if TYPE_CHECKING:
    ToolReference: TypeAlias = FunctionReference
else:
    ToolReference = _function_or(CustomReference, FunctionReference, CustomFunctionReference)


class AllowedTools(WireModel):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], MinLen(1), MaxLen(MAX_TOOLS), FirstErrorOnly()]


class AllowedToolsChoice(WireModel):
    """A choice that limits the model to some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _mode_or_object(value: Any) -> str | None:
    if value in ("none", "auto", "required"):
        return "<mode>"
    return "<object>" if isinstance(value, (dict, WireModel)) else None


if TYPE_CHECKING:
    ToolChoice: TypeAlias = (
        Literal["none", "auto", "required"] | FunctionReference | AllowedToolsChoice
    )
else:
    ToolChoice = Annotated[
        Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
        | Annotated[
            Annotated[
                Annotated[FunctionReference, Tag("<function>")]
                | Annotated[
                    CustomReference, _converted_to(CustomFunctionReference), Tag("<custom>")
                ]
                | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")],
                tagged_union("type", "function", "allowed_tools", "custom"),
            ],
            Tag("<object>"),
        ],
        Discriminator(
            _mode_or_object,
            custom_error_type="tool_choice",
            custom_error_message="Input should be 'none', 'auto', 'required' or an object",
        ),
    ]


FunctionCallChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto"], Tag("<mode>")] | Annotated[FunctionName, Tag("<object>")],
    Discriminator(
        lambda value: (
            "<mode>"
            if value in ("none", "auto")
            else "<object>"
            if isinstance(value, (dict, WireModel))
            else None
        ),
        custom_error_type="function_call",
        custom_error_message="Input should be 'none', 'auto' or an object with a name",
    ),
]


class TextFormat(WireModel):
    type: Literal["text"]


class SchemaFormat(WireModel):
    """The base class of formats that may have a JSON schema."""

    _translated: dict[Any, dict[str, Any] | InvalidRequest] = PrivateAttr(default_factory=dict)

    def translated(
        self, translate: Callable[[dict[str, Any], str], dict[str, Any]], param: str
    ) -> dict[str, Any] | None:
        """Return ``translate(schema, param)`` for the schema in the field ``param``, or ``None``
        without a schema. The result is cached for all choices of a request.

        Raises:
            InvalidRequest: ``translate`` raised it.
        """
        schema = self._schema()
        if schema is None:
            return None
        if translate not in self._translated:
            try:
                self._translated[translate] = translate(schema, param)
            except InvalidRequest as error:
                self._translated[translate] = error
        translated = self._translated[translate]
        if isinstance(translated, InvalidRequest):
            # A new one for each choice, since error handlers may change it.
            raise InvalidRequest(translated.message, param=translated.param)
        return translated

    def _schema(self) -> dict[str, Any] | None:
        raise NotImplementedError


class JSONObjectFormat(SchemaFormat):
    """Any JSON object, or one that matches ``schema``, an extension of vLLM, SGLang and
    llama.cpp."""

    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    def _schema(self) -> dict[str, Any] | None:
        return self.schema_


class JSONSchema(WireModel):
    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JSONSchemaFormat(SchemaFormat):
    type: Literal["json_schema"]
    json_schema: JSONSchema

    def _schema(self) -> dict[str, Any]:
        return self.json_schema.schema_


ResponseFormat: TypeAlias = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JSONObjectFormat, Tag("<json_object>")]
    | Annotated[JSONSchemaFormat, Tag("<json_schema>")],
    tagged_union("type", "text", "json_object", "json_schema"),
]


def chosen_functions(choice: ToolChoice | None) -> list[str]:
    """Return the names of the functions in ``choice``."""
    if isinstance(choice, FunctionReference):
        return [choice.function.name]
    if isinstance(choice, AllowedToolsChoice):
        return [tool.function.name for tool in choice.allowed_tools.tools]
    return []


ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Reasoning(WireModel):
    """Another form of ``reasoning_effort``, which Ollama's own OpenAI API accepts, too."""

    effort: ReasoningEffort | None = None


class ChatCompletionRequest(GenerationRequest):
    """The body of ``POST v1/chat/completions``. Backends get it too."""

    prompt_field: ClassVar[str] = "messages"

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)

    max_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    max_completion_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    tools: Annotated[list[Tool], MaxLen(MAX_TOOLS), FirstErrorOnly()] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    reasoning: Reasoning | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    verbosity: Literal["low", "medium", "high"] | None = None

    # The form of "tools" and "tool_choice" that OpenAI deprecated, but still in use.
    functions: Annotated[list[Function], MaxLen(MAX_TOOLS), FirstErrorOnly()] | None = None
    function_call: FunctionCallChoice | None = None

    # Parsed only for the error that they are not supported.
    audio: Any = None
    modalities: Any = None
    prediction: Any = None
    web_search_options: Any = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_responses_api_parameters(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, advice in _RESPONSES_API_PARAMETERS.items():
                if value.get(name) is not None:
                    raise InvalidRequest(
                        f"'{name}' is a parameter of the Responses API. {advice}.", param=name
                    )
        return value

    @model_validator(mode="after")
    def _translate_functions(self) -> Self:
        choice = self.function_call
        if not self.functions:
            if isinstance(choice, FunctionName):
                raise InvalidRequest(
                    "'function_call' is only allowed when 'functions' are specified.",
                    param="function_call",
                )
            return self
        for name in ("tools", "tool_choice"):
            if getattr(self, name):
                raise InvalidRequest(
                    f"'functions' cannot be combined with '{name}': it is the deprecated form of "
                    "'tools'. Send only 'tools'.",
                    param="functions",
                )
        self.tools = [
            FunctionTool(type="function", function=function) for function in self.functions
        ]
        if isinstance(choice, FunctionName):
            if choice.name not in {function.name for function in self.functions}:
                raise InvalidRequest(
                    f"The function {choice.name!r} in 'function_call' is not one of 'functions'.",
                    param="function_call",
                )
            self.tool_choice = FunctionReference(type="function", function=choice)
        else:
            self.tool_choice = choice
        return self

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest(
                "'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs"
            )
        return self

    @model_validator(mode="after")
    def _translate_reasoning(self) -> Self:
        if self.reasoning_effort is None and self.reasoning is not None:
            self.reasoning_effort = self.reasoning.effort
        return self

    @model_validator(mode="after")
    def _check_tool_choice(self) -> Self:
        choice = self.tool_choice
        if choice in (None, "none", "auto"):
            return self
        if not self.tools:
            raise InvalidRequest(
                "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice"
            )
        known = {tool.function.name for tool in self.tools}
        for name in chosen_functions(choice):
            if name not in known:
                raise InvalidRequest(
                    f"Tool choice {name!r} not found in 'tools' parameter.", param="tool_choice"
                )
        return self

    @property
    def custom_tools(self) -> frozenset[str]:
        """The names of the functions that represent custom tools."""
        return frozenset(
            tool.function.name for tool in self.tools or () if isinstance(tool, CustomFunction)
        )

    @property
    def remote_images(self) -> list[tuple[str, ImageURL]]:
        """The images that have to be fetched, each with its location in the request."""
        return [
            (f"messages[{number}].content[{place}].image_url.url", part.image_url)
            for number, message in enumerate(self.messages)
            if isinstance(message.content, list)
            for place, part in enumerate(message.content)
            if isinstance(part, ImagePart) and part.image_url.data is None
        ]

    @property
    def image_url(self) -> bool:
        """Return whether a message has an image."""
        return self._has_part(ImagePart)

    @property
    def input_audio(self) -> bool:
        """Return whether a message has audio."""
        return self._has_part(AudioPart)

    def _has_part(self, kind: type[WireModel]) -> bool:
        return any(
            isinstance(part, kind)
            for message in self.messages
            if isinstance(message.content, list)
            for part in message.content
        )

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must match, or ``None``."""
        if isinstance(self.response_format, JSONSchemaFormat):
            return self.response_format.json_schema.schema_
        if isinstance(self.response_format, JSONObjectFormat):
            return self.response_format.schema_
        return None

    def translated_schema(
        self, translate: Callable[[dict[str, Any], str], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Return ``translate(schema, param)`` for :attr:`output_schema`, or ``None`` without
        one."""
        form = self.response_format
        if not isinstance(form, SchemaFormat):
            return None
        return form.translated(translate, self.schema_param)

    @property
    def schema_param(self) -> str:
        """The field of the request with :attr:`output_schema`."""
        if isinstance(self.response_format, JSONSchemaFormat):
            return "response_format.json_schema.schema"
        return "response_format.schema"

    def client_param(self, parameter: str) -> str:
        """Return the client's name for ``parameter``, such as ``functions`` for ``tools``."""
        return _DEPRECATED.get(parameter, parameter) if self.functions else parameter

    def without(self, parameters: Sequence[str]) -> Self:
        kinds = tuple(kind for name, kind in _MEDIA_PARTS.items() if name in parameters)
        fields = [name for name in parameters if name not in _MEDIA_PARTS]
        fields += [name for name, deprecated in _DEPRECATED.items() if deprecated in fields]
        request = super().without(fields)
        if kinds:
            request.messages = [_without_parts(message, kinds) for message in request.messages]
        return request

    @property
    def prompt_characters(self) -> int:
        return sum(map(_characters, self.messages))

    @property
    def output_limit(self) -> int | None:
        """The maximum number of completion tokens, under either of its two names."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens


_DEPRECATED: Final = {"tools": "functions", "tool_choice": "function_call"}

#: Parameters of the Responses API that would change the answer, and what to use instead.
_RESPONSES_API_PARAMETERS: Final = {
    spelling: advice
    for name, advice in {
        "input": "Send 'messages' instead",
        "instructions": "Send a message with the role 'system' instead",
        "max_output_tokens": "Use 'max_completion_tokens' instead",
        "previous_response_id": "Send the whole conversation as 'messages' instead",
        "text": "Use 'response_format' and 'verbosity' instead",
    }.items()
    for spelling in (name, to_camel(name))
}

#: The parts that not every engine supports, by their types.
_MEDIA_PARTS: Final[dict[str, type[WireModel]]] = {
    "image_url": ImagePart,
    "input_audio": AudioPart,
}


def _characters(message: Message) -> int:
    count = len(content_text(message.content))
    if isinstance(message, AssistantMessage):
        for text in (message.refusal, message.reasoning_content, message.reasoning):
            count += len(text or "")
        for call in message.tool_calls or ():
            count += len(call.function.arguments)
        if message.function_call is not None:
            count += len(message.function_call.arguments)
    return count


def _without_parts(message: Message, kinds: tuple[type[WireModel], ...]) -> Message:
    if not isinstance(message, (UserMessage, ToolMessage)) or isinstance(message.content, str):
        return message
    content = [part for part in message.content if not isinstance(part, kinds)]
    return message.model_copy(update={"content": content})
