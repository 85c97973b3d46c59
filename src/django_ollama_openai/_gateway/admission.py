"""The gates that every request passes, in their order.

:func:`admit` takes an :class:`Incoming` request through all gates, from authentication to the
policies, and returns its :class:`Admission`. Endpoints that make a chat completion request from
something else pass the second half of the gates with :func:`admit_chat`. :func:`carry_out` settles
what policies hold for a request that did not reach an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeAlias, TypeVar

from django.http import HttpRequest

from .. import _conf
from .._wire.base import WireModel
from .._wire.chat import ChatCompletionRequest
from .._wire.completions import DEFAULT_OUTPUT_LIMIT, CompletionRequest
from .._wire.engine import EngineRequest
from .._wire.generation import GenerationRequest
from .._wire.query import QueryParameters
from ..auth import BaseAuthenticator, Caller, bearer_token
from ..exceptions import (
    AuthenticationFailed,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    PermissionDenied,
    UnsupportedParameter,
)
from .flow import Flow, call
from .mount import Mount
from .outcome import Outcome, failure_of
from .policy import Holds, policies
from .routing import Route, resolve_model

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "Admission",
    "Incoming",
    "NameFields",
    "admit",
    "admit_chat",
    "admit_without_engine",
    "apply_unsupported_policy",
    "authenticate",
    "authenticators",
    "carry_out",
    "check_prompt",
]

B = TypeVar("B")
M = TypeVar("M", bound=WireModel)
R = TypeVar("R", bound=EngineRequest)
T = TypeVar("T")

NameFields: TypeAlias = Callable[[GatewayError], None]

#: The estimate of OpenAI's documentation for English text.
CHARACTERS_PER_TOKEN: Final = 4


@dataclass(slots=True, frozen=True)
class Incoming:
    """A request before the gates, as the view passes it on.

    ``read_body(limit)`` returns the decoded body of at most ``limit`` bytes. ``is_disconnected()``
    returns, under WSGI, whether the client has closed its connection. ``captured`` has the
    arguments that the endpoint's path captures. ``headers`` are added to the response, also to an
    error response.
    """

    request: HttpRequest
    request_id: str
    settings: _conf.Settings = field(repr=False)
    read_body: Callable[[int], bytes]
    is_disconnected: Callable[[], bool]
    captured: Mapping[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Admission(Generic[B]):
    """A request that has passed the gates.

    ``endpoint`` is OpenAI's name of the endpoint, such as ``"chat.completions"``, or the name that
    an optional app has given its own. ``body`` is the validated request and ``query`` its validated
    query parameters, each ``None`` where an endpoint declares none. Where no engine is involved,
    ``route`` and ``engine_request`` are ``None``.

    ``prompt_tokens`` is an estimate: the characters of all messages, prompts or inputs, divided by
    four and rounded up. ``max_completion_tokens`` is the limit on the tokens of each choice, if the
    request or the site's settings of the model set one. ``choices`` is the number of choices, 0
    where the answer is not text.
    """

    incoming: Incoming = field(repr=False)
    endpoint: str
    scope: str | None
    caller: Caller
    mount: Mount
    body: B = field(repr=False)
    query: Any = field(default=None, repr=False)
    route: Route | None = None
    engine_request: EngineRequest | None = field(default=None, repr=False)
    ignored_parameters: tuple[str, ...] = ()
    prompt_tokens: int = 0
    max_completion_tokens: int | None = None
    choices: int = 0
    name_fields: NameFields | None = field(default=None, repr=False)
    holds: Holds = field(default_factory=Holds, repr=False)

    @property
    def engine_route(self) -> Route:
        """The route of a request to an engine.

        Raises:
            TypeError: No engine is involved.
        """
        if self.route is None:
            raise TypeError(f"The endpoint {self.endpoint!r} involves no engine.")
        return self.route

    @property
    def settings(self) -> _conf.Settings:
        """The settings, read once for the request."""
        return self.incoming.settings

    @property
    def request(self) -> HttpRequest:
        """The HTTP request."""
        return self.incoming.request

    @property
    def request_id(self) -> str:
        """The value of the response's ``x-request-id`` header."""
        return self.incoming.request_id

    @property
    def captured(self) -> Mapping[str, Any]:
        """The arguments that the endpoint's path captures."""
        return self.incoming.captured

    @property
    def headers(self) -> dict[str, str]:
        """Headers to add to the response, also to an error response; may be changed until the
        response begins."""
        return self.incoming.headers


