"""Forget remembered keys when something changes that they depend on."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from . import _key_cache
from .models import APIKey, APIKeySecret, Membership, Workspace

__all__ = ["connect"]


def connect() -> None:
    """Connect the receivers."""
    user = get_user_model()
    for model in (APIKey, APIKeySecret, Membership, Workspace, Group, user):
        for signal in (post_save, post_delete):
            signal.connect(_changed, sender=model, dispatch_uid=f"{__name__}.{model.__name__}")
    groups = getattr(user, "groups", None)
    if groups is not None:
        m2m_changed.connect(_changed, sender=groups.through, dispatch_uid=f"{__name__}.groups")


def _changed(using: str | None = None, update_fields: Any = None, **kwargs: Any) -> None:
    # Django saves it at each login.
    if update_fields is not None and set(update_fields) == {"last_login"}:
        return
    # At once, for this transaction, and again for what others read before its end.
    _key_cache.clear()
    transaction.on_commit(_key_cache.clear, using=using)
