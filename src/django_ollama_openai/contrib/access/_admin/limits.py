"""The admin of limits, and the limits on the pages of workspaces, keys and users."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ....auth import Caller
from .._limits.resolve import applied_limits, subjects_of
from ..models import APIKey, Limit, Target, Unit, Workspace
from ..pricing import pricer
from .base import ModelAdmin, TabularInline
from .use import ShowsUse, UseChangeList, attach_uses, limits_with_uses

__all__ = ["KeyLimitInline", "LimitAdmin", "UserLimitInline", "WorkspaceLimitInline"]


class _LimitForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A limit. Its target is part of its unique constraint, but not a field of inline forms."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without the decimal places, which only cost uses.
        if (amount := self.initial.get("amount")) is not None:
            self.initial["amount"] = Decimal(f"{amount.normalize():f}")

    def _get_validation_exclusions(self) -> set[str]:
        return super()._get_validation_exclusions() - {"subject", "target"}  # type: ignore[misc, no-any-return]  # no stub has it


class _InlineFormSet(TabularInline.formset):  # type: ignore[valid-type, misc]  # Django's or unfold's
    target: ClassVar[Target]

    def get_queryset(self) -> QuerySet[Limit]:
        is_new = not hasattr(self, "_queryset")
        limits: QuerySet[Limit] = super().get_queryset()
        if is_new:
            attach_uses(limits)
        return limits

    def _construct_form(self, i: int, **kwargs: Any) -> Any:
        form = super()._construct_form(i, **kwargs)
        form.instance.target = self.target
        return form

    @property
    def empty_form(self) -> Any:
        form = super().empty_form
        form.instance.target = self.target
        return form

    def others(self) -> list[tuple[Limit, str]]:
        """Return the other limits that apply to the object of the page, with their current use."""
        if self.instance._state.adding:
            return []
        limits = applied_limits(subjects_of(_caller(self.instance)), None)
        return limits_with_uses([each for each in limits if each.limit.target != self.target])


def _caller(row: Any) -> Caller:
    if isinstance(row, Workspace):
        return Caller(workspace=row.as_record())
    if isinstance(row, APIKey):
        workspace = None if row.workspace is None else row.workspace.as_record()
        return Caller(user=row.user, workspace=workspace, key_id=row.public_id)
    return Caller(user=row)


class _LimitInline(ShowsUse, TabularInline):
    """Limits of one workspace, key or user, with their current use."""

    model = Limit
    form = _LimitForm
    formset = _InlineFormSet
    target: ClassVar[Target]
    template = "admin/ollama_openai_access/limits.html"
    stock_template = TabularInline.template
    fields = ("amount", "unit", "per", "model", "timezone", "use")
    readonly_fields = ("use",)
    classes = ("ooa-limits",)

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        made = super().get_formset(request, obj, **kwargs)
        return type(made.__name__, (made,), {"target": self.target})


class WorkspaceLimitInline(_LimitInline):
    fk_name = "workspace"
    target = Target.WORKSPACE
    verbose_name_plural = _("limits on this workspace, shared by its users and keys")


class KeyLimitInline(_LimitInline):
    fk_name = "key"
    target = Target.KEY
    verbose_name_plural = _("limits on this key")


class UserLimitInline(_LimitInline):
    fk_name = "user"
    target = Target.USER
    verbose_name_plural = _("AI access: limits on this user, shared by all keys")


class LimitAdmin(ShowsUse, ModelAdmin):
    """All limits, with their current use."""

    form = _LimitForm
    list_display = ("__str__", "target_in_words", "model", "use")
    list_filter = ("target", "unit", "per")
    list_select_related = ("workspace", "user", "key")
    search_fields = ("workspace__name", "key__name", "model")
    related_fields = ("workspace", "user", "key")
    readonly_fields = ("use",)
    fieldsets = (
        (
            _("Target"),
            {
                "fields": ("target", "workspace", "user", "key"),
                "description": _(
                    "Choose a workspace, user or key only if it is the target. Such a limit "
                    "replaces the limit for each with the same unit, period and models."
                ),
            },
        ),
        (_("Limit"), {"fields": ("amount", "unit", "per", "model", "timezone", "use")}),
    )

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*super().get_search_fields(request), f"user__{_username()}"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        made = super().get_changelist(request, **kwargs)
        return type("ChangeList", (UseChangeList, made), {})

    def get_object(self, *args: Any, **kwargs: Any) -> Limit | None:
        limit = super().get_object(*args, **kwargs)
        if limit is not None:
            attach_uses([limit])
        return limit

    def save_model(self, request: HttpRequest, obj: Limit, *args: Any, **kwargs: Any) -> None:
        super().save_model(request, obj, *args, **kwargs)
        if obj.unit == Unit.COST and pricer() is None:
            messages.warning(
                request,
                gettext("This limit has no effect, since requests have no prices."),
            )

    @admin.display(description=_("for"), ordering="target")
    def target_in_words(self, limit: Limit) -> str:
        return limit.target_in_words()


def _username() -> str:
    return get_user_model().USERNAME_FIELD
