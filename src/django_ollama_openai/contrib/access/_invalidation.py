"""Clear the caches of keys and limits when something changes that they depend on."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final, Literal

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from . import _key_cache
from ._limits import resolve
from .models import APIKey, APIKeySecret, Limit, Membership, Workspace
from .stores import StoreDown
from .stores._configured import limit_store

__all__ = ["connect"]

#: Fields of users whose changes take effect in other processes at once.
URGENT: Final = frozenset({"is_active", "is_superuser"})

logger = logging.getLogger("django_ollama_openai")


def connect() -> None:
    """Connect the receivers."""
    user = get_user_model()
    for model in (APIKey, APIKeySecret, Membership, Workspace, Group, user):
        for signal in (post_save, post_delete):
            signal.connect(_changed, sender=model, dispatch_uid=f"{__name__}.{model.__name__}")
    for signal in (post_save, post_delete):
        signal.connect(_limit_changed, sender=Limit, dispatch_uid=f"{__name__}.Limit")
    groups = getattr(user, "groups", None)
    if groups is not None:
        m2m_changed.connect(_changed, sender=groups.through, dispatch_uid=f"{__name__}.groups")


def _changed(
    sender: Any, using: str | None = None, update_fields: Any = None, **kwargs: Any
) -> None:
    # Django saves it at each login.
    if update_fields is not None and set(update_fields) == {"last_login"}:
        return
    # At once, for this transaction, and again for rows that others read before its end.
    _key_cache.cache.clear()
    transaction.on_commit(_key_cache.cache.clear, using=using)
    # Some sites save users at each request.
    if sender is not get_user_model() or update_fields is None or URGENT & set(update_fields):
        transaction.on_commit(partial(_announce, "keys"), using=using)


def _limit_changed(using: str | None = None, **kwargs: Any) -> None:
    resolve.cache.clear()
    transaction.on_commit(resolve.cache.clear, using=using)
    transaction.on_commit(partial(_announce, "limits"), using=using)


def _announce(what: Literal["keys", "limits"]) -> None:
    try:
        limit_store().announce(what)
    except StoreDown as error:
        logger.error(
            "A change of %s takes effect in other processes only after KEY_CACHE_SECONDS: %s",
            what,
            error,
        )
