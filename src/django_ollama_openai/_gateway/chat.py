"""``POST v1/chat/completions``, and all other endpoints that answer with a chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _conf
from .._remote_images import ImageNotFetched, afetch_images, fetch_images
from .._translation.chat_completion import (
    ChatCompletionStream,
    ChatCompletionWriter,
    WholeChatCompletion,
)
from .._wire.chat import ChatCompletionRequest
from ..exceptions import GatewayError, InvalidRequest
from .accounting import Account
from .admission import Admission, NameFields
from .completion import Completion, chat_sources
from .delivery import Reply, Stopper, deliver
from .flow import Flow, call
from .recorder import BaseRecorder
from .stages import StageFactory

__all__ = ["chat_writer", "fetch_remote_images", "run_chat"]


def run_chat(
    admission: Admission[Any],
    *,
    stages: Sequence[StageFactory] = (),
    recorder: BaseRecorder | None = None,
    writer: ChatCompletionWriter | None = None,
    is_stream: bool | None = None,
    stopper: Stopper | None = None,
    is_detached: bool = False,
) -> Flow[Reply]:
    """Answer a chat, whose request is ``admission.engine_request``.

    ``stages`` are factories of stages, which are called once for each choice, the outermost first.
    ``recorder`` keeps the answer; ``writer`` turns it into bytes, those of a chat completion by
    default. ``is_stream`` is whether the client gets it in pieces, by default as the engine sends
    it. ``stopper`` may stop the answer. A detached answer is only started: its request ends, and
    the reply is empty.

    Raises:
        GatewayError: The answer failed before anything was sent; later errors are frames of the
            stream.
        ClientDisconnected: The client has disconnected.
    """
    body, route = admission.engine_request, admission.route
    if not isinstance(body, ChatCompletionRequest) or route is None:
        raise TypeError("run_chat() needs the admission of a chat.")
    yield from fetch_remote_images(admission)
    completion = _Chat(
        name_fields=admission.name_fields,
        route=route,
        request=body,
        sources=chat_sources(body, stages),
        account=Account(admission, choices=admission.choices, recorder=recorder),
        writer=writer or chat_writer(admission),
        is_stream=bool(body.stream) if is_stream is None else is_stream,
    )
    return (yield from deliver(admission, completion, stopper=stopper, is_detached=is_detached))


class _Chat(Completion):
    """A chat completion whose errors name the fields of the client's request."""

    def __init__(self, *, name_fields: NameFields | None, **options: Any) -> None:
        super().__init__(**options)
        self._name_fields = name_fields

    def to_client_error(self, error: Exception) -> GatewayError:
        client_error = super().to_client_error(error)
        if self._name_fields is not None:
            self._name_fields(client_error)
        return client_error


def fetch_remote_images(admission: Admission[Any]) -> Flow[None]:
    """Fetch the images that ``admission.engine_request`` refers to by URL, if it has not got them.

    :func:`run_chat` does it, too. Call it before what must not remain if an image is missing.

    Raises:
        InvalidRequest: One cannot be fetched, or the site does not fetch any.
    """
    body = admission.engine_request
    images = body.remote_images if isinstance(body, ChatCompletionRequest) else []
    if not images:
        return
    try:
        yield from _fetch(images, admission.settings)
    except GatewayError as error:
        if admission.name_fields is not None:
            admission.name_fields(error)
        raise


def _fetch(images: Sequence[tuple[str, Any]], settings: _conf.Settings) -> Flow[None]:
    if not settings.REMOTE_IMAGES:
        raise InvalidRequest(
            "This site does not fetch images. Send the image itself, as a data URI.",
            param=images[0][0],
        )
    urls = [image.url for _, image in images]
    try:
        fetched = yield from call(fetch_images, afetch_images, urls)
    except ImageNotFetched as error:
        error.param = images[error.index][0]
        raise
    for (_, image), data in zip(images, fetched, strict=True):
        image.set_data(data)


def chat_writer(
    admission: Admission[Any], *, id: str | None = None, is_kept: bool = False
) -> ChatCompletionStream | WholeChatCompletion:
    """Return the writer of the answer to a chat that has been admitted, streamed or whole as its
    request says. ``id`` is that of the completion, by default a new one. Of a stream that
    ``is_kept`` the writer has the whole completion, too."""
    body, name = admission.engine_request, admission.engine_route.name
    if not isinstance(body, ChatCompletionRequest):
        raise TypeError("chat_writer() needs the admission of a chat.")
    if body.stream:
        return ChatCompletionStream(
            name,
            admission.mount.case,
            choices=admission.choices,
            include_usage=body.include_usage,
            legacy_function_call=bool(body.functions),
            id=id,
            is_kept=is_kept,
        )
    return WholeChatCompletion(
        name,
        admission.mount.case,
        choices=admission.choices,
        legacy_function_call=bool(body.functions),
        id=id,
    )
