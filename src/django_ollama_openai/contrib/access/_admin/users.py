"""Add limits and an action to the site's admin of users."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import APIKey
from .keys import MOST_KEYS
from .limits import UserLimitInline

__all__ = ["AccessUserAdmin", "extend_user_admin"]


class AccessUserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Mix-in that adds limits, and an action that creates API keys, to an admin of users."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # ``None`` disables actions.
        if self.actions is not None:
            self.actions = [*self.actions, create_api_keys]

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        inlines = super().get_inlines(request, obj)
        return inlines if obj is None else [*inlines, UserLimitInline]

    def has_create_api_keys_permission(self, request: HttpRequest) -> bool:
        """Return whether the user of ``request`` may create API keys."""
        site = self.admin_site
        return site.is_registered(APIKey) and site.get_model_admin(APIKey).has_add_permission(
            request
        )


@admin.action(
    description=_("Create an API key for each selected user"), permissions=["create_api_keys"]
)
def create_api_keys(
    model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]
) -> HttpResponse | None:
    users = list(queryset.values_list("pk", flat=True)[: MOST_KEYS + 1])
    if len(users) > MOST_KEYS:
        text = gettext("Choose up to %(count)d users.") % {"count": MOST_KEYS}
        model_admin.message_user(request, text, messages.ERROR)
        return None
    opts = APIKey._meta
    name = f"admin:{opts.app_label}_{opts.model_name}_add"
    add = reverse(name, current_app=model_admin.admin_site.name)
    return HttpResponseRedirect(f"{add}?users={','.join(map(str, users))}")


def extend_user_admin() -> None:
    """Add the mix-in to the registered admin of users, unless it has it already."""
    site, user = admin.site, get_user_model()
    if site.is_registered(user):
        registered = type(site.get_model_admin(user))
        if not issubclass(registered, AccessUserAdmin):
            site.unregister(user)
            site.register(user, type(registered.__name__, (AccessUserAdmin, registered), {}))
