"""Write when keys were last used, at most once a minute for each, and off the requests."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from django.utils import timezone

from ...endpoints import BatchWriter
from .._ids import parse_public_id
from .models import APIKey

__all__ = ["note", "writer"]

SECONDS: Final = 60.0
MAX_NOTED: Final = 10_000


def _write(ids: list[str]) -> None:
    keys = [pk for each in ids if (pk := parse_public_id(APIKey.prefix, each)) is not None]
    APIKey.objects.filter(pk__in=keys).update(last_used_at=timezone.now())


writer = BatchWriter[str](_write, name="uses of API keys")
_noted: OrderedDict[str, float] = OrderedDict()


def note(key_id: str) -> None:
    """Note that the key with the public id ``key_id`` is used now."""
    now = time.monotonic()
    if now - _noted.get(key_id, -SECONDS) >= SECONDS:
        _noted[key_id] = now
        _noted.move_to_end(key_id)
        if len(_noted) > MAX_NOTED:
            _noted.popitem(last=False)
        writer.put(key_id)
