"""Form fields for lists in JSON fields, where ``None`` allows everything."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from ..validators import SCOPES
from .base import Checkboxes, Textarea

__all__ = ["KeyForm", "WorkspaceForm"]


class LinesField(forms.CharField):
    """A list of strings, one per line; ``None`` if there are none."""

    widget = Textarea

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self.widget.attrs["rows"] = 3

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, list):
            return value
        return [line.strip() for line in value.splitlines() if line.strip()] or None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool((initial or None) != self.to_python(data))


class ScopesField(forms.MultipleChoiceField):
    """The scopes of a key; ``None`` if none is chosen."""

    widget = Checkboxes

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, choices=[(each, each) for each in SCOPES], **kwargs)

    def clean(self, value: Any) -> Any:
        return super().clean(value) or None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return set(initial or ()) != set(data or ())


class _ListsForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A form of a model with lists.

    An empty list, which API clients may set, allows nothing. A field that is left empty keeps it,
    so that saving the form does not allow more.
    """

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        for name in ("scopes", "models", "networks"):
            if name in cleaned and cleaned[name] is None and getattr(self.instance, name) == []:
                cleaned[name] = []
        return cleaned


MODELS_HELP = _("Patterns of model names, one per line, such as llama3*. Leave empty for all.")
NETWORKS_HELP = _(
    "Networks that may use the key, one per line, such as 10.0.0.0/8. Leave empty for all."
)
SCOPES_HELP = _("What the key may do. Choose none for everything except “admin”.")


class WorkspaceForm(_ListsForm):
    """The form of a workspace."""

    models = LinesField(label=capfirst(_("models")), help_text=MODELS_HELP)


class KeyForm(_ListsForm):
    """The form of an API key."""

    scopes = ScopesField(label=capfirst(_("scopes")), help_text=SCOPES_HELP)
    models = LinesField(label=capfirst(_("models")), help_text=MODELS_HELP)
    networks = LinesField(label=capfirst(_("networks")), help_text=NETWORKS_HELP)
