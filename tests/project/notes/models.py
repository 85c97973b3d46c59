from __future__ import annotations

from typing import ClassVar

from django.db import models

__all__ = ["Note", "Use", "View"]


class Note(models.Model):
    """A text of an owner, with the chat about it."""

    owner = models.CharField(max_length=100, db_index=True)
    title = models.CharField(max_length=100)
    text = models.TextField(blank=True)
    metadata = models.JSONField(default=dict)
    messages = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    # Type checkers do not know that the app may be installed.
    objects: ClassVar[models.Manager[Note]] = models.Manager()

    def __str__(self) -> str:
        return self.title


class View(models.Model):
    """One look at a note, which a batch writer writes."""

    request_id = models.CharField(max_length=128)
    note_id = models.BigIntegerField()

    objects: ClassVar[models.Manager[View]] = models.Manager()

    def __str__(self) -> str:
        return self.request_id


class Use(models.Model):
    """One request of an owner, as a policy has settled it."""

    request_id = models.CharField(max_length=128)
    endpoint = models.CharField(max_length=100)
    owner = models.CharField(max_length=100)
    result = models.CharField(max_length=100)
    tokens = models.PositiveIntegerField()

    objects: ClassVar[models.Manager[Use]] = models.Manager()

    def __str__(self) -> str:
        return self.request_id
