"""API keys by their digests, remembered in the process for ``KEY_CACHE_SECONDS``."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from django.utils import timezone

from ...auth import Workspace
from ._members import is_member, workspaces_of
from .models import APIKeySecret, is_live

__all__ = ["KeyRecord", "clear", "load", "remembered"]

#: Keys, and digests that belong to no key, that are remembered at most.
MAX_RECORDS: Final = 10_000

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """All that a request needs to know of a key and one of its secrets.

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


class _Cache:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.generation = 0
        self.records: OrderedDict[str, tuple[float, KeyRecord | None]] = OrderedDict()


_cache = _Cache()


def clear() -> None:
    """Forget all keys, and what is being loaded at the moment."""
    with _cache.lock:
        _cache.generation += 1
        _cache.records.clear()


def remembered(digest: str, seconds: float) -> tuple[bool, KeyRecord | None]:
    """Return whether ``digest`` was loaded within ``seconds``, and the record of its key if it has
    one."""
    entry = _cache.records.get(digest)
    if entry is None or time.monotonic() - entry[0] >= seconds:
        return False, None
    return True, entry[1]


def load(digest: str) -> KeyRecord | None:
    """Load the key with ``digest`` from the database, and remember it."""
    generation, started = _cache.generation, time.monotonic()
    record = _read(digest)
    with _cache.lock:
        # What was read before a change must not be kept after it.
        if generation == _cache.generation:
            _cache.records[digest] = started, record
            _cache.records.move_to_end(digest)
            while len(_cache.records) > MAX_RECORDS:
                _cache.records.popitem(last=False)
    return record


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
