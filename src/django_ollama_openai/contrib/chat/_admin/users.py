"""Show, on the admin's page that deletes users, how much of theirs is deleted with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.utils.text import capfirst

from .._store.retention import of_user

__all__ = ["ChatUserAdmin", "extend_user_admin"]


class ChatUserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Mix-in for an admin of users, which counts their conversations and completions, since a list
    of them could be very long."""

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Any:
        objs = list(objs)
        listed, counts, missing, protected = super().get_deleted_objects(objs, request)
        counts, missing = dict(counts), set(missing)
        for number in range(2):
            rows = [of_user(user)[number] for user in objs]
            count = sum(each.count() for each in rows)
            opts = rows[0].model._meta if rows else None
            if not count or opts is None:
                continue
            name = str(opts.verbose_name if count == 1 else opts.verbose_name_plural)
            counts[str(opts.verbose_name_plural)] = count
            listed = [*listed, f"{capfirst(name)}: {count}"]
            if not self.admin_site.is_registered(opts.model):
                continue
            if not self.admin_site.get_model_admin(opts.model).has_delete_permission(request):
                missing.add(str(opts.verbose_name))
        return listed, counts, missing, protected


def extend_user_admin() -> None:
    """Add the mix-in to the registered admin of users, unless it has it already."""
    site, user = admin.site, get_user_model()
    if site.is_registered(user):
        registered = type(site.get_model_admin(user))
        if not issubclass(registered, ChatUserAdmin):
            site.unregister(user)
            site.register(user, type(registered.__name__, (ChatUserAdmin, registered), {}))
