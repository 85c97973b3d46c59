"""The admin of workspaces, API keys and limits. The value of a key is shown once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ._keys import ShownOnce
from ._limits.usage import current_use
from .conf import access_settings
from .models import APIKey, Limit, Membership, ServiceAccount, Target, Workspace

__all__ = ["APIKeyAdmin", "LimitAdmin", "WorkspaceAdmin"]


class _LimitInline(admin.TabularInline):  # type: ignore[type-arg]  # not generic at run time
    """Limits of one workspace or key, with their current use."""

    model = Limit
    extra = 0
    target: ClassVar[Target]
    fields = ("unit", "amount", "per", "model", "timezone", "use")
    readonly_fields = ("use",)

    def get_formset(self, *args: Any, **kwargs: Any) -> Any:
        formset = super().get_formset(*args, **kwargs)
        target = self.target

        class Form(formset.form):  # type: ignore[name-defined, misc]  # made by Django
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.instance.target = target

        formset.form = Form
        return formset

    @admin.display(description=_("used now"))
    def use(self, limit: Limit) -> str:
        return "" if limit._state.adding else current_use(limit)


class WorkspaceLimitInline(_LimitInline):
    fk_name = "workspace"
    target = Target.WORKSPACE


class KeyLimitInline(_LimitInline):
    fk_name = "key"
    target = Target.KEY


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]  # not generic at run time
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Workspace)
class WorkspaceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Workspaces with their members and limits."""

    list_display = ("name", "slug", "is_active", "created_at")
    list_filter = ("is_active",)
    search_fields = ("name", "slug")
    prepopulated_fields: ClassVar[dict[str, Sequence[str]]] = {"slug": ("name",)}
    autocomplete_fields = ("group",)
    inlines = (MembershipInline, WorkspaceLimitInline)


class _StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("valid", _("valid")), ("expired", _("expired")), ("revoked", _("revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> QuerySet[APIKey]:
        match self.value():
            case "valid":
                valid = queryset.filter(revoked_at=None)
                return valid.exclude(expires_at__lte=now())
            case "expired":
                return queryset.filter(revoked_at=None, expires_at__lte=now())
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


@admin.register(APIKey)
class APIKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """API keys. A new value is shown once, on the page that answers the form."""

    list_display = ("name", "redacted", "user", "workspace", "last_used_at", "expires_at", "state")
    list_filter = (_StateFilter, "workspace")
    list_select_related = ("user", "workspace")
    search_fields = ("name", "secrets__last_four", "workspace__name")
    autocomplete_fields = ("user", "workspace")
    readonly_fields = ("redacted", "created_at", "last_used_at", "revoked_at")
    inlines = (KeyLimitInline,)
    actions = ("rotate", "revoke")

    def get_queryset(self, request: HttpRequest) -> QuerySet[APIKey]:
        return super().get_queryset(request).prefetch_related("secrets")

    @admin.display(description=_("key"))
    def redacted(self, key: APIKey) -> str:
        return str(max(key.secrets.all(), key=lambda secret: secret.pk, default=""))

    @admin.display(description=_("state"))
    def state(self, key: APIKey) -> Any:
        if key.revoked_at is not None:
            return _("revoked")
        return (
            _("expired") if key.expires_at is not None and key.expires_at <= now() else _("valid")
        )

    def response_add(
        self, request: HttpRequest, obj: APIKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show(request, [(obj, obj.new_secret(access_settings().KEY_PREFIX))])

    @admin.action(description=_("Rotate: show new values; the old ones hold for 24 hours"))
    def rotate(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> HttpResponse:
        prefix = access_settings().KEY_PREFIX
        live = queryset.filter(revoked_at=None)
        return self._show(request, [(key, key.rotate(prefix)) for key in live])

    @admin.action(description=_("Revoke: refuse them from now on"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        count = 0
        for key in queryset.filter(revoked_at=None):
            key.revoke()
            self.log_change(request, key, "Revoked.")
            count += 1
        self.message_user(
            request,
            ngettext("%(count)d key is revoked.", "%(count)d keys are revoked.", count)
            % {"count": count},
        )

    def _show(self, request: HttpRequest, values: list[tuple[APIKey, str]]) -> HttpResponse:
        # Neither a message nor a session, which would keep the values.
        context = {
            **self.admin_site.each_context(request),
            "title": _("Copy now"),
            "opts": self.model._meta,
            "values": [(key, ShownOnce(value)) for key, value in values],
        }
        response = TemplateResponse(
            request, "admin/ollama_openai_access/apikey/values.html", context
        )
        response.headers["Cache-Control"] = "no-store"
        return response


@admin.register(ServiceAccount)
class ServiceAccountAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Service accounts of workspaces."""

    list_display = ("name", "workspace", "created_at")
    search_fields = ("name",)
    autocomplete_fields = ("workspace",)


class LimitForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A limit, with its target."""

    class Meta:
        model = Limit
        fields = (
            "target",
            "workspace",
            "user",
            "key",
            "unit",
            "amount",
            "per",
            "model",
            "timezone",
        )


@admin.register(Limit)
class LimitAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """All limits, with their current use."""

    form = LimitForm
    list_display = ("__str__", "target", "subject_name", "model", "use")
    list_filter = ("target", "unit", "per")
    list_select_related = ("workspace", "user", "key")
    search_fields = ("workspace__name", "key__name", "model")
    autocomplete_fields = ("workspace", "user", "key")

    @admin.display(description=_("of"))
    def subject_name(self, limit: Limit) -> str:
        return str(limit.workspace or limit.user or limit.key or "")

    @admin.display(description=_("used now"))
    def use(self, limit: Limit) -> str:
        return current_use(limit)
