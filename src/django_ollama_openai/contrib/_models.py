"""The base class of models whose rows clients name by a public id."""

from __future__ import annotations

from typing import ClassVar

from django.db.models import Model, UUIDField

from .._ids import public_id, uuid7

__all__ = ["PublicModel"]


class PublicModel(Model):
    """Abstract model with a UUID that sorts by time, and a public id with a prefix."""

    prefix: ClassVar[str]

    id = UUIDField(primary_key=True, default=uuid7, editable=False)

    class Meta:
        abstract = True

    @property
    def public_id(self) -> str:
        """Return the id that clients see, such as ``ws_0192…``."""
        return public_id(self.prefix, self.id)
