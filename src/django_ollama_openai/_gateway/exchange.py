"""One request and its reply: the gates, the delivery, and all else that the use cases which ask a
backend have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.http import HttpRequest

from .. import _conf
from .._wire.engine import EngineRequest
from .._wire.generation import GenerationRequest
from ..auth import Caller
from ..exceptions import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from .accounting import Account
from .delivery import AsyncDelivery, Delivery, Timing
from .flow import Flow, call
from .gates import authenticate, authorise
from .mount import Mount
from .routing import Route, resolve_model
from .work import Work

__all__ = [
    "Admitted",
    "Exchange",
    "Reply",
    "admit",
    "check_choices",
    "check_prompt",
    "settle_parameters",
]

R = TypeVar("R", bound=EngineRequest)


@dataclass(slots=True, frozen=True)
class Exchange:
    """A request: ``read_body`` gives its body, within its limit; ``hung_up`` tells a synchronous
    driver whether the client has gone."""

    request: HttpRequest
    request_id: str
    read_body: Callable[[], bytes]
    hung_up: Callable[[], bool]

    def account(
        self, caller: Caller, route: Route, *, endpoint: str, body: EngineRequest, choices: int
    ) -> Account:
        """Where it is kept what answering comes to."""
        return Account(
            request=self.request,
            request_id=self.request_id,
            caller=caller,
            route=route,
            endpoint=endpoint,
            body=body,
            choices=choices,
        )

    def reply(self, work: Work[Any], ignored_parameters: tuple[str, ...] = ()) -> Flow[Reply]:
        """Do ``work``: all of it, or of a stream as much as it takes until it has begun.

        Raises:
            GatewayError: before anything was sent; later ones are frames of the stream.
            ClientGone: there is nobody to answer any more.
        """
        content = yield from call(self._deliver, self._adeliver, work)
        return Reply(content, ignored_parameters)

    def _deliver(self, work: Work[Any]) -> bytes | Delivery:
        delivery = Delivery(work, _timing(), self.hung_up)
        return delivery.start() if work.is_stream else delivery.read()

    async def _adeliver(self, work: Work[Any]) -> bytes | AsyncDelivery:
        delivery = AsyncDelivery(work, _timing())
        return await (delivery.start() if work.is_stream else delivery.read())


@dataclass(slots=True, frozen=True)
class Reply:
    """What the client gets: the body of the answer, or the events of a stream that has begun."""

    content: bytes | Delivery | AsyncDelivery
    ignored_parameters: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Admitted(Generic[R]):
    """A request that has passed the gates."""

    caller: Caller
    body: R
    mount: Mount
    route: Route


def admit(exchange: Exchange, kind: type[R], scope: str) -> Flow[Admitted[R]]:
    """The gates that every request for an engine passes, in their order: who is asking, whether
    they may, what they ask for, and which model is meant.

    Raises:
        GatewayError: the request is not let through.
    """
    caller = yield from authenticate(exchange.request)
    authorise(caller, scope)
    content = exchange.read_body()
    body = kind.parse(content)
    check_prompt(body)
    if isinstance(body, GenerationRequest):
        _check_size(content, body.n or 1)
    mount = Mount.of(exchange.request)
    route = resolve_model(body.model, mount)
    route.backend.check_support(body)
    return Admitted(caller, body, mount, route)


def settle_parameters(body: R, unsupported: list[str], route: Route) -> tuple[R, tuple[str, ...]]:
    """Refuse or drop what cannot be honoured, as ``UNSUPPORTED_PARAMETERS`` says.

    Raises:
        UnsupportedParameter: naming the first of ``unsupported``.
    """
    if not unsupported:
        return body, ()
    if _conf.get().UNSUPPORTED_PARAMETERS == "reject":
        raise UnsupportedParameter(
            f"The model {route.name!r} does not support what the parameter '{unsupported[0]}' asks "
            "for on this site. Leave it out.",
            param=unsupported[0],
        )
    return body.without(unsupported), tuple(unsupported)


def check_prompt(body: EngineRequest) -> None:
    """Whether there may be so much text for the engine in ``body``.

    Raises:
        ContextLengthExceeded: there may not.
    """
    count, limit = body.prompt_characters, _conf.get().MAX_PROMPT_CHARACTERS
    if count > limit:
        raise ContextLengthExceeded(
            f"The text of this request has {count} characters; this site allows {limit}.",
            param=body.prompt_field,
        )


def check_choices(count: int, param: str) -> None:
    """Whether an answer may have so many choices.

    Raises:
        InvalidRequest: it may not; ``param`` is what asks for them.
    """
    limit = _conf.get().MAX_CHOICES
    if count > limit:
        raise InvalidRequest(
            f"This request asks for {count} choices; this site allows {limit}.", param=param
        )


def _check_size(content: bytes, n: int) -> None:
    """Whether a request with the body ``content`` may ask for ``n`` choices: all of them together
    are held in memory, and sent.

    Raises:
        InvalidRequest: it may not.
    """
    limit = _conf.get().MAX_BODY_BYTES
    if n * len(content) > limit:
        raise InvalidRequest(
            f"This request is too large for {n} choices: once for each it may have up to {limit} "
            "bytes in all.",
            param="n",
        )


def _timing() -> Timing:
    settings = _conf.get()
    return Timing(settings.STREAM_KEEPALIVE_SECONDS, settings.CLIENT_TIMEOUT)
