"""``POST v1/chat/completions``: the order of the gates stands in :func:`complete_chat`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest

from .. import conf
from ..exceptions import UnsupportedParameter
from ..translation.chat_completion import (
    ChatCompletionStream,
    ChatCompletionWriter,
    WholeChatCompletion,
)
from ..wire.chat import ChatCompletionRequest
from .accounting import Account
from .completion import Completion
from .delivery import AsyncDelivery, Delivery
from .flow import Flow, call
from .gates import authenticate, authorise
from .mount import Mount
from .routing import Route, resolve_model

__all__ = ["Reply", "complete_chat"]


@dataclass(slots=True, frozen=True)
class Reply:
    """What the client gets: the body of the answer, or the events of a stream that has begun."""

    content: bytes | Delivery | AsyncDelivery
    ignored_parameters: tuple[str, ...]


def complete_chat(
    request: HttpRequest,
    *,
    request_id: str,
    read_body: Callable[[], bytes],
    hung_up: Callable[[], bool],
) -> Flow[Reply]:
    """Answer a chat completion request.

    ``read_body`` gives the body, within its limit; ``hung_up`` tells a synchronous driver whether
    the client has gone.

    Raises:
        GatewayError: before anything was sent; later ones are frames of the stream.
        ClientGone: there is nobody to answer any more.
    """
    caller = yield from authenticate(request)
    authorise(caller, "chat")
    body = ChatCompletionRequest.parse(read_body())
    mount = Mount.of(request)
    route = resolve_model(body.model, mount)
    body, ignored = _settle_parameters(body, route)
    completion = Completion(
        request=body,
        route=route,
        writer=_writer(body, route, mount),
        account=Account(
            request=request, request_id=request_id, caller=caller, body=body, route=route
        ),
    )
    keepalive = conf.get().STREAM_KEEPALIVE_SECONDS
    delivery = Delivery(completion, keepalive, hung_up)
    adelivery = AsyncDelivery(completion, keepalive)
    content: bytes | Delivery | AsyncDelivery
    if body.stream:
        content = yield from call(delivery.start, adelivery.start)
    else:
        content = yield from call(delivery.read, adelivery.read)
    return Reply(content, ignored)


def _settle_parameters(
    body: ChatCompletionRequest, route: Route
) -> tuple[ChatCompletionRequest, tuple[str, ...]]:
    """Refuse or drop what the backend cannot honour, as ``UNSUPPORTED_PARAMETERS`` says."""
    unsupported = tuple(route.backend.unsupported_parameters(body))
    if not unsupported:
        return body, ()
    if conf.get().UNSUPPORTED_PARAMETERS == "reject":
        raise UnsupportedParameter(
            f"The model {route.name!r} does not support this use of the parameter "
            f"'{unsupported[0]}'.",
            param=unsupported[0],
        )
    return body.model_copy(update=dict.fromkeys(unsupported)), unsupported


def _writer(body: ChatCompletionRequest, route: Route, mount: Mount) -> ChatCompletionWriter:
    if body.stream:
        return ChatCompletionStream(route.name, mount.case, include_usage=body.include_usage)
    return WholeChatCompletion(route.name, mount.case)
