"""Authenticators find the :class:`Caller` of a request.

A site names them by dotted path in ``AUTHENTICATION``, in the order in which they are tried:
``None`` leaves a request to the next, an exception refuses it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from . import _conf
from ._connections import close_expired_connections, run_and_close
from ._threads import run_sync
from .exceptions import InvalidRequest, PermissionDenied

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

__all__ = [
    "ANY_SCOPE",
    "BaseAuthenticator",
    "Caller",
    "SessionAuthenticator",
    "StaticKeyAuthenticator",
    "Workspace",
    "bearer_token",
]


#: The scope of endpoints that are for all callers with credentials, whatever theirs are.
ANY_SCOPE: Final = ""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A group of users and keys that share models, limits and stored things.

    ``models`` limits the models that exist for it, as :attr:`Caller.models` does.
    """

    id: str
    name: str
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. Without a user, a workspace and a key it is anonymous.

    ``scopes`` limits what the caller may do: ``"chat"``, ``"models"`` and so on. ``models`` limits
    the models that exist for the caller: glob patterns of public names, beside those of the
    workspace. ``None`` means no limit, except that the scope ``"admin"`` has to be named.
    """

    user: AbstractBaseUser | None = None
    key_id: str | None = None
    key_name: str | None = None
    scopes: frozenset[str] | None = None
    workspace: Workspace | None = None
    models: tuple[str, ...] | None = None

    @property
    def owner(self) -> str | None:
        """The owner of things that are stored for the caller: ``"user:7"``, ``"workspace:ws_…"`` or
        ``"key:wiki"``, the first that the caller has; ``None`` for an anonymous caller."""
        if self.user is not None:
            return f"user:{self.user.pk}"
        if self.workspace is not None:
            return f"workspace:{self.workspace.id}"
        return None if self.key_id is None else f"key:{self.key_id}"

    def may(self, scope: str) -> bool:
        """Return whether the caller's scopes include ``scope``."""
        if scope == ANY_SCOPE:
            return True
        return scope != "admin" if self.scopes is None else scope in self.scopes

    def may_use(self, model: str) -> bool:
        """Return whether the model with the public name ``model`` exists for the caller."""
        of_workspace = None if self.workspace is None else self.workspace.models
        return all(
            patterns is None or any(fnmatchcase(model, each) for each in patterns)
            for patterns in (self.models, of_workspace)
        )


def bearer_token(request: HttpRequest) -> str | None:
    """Return the token of the ``Authorization: Bearer …`` header, if there is one."""
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class BaseAuthenticator:
    """Recognizes one kind of credentials."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        """Return the caller of ``request``, or ``None`` if it has no credentials of this kind.

        Raises:
            AuthenticationFailed: The credentials are wrong.
            PermissionDenied: The credentials are right, and do not allow this request.
        """
        raise NotImplementedError(f"{type(self).__name__} must define authenticate()")

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        """Async version of :meth:`authenticate`; runs it in a thread unless overridden, and then
        closes the connections to the database of that thread."""
        return await run_sync(run_and_close, self.authenticate, request)


#: Hexadecimal digits of the SHA-256 in the id of a key without a name.
ID_DIGITS: Final = 12


class StaticKeyAuthenticator(BaseAuthenticator):
    """Recognizes the keys in ``API_KEYS``, sent as bearer tokens."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        token = bearer_token(request)
        if token is None:
            return None
        digest = _digest(token)
        caller: Caller | None = None
        # All keys are compared, in constant time, so that the time reveals nothing about them.
        for number, key in enumerate(_conf.get().API_KEYS, start=1):
            if hmac.compare_digest(digest, _digest(key.KEY)):
                # Positions change when keys are added; the owner of what is stored must not.
                caller = Caller(
                    key_id=key.NAME or f"static-{digest.hex()[:ID_DIGITS]}",
                    key_name=key.NAME or f"static-{number}",
                )
        return caller

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        return self.authenticate(request)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, which returns the reason of a refusal instead of an HTML page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _no_view(*args: Any, **kwargs: Any) -> HttpResponse:
    raise NotImplementedError("The CSRF check calls no view.")


class SessionAuthenticator(BaseAuthenticator):
    """Recognizes the user whom Django's own middleware has logged in, and checks the CSRF token.

    A request with a bearer token never belongs to the session: a wrong key must not pass because of
    a cookie.
    """

    def authenticate(self, request: HttpRequest) -> Caller | None:
        if bearer_token(request) is not None:
            return None
        user = getattr(request, "user", None)
        if user is None or not (user.is_authenticated and user.is_active):
            return None
        self.check_csrf(request)
        # A stream may last minutes: the connection that read the user is not kept for it.
        close_expired_connections()
        return Caller(user=user)

    def check_csrf(self, request: HttpRequest) -> None:
        """Refuse a request that another site could have made the user's browser send.

        Raises:
            InvalidRequest: The body is not declared as JSON, like that of an HTML form.
            PermissionDenied: The CSRF token is missing or wrong.
        """
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        # Forms and pages of other sites can only send POST without the browser's permission.
        has_body = bool(request.content_type) or request.method == "POST"
        if has_body and request.content_type != "application/json":
            raise InvalidRequest("Requests of a session must be sent as application/json.")
        check = _CsrfCheck(_no_view)
        check.process_request(request)
        reason = check.process_view(request, _no_view, (), {})
        if reason:
            raise PermissionDenied(f"CSRF check failed: {reason}", code="csrf_failed")
