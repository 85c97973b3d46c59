"""``POST v1/chat/completions``. The gates before it stand in :func:`~.exchange.admit`."""

from __future__ import annotations

from functools import partial

from .. import _conf
from .._remote_images import ImageNotFetched, afetch_images, fetch_images
from .._translation.chat_completion import (
    ChatCompletionStream,
    ChatCompletionWriter,
    WholeChatCompletion,
)
from .._translation.tool_choice import answering
from .._wire.chat import ChatCompletionRequest
from ..backends import BaseBackend
from ..exceptions import InvalidRequest
from .completion import Asking, Choice, Completion, whole
from .exchange import Exchange, Reply, admit, check_choices, settle_parameters
from .flow import Flow, call
from .mount import Mount
from .routing import Route

__all__ = ["chat_choices", "complete_chat", "fetch_remote_images"]


def complete_chat(exchange: Exchange) -> Flow[Reply]:
    """Answer a chat completion request; raises as :meth:`Exchange.reply` does."""
    admitted = yield from admit(exchange, ChatCompletionRequest, "chat")
    body, route = admitted.body, admitted.route
    unsupported = [body.own_name(name) for name in route.backend.unsupported_parameters(body)]
    body, ignored = settle_parameters(body, unsupported, route)
    check_choices(body.n or 1, "n")
    yield from fetch_remote_images(body)
    choices = chat_choices(body)
    completion = Completion(
        route=route,
        request=body,
        choices=choices,
        account=exchange.account(
            admitted.caller, route, endpoint="chat.completions", body=body, choices=len(choices)
        ),
        writer=_writer(body, route, admitted.mount),
        is_stream=bool(body.stream),
    )
    return (yield from exchange.reply(completion, ignored))


def chat_choices(body: ChatCompletionRequest) -> list[Choice[ChatCompletionRequest]]:
    """One request for each choice that ``body`` asks for."""
    return [Choice(index, partial(_asking, body, index)) for index in range(body.n or 1)]


def _asking(body: ChatCompletionRequest, index: int, route: Route) -> Asking[ChatCompletionRequest]:
    backend: BaseBackend = route.backend
    request = body.routed_to(route.model, route.options).for_choice(index)
    methods = (
        (backend.stream_chat, backend.astream_chat)
        if body.stream
        else whole(backend.chat, backend.achat)
    )
    return Asking(answering(request, backend.supported_parameters), *methods)


def fetch_remote_images(body: ChatCompletionRequest) -> Flow[None]:
    """Fetch the pictures that ``body`` names by their address.

    Raises:
        InvalidRequest: one cannot be had, or the site does not fetch any.
    """
    images = body.remote_images
    if not images:
        return
    if not _conf.get().REMOTE_IMAGES:
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
        image.fetched(data)


def _writer(body: ChatCompletionRequest, route: Route, mount: Mount) -> ChatCompletionWriter:
    choices = body.n or 1
    if body.stream:
        return ChatCompletionStream(
            route.name,
            mount.case,
            choices=choices,
            include_usage=body.include_usage,
            calls_functions=bool(body.functions),
        )
    return WholeChatCompletion(
        route.name, mount.case, choices=choices, calls_functions=bool(body.functions)
    )
