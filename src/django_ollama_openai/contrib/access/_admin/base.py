"""The base classes of the admin: Django's, or those of django-unfold where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.widgets import (
    AdminTextareaWidget,
    AutocompleteSelectMultiple,
    ManyToManyRawIdWidget,
)
from django.db.models import Model
from django.forms import CheckboxSelectMultiple, Widget
from django.http import HttpRequest
from django.utils.module_loading import import_string

from ..._admin import HAS_UNFOLD
from ..._admin import ModelAdmin as _ModelAdmin
from ..._admin import TabularInline as _TabularInline

__all__ = [
    "Checkboxes",
    "ModelAdmin",
    "TabularInline",
    "Textarea",
    "is_searchable",
    "several_users",
]


def _widget(unfold: str, stock: type[Widget]) -> type[Widget]:
    return import_string(f"unfold.widgets.{unfold}") if HAS_UNFOLD else stock


Textarea = _widget("UnfoldAdminTextareaWidget", AdminTextareaWidget)
Checkboxes = _widget("UnfoldAdminCheckboxSelectMultipleWidget", CheckboxSelectMultiple)


def is_searchable(site: admin.AdminSite, model: type[Model]) -> bool:
    """Return whether ``site`` can search ``model``, as autocomplete fields require."""
    return site.is_registered(model) and bool(site.get_model_admin(model).search_fields)


def several_users(site: admin.AdminSite, field: Any) -> Widget:
    """Return a widget to choose several rows of the model that the foreign key ``field`` names."""
    if is_searchable(site, field.related_model):
        return AutocompleteSelectMultiple(field, site)
    return ManyToManyRawIdWidget(field.remote_field, site)


class _Related:
    """Choose related rows with autocomplete fields if the admin can search them, else by id, since
    a list of all workspaces, users or keys may be very long."""

    related_fields: ClassVar[Sequence[str]] = ()
    model: type[Model]
    admin_site: admin.AdminSite

    if not TYPE_CHECKING:
        # The stubs declare a plain attribute.
        @property
        def raw_id_fields(self) -> list[str]:
            return [name for name in self.related_fields if not self._is_searchable(name)]

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        return [name for name in self.related_fields if self._is_searchable(name)]

    def _is_searchable(self, name: str) -> bool:
        model: Any = self.model._meta.get_field(name).related_model
        return is_searchable(self.admin_site, model)


class ModelAdmin(_Related, _ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """The base of this app's admins."""

    show_full_result_count = False
    list_per_page = 50

    class Media:
        css: ClassVar = {"all": ["ollama_openai_access/admin.css"]}
        js: ClassVar = ["ollama_openai_access/admin.js"]


class TabularInline(_Related, _TabularInline):  # type: ignore[type-arg]  # as above
    """The base of this app's inlines."""

    extra = 0

    class Media:
        css: ClassVar = {"all": ["ollama_openai_access/admin.css"]}
