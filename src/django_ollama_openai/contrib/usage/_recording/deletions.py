"""Keep the sums of days when a workspace, user or key is deleted: as in the records, its name
stays, and its id goes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db.models.signals import post_delete

from ..._inserts import insert_or_add
from ...access.models import APIKey, Workspace
from ..models import Dimension, UsageDay
from .sums import DAY_KEY, SUMS, series_of_subject, subject_of

__all__ = ["connect"]


def connect() -> None:
    """Follow deletions."""
    post_delete.connect(_forget_user, sender=get_user_model())
    post_delete.connect(_forget_workspace, sender=Workspace)
    post_delete.connect(_forget_key, sender=APIKey)


def _forget_user(instance: Any, **kwargs: Any) -> None:
    _forget(Dimension.USER, instance.pk)


def _forget_workspace(instance: Any, **kwargs: Any) -> None:
    _forget(Dimension.WORKSPACE, instance.pk)


def _forget_key(instance: Any, **kwargs: Any) -> None:
    _forget(Dimension.KEY, instance.pk)


def _forget(dimension: Dimension, key: Any) -> None:
    subject = subject_of(key)
    rows = UsageDay.objects.filter(
        dimension=dimension, series=series_of_subject(dimension, subject), subject=subject
    )
    found = list(rows)
    rows.delete()
    for row in found:
        row.subject, row.series = "", series_of_subject(dimension, row.name)
    # There may be others with this name, of one that was deleted before.
    insert_or_add(found, unique=DAY_KEY, added=SUMS)
