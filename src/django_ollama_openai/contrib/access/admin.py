"""The admin of workspaces, API keys and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ._admin.base import ModelAdmin, TabularInline
from ._admin.fields import WorkspaceForm
from ._admin.keys import MOST_KEYS, APIKeyAdmin
from ._admin.limits import LimitAdmin, WorkspaceLimitInline
from ._admin.users import AccessUserAdmin
from ._members import members_of
from .models import APIKey, Limit, Membership, ServiceAccount, Workspace

__all__ = ["APIKeyAdmin", "AccessUserAdmin", "LimitAdmin", "ServiceAccountAdmin", "WorkspaceAdmin"]

admin.site.register(APIKey, APIKeyAdmin)
admin.site.register(Limit, LimitAdmin)


class MembershipInline(TabularInline):
    model = Membership
    related_fields = ("user",)


@admin.register(Workspace)
class WorkspaceAdmin(ModelAdmin):
    """Workspaces with their members, limits and keys."""

    form = WorkspaceForm
    list_display = ("name", "slug", "group", "is_active", "created_at")
    list_filter = ("is_active",)
    list_select_related = ("group",)
    ordering = ("name", "pk")
    search_fields = ("name", "slug")
    prepopulated_fields: ClassVar[dict[str, Sequence[str]]] = {"slug": ("name",)}
    related_fields = ("group",)
    readonly_fields = ("keys",)
    inlines = (MembershipInline, WorkspaceLimitInline)

    def get_fields(self, request: HttpRequest, obj: Workspace | None = None) -> Any:
        fields = ["name", "slug", "group", "models", "is_active"]
        return fields if obj is None else [*fields, "keys"]

    @admin.display(description=_("API keys"))
    def keys(self, workspace: Workspace) -> str:
        members = list(members_of(workspace).values_list("pk", flat=True)[: MOST_KEYS + 1])
        chosen = {"workspace": workspace.pk}
        links = [
            (
                self._keys_url("changelist", {"workspace__id__exact": workspace.pk}),
                gettext("Show %(count)d") % {"count": workspace.keys.count()},
            ),
            (self._keys_url("add", chosen), gettext("Create")),
        ]
        if 0 < len(members) <= MOST_KEYS:
            everybody = {**chosen, "users": ",".join(map(str, members))}
            links.append((self._keys_url("add", everybody), gettext("Create one for each member")))
        joined = format_html_join(" · ", '<a href="{}">{}</a>', links)
        return format_html('<span class="ooa-links">{}</span>', joined)

    def _keys_url(self, page: str, query: dict[str, Any]) -> str:
        name = f"admin:{APIKey._meta.app_label}_{APIKey._meta.model_name}_{page}"
        return f"{reverse(name, current_app=self.admin_site.name)}?{urlencode(query)}"


@admin.register(ServiceAccount)
class ServiceAccountAdmin(ModelAdmin):
    """Service accounts of workspaces."""

    list_display = ("name", "workspace", "created_at")
    list_select_related = ("workspace",)
    ordering = ("-pk",)
    search_fields = ("name", "workspace__name")
    related_fields = ("workspace",)
