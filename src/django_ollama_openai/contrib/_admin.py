"""The base classes of admins: Django's, or those of django-unfold where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.apps import apps
from django.utils.module_loading import import_string

__all__ = ["HAS_UNFOLD", "ModelAdmin", "TabularInline"]

HAS_UNFOLD: Final = apps.is_installed("unfold")

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin, TabularInline
else:
    _package = "unfold.admin" if HAS_UNFOLD else "django.contrib.admin"
    ModelAdmin = import_string(f"{_package}.ModelAdmin")
    TabularInline = import_string(f"{_package}.TabularInline")