def admit(
    incoming: Incoming,
    *,
    endpoint: str,
    scope: str | None,
    body: type[M] | M | None = None,
    query: type[QueryParameters] | None = None,
    needs_owner: bool = False,
    makes_chat: bool = False,
) -> Flow[Admission[Any]]:
    """Pass all gates, and return the admission.

    A ``scope`` of ``None`` admits all callers, without credentials and policies. ``body`` is the
    model of the request's body, which is then read, or a body that exists already; ``query`` is the
    model of its query parameters. With ``makes_chat`` the endpoint itself makes the chat completion
    request for the engine, and passes the remaining gates with :func:`admit_chat`.

    Raises:
        GatewayError: The request is refused.
    """
    settings = incoming.settings
    caller = Caller()
    if scope is not None:
        caller = yield from authenticate(incoming.request, settings)
        if not caller.may(scope):
            raise PermissionDenied(f"This API key lacks the scope {scope!r}.")
        if needs_owner and caller.owner is None:
            raise PermissionDenied("This request needs a user, a workspace or an API key.")
    parameters = None if query is None else query.read(incoming.request.GET.lists())
    content = b""
    if isinstance(body, type):
        content = incoming.read_body(settings.MAX_BODY_BYTES)
        body = body.parse(content)
    mount = Mount.of(incoming.request, settings)
    route: Route | None = None
    engine: dict[str, Any] = {}
    if isinstance(body, EngineRequest):
        characters = check_prompt(body, settings)
        if isinstance(body, GenerationRequest):
            _check_size(content, body.n or 1, settings)
        route = resolve_model(body.model, mount, settings, caller)
        route.backend.check_support(body)
        if not makes_chat:
            body, ignored = apply_unsupported_policy(
                body, _unsupported_parameters(body, route), route, settings
            )
            engine = _engine_fields(body, route, characters, ignored, settings)
    admission: Admission[Any] = Admission(
        incoming, endpoint, scope, caller, mount, body, parameters, route, **engine
    )
    if not makes_chat:
        yield from admission.holds.acquire(() if scope is None else policies(settings), admission)
    return admission


def admit_chat(
    admission: Admission[B],
    chat: ChatCompletionRequest,
    *,
    hints: Collection[str] = (),
    name_fields: NameFields | None = None,
) -> Flow[Admission[B]]:
    """Pass the gates that need the request for the engine, ``chat``, and return the admission.

    ``hints`` are parameters of ``chat`` that are ignored without notice where they are not
    supported. ``name_fields`` changes an error that names a field of ``chat``, so that it names one
    of the client's request.

    Raises:
        GatewayError: The request is refused.
        RuntimeError: The request has passed the last gates before: the endpoint does not declare
            ``makes_chat``.
    """
    if admission.holds.acquired:
        raise RuntimeError(f"The endpoint {admission.endpoint!r} must declare makes_chat=True.")
    settings, caller = admission.settings, admission.caller
    try:
        characters = check_prompt(chat, settings)
        route = admission.route or resolve_model(chat.model, admission.mount, settings, caller)
        route.backend.check_support(chat)
        unsupported = [name for name in _unsupported_parameters(chat, route) if name not in hints]
        chat, ignored = apply_unsupported_policy(chat, unsupported, route, settings)
        engine = _engine_fields(chat, route, characters, ignored, settings)
    except GatewayError as error:
        if name_fields is not None:
            name_fields(error)
        raise
    admitted = replace(admission, route=route, name_fields=name_fields, **engine)
    yield from admitted.holds.acquire(policies(settings), admitted)
    return admitted


def admit_without_engine(admission: Admission[B]) -> Flow[Admission[B]]:
    """Pass the last gates with a request of an endpoint that declares ``makes_chat``, but that
    needs no engine for this request; return the admission.

    Raises:
        GatewayError: A policy refuses the request.
    """
    yield from admission.holds.acquire(policies(admission.settings), admission)
    return admission


def carry_out(admission: Admission[Any], answer: Flow[T]) -> Flow[T]:
    """Run ``answer``, the handler's flow; then settle what policies hold, unless an engine answers:
    then the delivery has taken the holds over, and settles them at the end.

    Raises:
        RuntimeError: The request has not passed the policies: :func:`admit_chat` was not called.
    """
    try:
        result = yield from answer
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from admission.holds.settle(failure_of(error))
        raise
    if not admission.holds.acquired:
        raise RuntimeError(
            f"The endpoint {admission.endpoint!r} called neither admit_chat() nor "
            "admit_without_engine()."
        )
    yield from admission.holds.settle(Outcome())
    return result


