"""Store when keys were last used, at most once a minute for each, outside of requests."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from datetime import timedelta
from typing import Final

from django.db.models import Q
from django.utils import timezone

from ..._ids import parse_public_id
from ...endpoints import BatchWriter
from .models import APIKey

__all__ = ["note", "writer"]

SECONDS: Final = 60.0
MAX_NOTED: Final = 10_000


def _write(ids: list[str]) -> None:
    keys = [pk for each in ids if (pk := parse_public_id(APIKey.prefix, each)) is not None]
    now = timezone.now()
    # Other processes may have written in the meantime.
    is_due = Q(last_used_at=None) | Q(last_used_at__lte=now - timedelta(seconds=SECONDS))
    APIKey.objects.filter(is_due, pk__in=keys).update(last_used_at=now)


writer = BatchWriter[str](_write, name="uses of API keys")
_lock = threading.Lock()
_noted: OrderedDict[str, float] = OrderedDict()


def note(key_id: str) -> None:
    """Note that the key with the public id ``key_id`` is used now."""
    now = time.monotonic()
    with _lock:
        noted = _noted.get(key_id)
        if noted is not None and now - noted < SECONDS:
            return
        _noted[key_id] = now
        _noted.move_to_end(key_id)
        if len(_noted) > MAX_NOTED:
            _noted.popitem(last=False)
    writer.put(key_id)
