"""Fields for what clients and models write: every database can store their values."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import CharField, JSONField, Model, TextField

from ._store.text import storable

__all__ = ["StoredCharField", "StoredJSONField", "StoredTextField"]


class _Stored:
    """Makes values storable, in the row that is saved, too. Migrations have Django's field."""

    def pre_save(self, model_instance: Model, add: bool) -> Any:
        value = storable(super().pre_save(model_instance, add))  # type: ignore[misc]  # a mixin
        setattr(model_instance, self.attname, value)  # type: ignore[attr-defined]  # a mixin
        return value

    def get_prep_value(self, value: Any) -> Any:
        return storable(super().get_prep_value(value))  # type: ignore[misc]  # a mixin

    def deconstruct(self) -> Any:
        name, _, args, keywords = super().deconstruct()  # type: ignore[misc]  # a mixin
        kind = next(each for each in type(self).__mro__ if each.__module__.startswith("django.db"))
        return name, f"django.db.models.{kind.__name__}", args, keywords


class StoredCharField(_Stored, CharField):  # type: ignore[type-arg]  # as its base class
    """A short text."""


class StoredTextField(_Stored, TextField):  # type: ignore[type-arg]  # as its base class
    """A text."""


class _Encoder(json.JSONEncoder):
    """Leaves other characters than ASCII as they are: escaped they take up to six bytes each, and
    databases limit the size of a statement."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


class StoredJSONField(_Stored, JSONField):
    """JSON."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "encoder": _Encoder})

    def deconstruct(self) -> Any:
        name, path, args, keywords = super().deconstruct()
        del keywords["encoder"]
        return name, path, args, keywords
