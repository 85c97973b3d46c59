"""The gates that every request passes, in the order in which a use case calls them."""

from __future__ import annotations

from django.http import HttpRequest

from .. import _conf
from ..auth import BaseAuthenticator, Caller, bearer_token
from ..exceptions import AuthenticationFailed, PermissionDenied
from .flow import Flow, call

__all__ = ["authenticate", "authenticators", "authorise"]


def authenticate(request: HttpRequest) -> Flow[Caller]:
    """Who is asking.

    Raises:
        AuthenticationFailed: nobody that the site lets in.
    """
    for authenticator in authenticators():
        caller = yield from call(authenticator.authenticate, authenticator.aauthenticate, request)
        if caller is not None:
            return caller
    if _conf.get().ALLOW_ANONYMOUS:
        return Caller()
    if bearer_token(request) is not None:
        raise AuthenticationFailed("Incorrect API key provided.")
    raise AuthenticationFailed(
        "You didn't provide an API key. Send one in the header 'Authorization: Bearer YOUR_KEY', "
        "or log in to this site. (The site's owner sets keys in OLLAMA_OPENAI['API_KEYS'], or "
        "lets everybody in with OLLAMA_OPENAI['ALLOW_ANONYMOUS'] = True.)"
    )


def authorise(caller: Caller, scope: str) -> None:
    """Whether they may do this.

    Raises:
        PermissionDenied: ``scope`` is not among the caller's.
    """
    if not caller.may(scope):
        raise PermissionDenied(f"This API key lacks the scope {scope!r}.")


def authenticators() -> list[BaseAuthenticator]:
    """The site's authenticators, in the order in which they are asked."""
    paths = _conf.get().AUTHENTICATION
    return [_conf.make(path, BaseAuthenticator, "AUTHENTICATION") for path in paths]
