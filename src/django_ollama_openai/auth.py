"""Who is asking: authenticators turn a request into a :class:`Caller`.

They are named by dotted path in ``AUTHENTICATION`` and asked in order. ``None`` means "not mine,
ask the next"; raising means "mine, but bad".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import close_old_connections, connections
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from . import _conf
from ._threads import in_thread
from .exceptions import InvalidRequest, PermissionDenied

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

__all__ = [
    "BaseAuthenticator",
    "Caller",
    "SessionAuthenticator",
    "StaticKeyAuthenticator",
    "Workspace",
    "bearer_token",
]


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace that a caller acts for."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from. Without a user and a key, it is anybody.

    ``scopes`` limits what the caller may use: ``"chat"``, ``"models"`` and so on; ``None`` means
    everything. ``models`` are glob patterns of the models that exist for the caller; ``None``
    means all.
    """

    user: AbstractBaseUser | None = None
    key_id: str | None = None
    key_name: str | None = None
    scopes: frozenset[str] | None = None
    workspace: Workspace | None = None
    models: tuple[str, ...] | None = None

    @property
    def owner(self) -> str | None:
        """The owner of what the caller stores: ``"user:7"``, ``"workspace:ws_…"`` or
        ``"key:wiki"``, the first that there is; ``None`` for anybody."""
        if self.user is not None:
            return f"user:{self.user.pk}"
        if self.workspace is not None:
            return f"workspace:{self.workspace.id}"
        return None if self.key_id is None else f"key:{self.key_id}"

    def may(self, scope: str) -> bool:
        """Whether the caller's scopes include ``scope``."""
        return self.scopes is None or scope in self.scopes


def bearer_token(request: HttpRequest) -> str | None:
    """The token of an ``Authorization: Bearer …`` header, if there is one."""
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class BaseAuthenticator:
    """Recognises one kind of credentials."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        """The caller that ``request`` comes from, or ``None`` if its credentials are not of this
        kind.

        Raises:
            AuthenticationFailed: they are of this kind, and wrong.
            PermissionDenied: they are right, and may not be used like this.
        """
        raise NotImplementedError(f"{type(self).__name__} must define authenticate()")

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        """The same under ASGI; runs :meth:`authenticate` in a thread unless overridden."""
        return await in_thread(self.authenticate, request)


class StaticKeyAuthenticator(BaseAuthenticator):
    """The keys in ``API_KEYS``, sent as bearer tokens."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        token = bearer_token(request)
        if token is None:
            return None
        given = _digest(token)
        found: Caller | None = None
        # Every key is compared, in constant time: how long it takes says nothing about them.
        for number, key in enumerate(_conf.get().API_KEYS, start=1):
            if hmac.compare_digest(given, _digest(key.KEY)):
                name = key.NAME or f"static-{number}"
                found = Caller(key_id=name, key_name=name)
        return found

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        return self.authenticate(request)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, giving the reason of a refusal instead of an HTML page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _no_view(*args: Any, **kwargs: Any) -> HttpResponse:
    raise NotImplementedError("The CSRF check calls no view.")


class SessionAuthenticator(BaseAuthenticator):
    """The user that Django's own middleware has logged in, with the CSRF check of a form.

    A request with a bearer token is never taken for the session's: a wrong key must not pass
    because of a cookie.
    """

    def authenticate(self, request: HttpRequest) -> Caller | None:
        caller = self._find(request)
        if caller is not None:
            # A stream may last minutes: the connection that found the user is not held for it.
            close_old_connections()
        return caller

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        return await in_thread(self._find_and_close, request)

    def _find_and_close(self, request: HttpRequest) -> Caller | None:
        caller = self._find(request)
        if caller is not None:
            # The thread is the request's own under ASGI, and so is its connection: what
            # CONN_MAX_AGE kept would be of no use to other requests.
            for connection in connections.all(initialized_only=True):
                if not connection.in_atomic_block:
                    connection.close()
        return caller

    def _find(self, request: HttpRequest) -> Caller | None:
        if bearer_token(request) is not None:
            return None
        user = getattr(request, "user", None)
        if user is None or not (user.is_authenticated and user.is_active):
            return None
        self.check_csrf(request)
        return Caller(user=user)

    def check_csrf(self, request: HttpRequest) -> None:
        """Refuse what another site could have made the user's browser send.

        Raises:
            InvalidRequest: a body that is not declared as JSON, as HTML forms send it.
            PermissionDenied: no CSRF token, or a wrong one.
        """
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        if request.content_type != "application/json":
            raise InvalidRequest("Requests of a session must be sent as application/json.")
        check = _CsrfCheck(_no_view)
        check.process_request(request)
        reason = check.process_view(request, _no_view, (), {})
        if reason:
            raise PermissionDenied(f"CSRF check failed: {reason}", code="csrf_failed")