def authenticate(request: HttpRequest, settings: _conf.Settings) -> Flow[Caller]:
    """Return the caller of ``request``.

    Raises:
        AuthenticationFailed: There are no valid credentials, and ``ALLOW_ANONYMOUS`` is not set.
    """
    for authenticator in authenticators(settings):
        caller = yield from call(authenticator.authenticate, authenticator.aauthenticate, request)
        if caller is not None:
            return caller
    if settings.ALLOW_ANONYMOUS:
        return Caller()
    if bearer_token(request) is not None:
        raise AuthenticationFailed("Incorrect API key provided.")
    raise AuthenticationFailed(
        "You didn't provide an API key. Send one in the header 'Authorization: Bearer YOUR_KEY', "
        "or log in to this site. (The site's owner sets keys in OLLAMA_OPENAI['API_KEYS'], creates "
        "them with the app django_ollama_openai.contrib.access, or admits all callers with "
        "OLLAMA_OPENAI['ALLOW_ANONYMOUS'] = True.)"
    )


def authenticators(settings: _conf.Settings) -> list[BaseAuthenticator]:
    """Return the site's authenticators in the order of ``AUTHENTICATION``.

    Raises:
        ImproperlyConfigured: One of them cannot be imported or created.
    """
    paths = settings.AUTHENTICATION
    return [_conf.make(path, BaseAuthenticator, "AUTHENTICATION") for path in paths]


def check_prompt(body: EngineRequest, settings: _conf.Settings) -> int:
    """Check the amount of text in ``body``, and return it, in characters.

    Raises:
        ContextLengthExceeded: It has more than ``MAX_PROMPT_CHARACTERS``.
    """
    count, limit = body.prompt_characters, settings.MAX_PROMPT_CHARACTERS
    if count > limit:
        raise ContextLengthExceeded(
            f"The text of this request has {count} characters; this site allows {limit}.",
            param=body.prompt_field,
        )
    return count


def apply_unsupported_policy(
    body: R, unsupported: list[str], route: Route, settings: _conf.Settings
) -> tuple[R, tuple[str, ...]]:
    """Reject or drop the parameters ``unsupported`` of ``body``, according to
    ``UNSUPPORTED_PARAMETERS``. Return the remaining request and the names of the dropped ones.

    Raises:
        UnsupportedParameter: They are rejected; the error names the first.
    """
    if not unsupported:
        return body, ()
    if settings.UNSUPPORTED_PARAMETERS == "reject":
        raise UnsupportedParameter(
            f"The model {route.name!r} does not support this value of '{unsupported[0]}' on this "
            "site. Omit the parameter.",
            param=unsupported[0],
        )
    return body.without(unsupported), tuple(unsupported)


def _check_size(content: bytes, n: int, settings: _conf.Settings) -> None:
    """Check a body that is held in memory, and sent, once for each of ``n`` choices.

    Raises:
        InvalidRequest: It is too large for that.
    """
    limit = settings.MAX_BODY_BYTES
    if n * len(content) > limit:
        raise InvalidRequest(
            f"This request is too large for {n} choices: its size times their number may be up to "
            f"{limit} bytes.",
            param="n",
        )


def _unsupported_parameters(body: EngineRequest, route: Route) -> list[str]:
    names = route.backend.unsupported_parameters(body)
    if isinstance(body, ChatCompletionRequest):
        return [body.client_param(name) for name in names]
    return names


def _engine_fields(
    request: EngineRequest,
    route: Route,
    characters: int,
    ignored: tuple[str, ...],
    settings: _conf.Settings,
) -> dict[str, Any]:
    """Return the fields of an admission that are about the request for the engine.

    Raises:
        InvalidRequest: There are too many choices.
    """
    return {
        "engine_request": request,
        "ignored_parameters": ignored,
        "prompt_tokens": -(-characters // CHARACTERS_PER_TOKEN),
        "max_completion_tokens": _output_limit(request, route),
        "choices": _choices(request, settings),
    }


def _choices(request: EngineRequest, settings: _conf.Settings) -> int:
    """Return the number of choices of the answer.

    Raises:
        InvalidRequest: It is more than ``MAX_CHOICES``.
    """
    if not isinstance(request, GenerationRequest):
        return 0
    count = n = request.n or 1
    param = "n"
    if isinstance(request, CompletionRequest):
        count = n * len(request.prompts())
        param = "n" if n > 1 else "prompt"
    if count > settings.MAX_CHOICES:
        raise InvalidRequest(
            f"This request asks for {count} choices; this site allows {settings.MAX_CHOICES}.",
            param=param,
        )
    return count


def _output_limit(request: EngineRequest, route: Route) -> int | None:
    if isinstance(request, ChatCompletionRequest):
        limit, default = request.output_limit, None
    elif isinstance(request, CompletionRequest):
        limit, default = request.max_tokens, DEFAULT_OUTPUT_LIMIT
    else:
        return None
    if limit is None and request.options is not None:
        limit = request.options.num_predict
    if limit is None:
        limit = route.options.get("num_predict", default)
    # In the site's settings it may also be -1, for no limit.
    return limit if isinstance(limit, int) and limit > 0 else None
