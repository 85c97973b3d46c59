"""API keys by their digests, cached in the process for ``KEY_CACHE_SECONDS``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from django.db import router
from django.utils import timezone

from ..._connections import call_reconnecting
from ..._threads import in_separate_thread
from ...auth import Workspace
from ._epoch_cache import EpochCache, Remembered
from ._members import is_member, workspaces_of
from .models import APIKeySecret, is_live

__all__ = ["KeyRecord", "ais_usable", "cache", "is_usable", "load", "remembered"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The data of a key and one of its secrets that a request needs.

    ``workspaces`` are those of the user of a key that belongs to no workspace itself.
    """

    id: str
    name: str
    user: Any
    workspace: Workspace | None
    workspaces: tuple[Workspace, ...]
    scopes: frozenset[str] | None
    models: tuple[str, ...] | None
    networks: tuple[Network, ...] | None
    ends: tuple[datetime | None, ...]

    def is_valid(self) -> bool:
        """Return whether neither the key nor the secret has expired."""
        now = timezone.now()
        return all(is_live(end, now) for end in self.ends)

    def admits(self, address: str) -> bool:
        """Return whether the key may be used from the IP address ``address``."""
        if self.networks is None:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self.networks)


#: The records of keys, by digest. A digest that belongs to no key is not cached: clients could
#: fill the cache with such, and a key would be refused for a while after it is made.
cache: Final = EpochCache[str, "KeyRecord | None"](max_entries=10_000)


def remembered(digest: str, seconds: float) -> Remembered[KeyRecord | None] | None:
    """Return the record of the key with ``digest`` if it was loaded within ``seconds``."""
    return cache.get(digest, seconds)


def load(digest: str) -> Remembered[KeyRecord | None]:
    """Load the key with ``digest`` from the database and cache it."""
    alias = router.db_for_read(APIKeySecret)
    return cache.load(digest, lambda: call_reconnecting(alias, _read, digest))


def is_usable(digest: str) -> bool:
    """Return whether the key with ``digest`` is valid now, according to the database."""
    record = load(digest).value
    return record is not None and record.is_valid()


async def ais_usable(digest: str) -> bool:
    """Async version of :func:`is_usable`; runs it in a thread."""
    return await in_separate_thread(is_usable, digest)


def _read(digest: str) -> KeyRecord | None:
    secret = (
        APIKeySecret.objects.select_related("key__user", "key__workspace")
        .filter(digest=digest, key__revoked_at=None)
        .first()
    )
    if secret is None:
        return None
    key = secret.key
    user, workspace = key.user, key.workspace
    if user is not None and not user.is_active:
        return None
    if workspace is not None:
        if not workspace.is_active:
            return None
        if user is not None and not is_member(workspace, user):
            return None
    own = workspaces_of(user).order_by("pk") if user is not None and workspace is None else ()
    return KeyRecord(
        id=key.public_id,
        name=key.name,
        user=user,
        workspace=None if workspace is None else workspace.as_record(),
        workspaces=tuple(each.as_record() for each in own),
        scopes=None if key.scopes is None else frozenset(key.scopes),
        models=None if key.models is None else tuple(key.models),
        networks=None
        if key.networks is None
        else tuple(ipaddress.ip_network(network) for network in key.networks),
        ends=(secret.expires_at, key.expires_at),
    )
