"""Authenticators of the app: API keys, and session users in their workspaces."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest

from ..._connections import close_expired_connections, run_and_close
from ..._threads import run_sync
from ...auth import BaseAuthenticator, Caller, SessionAuthenticator, bearer_token
from ...auth import Workspace as WorkspaceRecord
from ...exceptions import AuthenticationFailed, NotFound, Unavailable
from . import _key_cache, _keys, _last_used
from ._epoch_cache import Remembered
from ._members import workspaces_of
from .conf import access_settings

__all__ = ["APIKeyAuthenticator", "KeyCaller", "MemberAuthenticator"]

#: The header of OpenAI's clients that names a project, here a workspace: ``OpenAI-Project``.
PROJECT: Final = "HTTP_OPENAI_PROJECT"

logger = logging.getLogger("django_ollama_openai")


@dataclass(frozen=True, slots=True)
class KeyCaller(Caller):
    """A caller with an API key of this app.

    ``digest`` is the digest of the secret that was sent, ``epoch`` the epoch of keys in which
    the key was read from the database.
    """

    digest: str = field(default="", repr=False)
    epoch: str = field(default="", repr=False)


class APIKeyAuthenticator(BaseAuthenticator):
    """Recognizes the API keys in the database, sent as bearer tokens."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        digest = _digest(request)
        if digest is None:
            return None
        known = _key_cache.remembered(digest, access_settings().KEY_CACHE_SECONDS)
        if known is None:
            with _from_database("An API key"):
                known = _key_cache.load(digest)
            # A stream may last minutes: the connection that read the key is not kept for it.
            close_expired_connections()
        return _caller(digest, known, request)

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        digest = _digest(request)
        if digest is None:
            return None
        known = _key_cache.remembered(digest, access_settings().KEY_CACHE_SECONDS)
        if known is None:
            with _from_database("An API key"):
                known = await run_sync(run_and_close, _key_cache.load, digest)
        return _caller(digest, known, request)


class MemberAuthenticator(SessionAuthenticator):
    """Recognizes the user of a session, as :class:`SessionAuthenticator` does, in a workspace."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        caller = super().authenticate(request)
        if caller is None:
            return None
        with _from_database("The workspaces of a user"):
            found = [each.as_record() for each in workspaces_of(caller.user).order_by("pk")]
        # As the base class does: a stream may last minutes.
        close_expired_connections()
        return Caller(user=caller.user, workspace=_chosen(found, request))


@contextmanager
def _from_database(what: str) -> Iterator[None]:
    """Log that ``what`` cannot be read if the database fails.

    Raises:
        Unavailable: It has failed.
    """
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        logger.error("%s could not be read", what, exc_info=error)
        raise Unavailable("The caller cannot be checked at the moment. Try again later.") from error


def _digest(request: HttpRequest) -> str | None:
    """Return the digest of the bearer token of ``request``, if it has the form of a key of
    this app."""
    token = bearer_token(request)
    return _keys.digest(token) if token is not None and _keys.is_well_formed(token) else None


def _caller(
    digest: str, known: Remembered[_key_cache.KeyRecord | None], request: HttpRequest
) -> Caller | None:
    record = known.value
    if record is None or not record.is_valid():
        return None
    if not record.admits(request.META.get("REMOTE_ADDR", "")):
        raise AuthenticationFailed(
            "This API key may not be used from your IP address.", code="ip_not_authorized"
        )
    _last_used.note(record.id)
    available = record.workspaces if record.workspace is None else (record.workspace,)
    return KeyCaller(
        user=record.user,
        key_id=record.id,
        key_name=record.name,
        scopes=record.scopes,
        workspace=_chosen(available, request),
        models=record.models,
        digest=digest,
        epoch=known.epoch,
    )


def _chosen(available: Sequence[WorkspaceRecord], request: HttpRequest) -> WorkspaceRecord | None:
    """Return the workspace that the request names, or the only one.

    Raises:
        NotFound: The request names a workspace that is not among ``available``.
    """
    wanted = request.META.get(PROJECT)
    if wanted:
        for each in available:
            if each.id == wanted:
                return each
        raise NotFound(f"There is no project {wanted[:100]!r}.", code="project_not_found")
    return available[0] if len(available) == 1 else None
