"""The admin of API keys. A value is shown once, on the page that answers the form."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.timezone import localtime, now
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from ...._ids import uuid7
from .._keys import ShownOnce
from .._members import members_of
from ..conf import access_settings
from ..models import APIKey, APIKeySecret, Workspace, is_live
from ..validators import SCOPES
from .base import ModelAdmin, several_users
from .fields import KeyForm
from .limits import KeyLimitInline

__all__ = ["APIKeyAdmin"]

TEMPLATES: Final = "admin/ollama_openai_access"
#: The most keys that one form creates: the ids of their users are part of a URL.
MOST_KEYS: Final = 200
#: The most workspaces that the filter lists.
MOST_CHOICES: Final = 50

OVERLAPS: Final = (
    (24, _("for 24 hours")),
    (7 * 24, _("for 7 days")),
    (0, _("not at all")),
)


def nth_id(first: UUID, number: int) -> UUID:
    """Return the id of row ``number`` of those that one form creates, ``first`` for 0. So a form
    that is submitted twice creates each row once."""
    return UUID(int=first.int + number)


class _ChangeForm(KeyForm):
    """An existing key. Its user and workspace cannot be changed."""

    #: Set for each request.
    is_superuser: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scopes = self.fields.get("scopes")
        if isinstance(scopes, forms.MultipleChoiceField) and not self.is_superuser:
            scopes.choices = [(each, each) for each in SCOPES if each != "admin"]


class _AddForm(_ChangeForm):
    """New keys with the same properties: one for each user, or one of a workspace."""

    users = forms.ModelMultipleChoiceField(
        queryset=get_user_model()._default_manager.all(),
        required=False,
        label=capfirst(_("users")),
        help_text=_("Each user gets a key. Without users, the workspace gets one key."),
    )
    first_id = forms.UUIDField(widget=forms.HiddenInput, initial=uuid7)

    def clean_users(self) -> list[Any]:
        users = list(self.cleaned_data["users"])
        if len(users) > MOST_KEYS:
            raise forms.ValidationError(
                _("Choose up to %(count)d users."), params={"count": MOST_KEYS}
            )
        if not self.is_superuser and any(map(_is_superuser, users)):
            raise forms.ValidationError(_("Only superusers may create keys for superusers."))
        return users

    def clean_first_id(self) -> UUID:
        first: UUID = self.cleaned_data["first_id"]
        if APIKey.objects.filter(pk=first).exists():
            raise forms.ValidationError(already_made())
        return first

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        users, workspace = cleaned.get("users"), cleaned.get("workspace")
        if users == [] and workspace is None and "workspace" in cleaned:
            self.add_error("users", _("A key needs a user, a workspace, or both."))
        if users and workspace is not None:
            strangers = set(users) - set(members_of(workspace).filter(pk__in=[u.pk for u in users]))
            if strangers:
                self.add_error(
                    "users",
                    forms.ValidationError(
                        _("Not members of %(workspace)s: %(users)s."),
                        params={
                            "workspace": workspace,
                            "users": ", ".join(sorted(map(str, strangers))),
                        },
                    ),
                )
        return cleaned

    def made_keys(self) -> list[APIKey]:
        """Return the keys to create, unsaved. The first is the instance of the form."""
        keys = [self.instance]
        users = self.cleaned_data["users"]
        names = [field.attname for field in APIKey._meta.concrete_fields]
        values = {name: getattr(self.instance, name) for name in names if name != "id"}
        keys += [APIKey(**values) for _user in users[1:]]
        for number, key in enumerate(keys):
            key.pk = nth_id(self.cleaned_data["first_id"], number)
            key.user = users[number] if users else None
        return keys


def already_made() -> str:
    """Return the message for a form that was submitted twice."""
    return gettext(
        "This form was submitted before, and its values cannot be shown again. Rotate a key if you "
        "have not copied its value."
    )


class _RotateForm(forms.Form):
    overlap = forms.TypedChoiceField(
        coerce=int,
        choices=OVERLAPS,
        label=_("Previous values remain valid"),
        widget=forms.RadioSelect,
        initial=24,
    )
    first_id = forms.UUIDField(widget=forms.HiddenInput, initial=uuid7)


class _StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("valid", _("valid")), ("expired", _("expired")), ("revoked", _("revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> QuerySet[APIKey]:
        match self.value():
            case "valid":
                return queryset.filter(
                    Q(expires_at=None) | Q(expires_at__gt=now()), revoked_at=None
                )
            case "expired":
                return queryset.filter(revoked_at=None, expires_at__lte=now())
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


class _WorkspaceFilter(admin.SimpleListFilter):
    """A filter by workspace. If there are more than 50, it lists only the chosen one, which a link
    on its page sets."""

    title = _("workspace")
    parameter_name = "workspace__id__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        first = list(Workspace.objects.order_by("name")[: MOST_CHOICES + 1])
        if len(first) > MOST_CHOICES:
            chosen = self._chosen()
            first = [] if chosen is None else list(Workspace.objects.filter(pk=chosen))
        return [(str(each.pk), each.name) for each in first]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> QuerySet[APIKey]:
        if self.value() is None:
            return queryset
        chosen = self._chosen()
        return queryset.none() if chosen is None else queryset.filter(workspace=chosen)

    def _chosen(self) -> UUID | None:
        try:
            return UUID(self.value() or "")
        except ValueError:
            return None


class _ScopeFilter(admin.SimpleListFilter):
    title = _("scope")
    parameter_name = "scope"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(each, each) for each in SCOPES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> QuerySet[APIKey]:
        scope = self.value()
        if scope not in SCOPES:
            return queryset
        # SQLite has no lookup for the entries of a JSON list.
        queryset = queryset.alias(scopes_text=Cast("scopes", TextField()))
        named = Q(scopes_text__contains=f'"{scope}"')
        return queryset.filter(named if scope == "admin" else named | Q(scopes__isnull=True))


class APIKeyAdmin(ModelAdmin):
    """Create, rotate and revoke API keys."""

    list_display = ("name", "value", "user", "workspace", "state", "last_used_at")
    list_filter = (_StateFilter, _ScopeFilter, _WorkspaceFilter)
    ordering = ("-pk",)
    search_fields = (
        "name",
        "workspace__name",
        "workspace__slug",
        "secrets__start__startswith",
        "secrets__last_four__exact",
    )
    search_help_text = _("Search by name, user, workspace, or key as the list shows it.")
    related_fields = ("workspace",)
    readonly_fields = (
        "user",
        "value",
        "manage",
        "state",
        "created_at",
        "last_used_at",
        "revoked_at",
    )
    inlines = (KeyLimitInline,)
    actions = ("rotate", "revoke")

    _what: ClassVar[dict[str, Any]] = {
        "fields": ("scopes", "models", "networks", "expires_at"),
        "description": _("A key never allows more than its user and its workspace may do."),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[APIKey]:
        keys = super().get_queryset(request).select_related("user", "workspace")
        return keys.prefetch_related("secrets")

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        username = get_user_model().USERNAME_FIELD
        return [*super().get_search_fields(request), f"user__{username}"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[APIKey], search_term: str
    ) -> tuple[QuerySet[APIKey], bool]:
        return super().get_search_results(request, queryset, search_term.replace("…", " "))

    def get_inlines(self, request: HttpRequest, obj: APIKey | None) -> Any:
        return super().get_inlines(request, obj) if obj is not None else ()

    def get_readonly_fields(self, request: HttpRequest, obj: APIKey | None = None) -> list[str]:
        return [*self.readonly_fields, *(["workspace"] if obj is not None else [])]

    def get_fieldsets(self, request: HttpRequest, obj: APIKey | None = None) -> Any:
        if obj is None:
            return [
                (None, {"fields": ("name", "users", "workspace", "first_id")}),
                (_("Restrictions"), self._what),
            ]
        manage = ["manage"] if self.has_change_permission(request, obj) else []
        times = ("state", "created_at", "last_used_at", "revoked_at")
        ends = {
            "fields": times,
            "description": _(
                "A revoked key is refused and stays in the list. Deleting a key also deletes its "
                "record and its limits."
            ),
        }
        return [
            (None, {"fields": ["name", "user", "workspace", "value", *manage]}),
            (_("Restrictions"), self._what),
            (_("State"), ends),
        ]

    def get_form(
        self, request: HttpRequest, obj: APIKey | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = _ChangeForm if change else _AddForm
        attributes = {"is_superuser": request.user.is_superuser}
        kwargs["form"] = type(form.__name__, (form,), attributes)
        made: Any = super().get_form(request, obj, change, **kwargs)
        if "users" in made.base_fields:
            field = APIKey._meta.get_field("user")
            made.base_fields["users"].widget = several_users(self.admin_site, field)
            made.base_fields["users"].widget.choices = made.base_fields["users"].choices
        return made

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        users = request.GET.get("users", "").split(",")
        return {**initial, "users": [each for each in users if _is_id_of_user(each)]}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        # The page that answers the form shows the values.
        if kwargs.get("add"):
            context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        # Staff who change or rotate a key can use it.
        is_powerful = obj is not None and ("admin" in (obj.scopes or ()) or _is_superuser(obj.user))
        if is_powerful and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().add_view(request, *args, **kwargs)
        except IntegrityError:
            # The same form was submitted at the same time.
            if not _is_made(APIKey, request.POST.get("first_id")):
                raise
            return self._again(request)

    @sensitive_variables()
    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        prefix, values = access_settings().KEY_PREFIX, []
        for key in form.made_keys():
            key.save(force_insert=True)
            values.append((key, key.new_secret(prefix)))
        obj.new_values = values  # type: ignore[attr-defined]  # for response_add

    def log_addition(self, request: HttpRequest, obj: APIKey, message: Any) -> Any:
        for key, _value in obj.new_values[1:]:  # type: ignore[attr-defined]  # of save_model
            super().log_addition(request, key, message)
        return super().log_addition(request, obj, message)

    @sensitive_variables()
    def response_add(
        self, request: HttpRequest, obj: APIKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show(request, obj.new_values)  # type: ignore[attr-defined]  # of save_model

    @admin.display(description=_("key"))
    def value(self, key: APIKey) -> str:
        newest = max(key.secrets.all(), key=lambda secret: secret.pk, default="")
        return format_html('<code class="ooa-redacted">{}</code>', newest)

    @admin.display(description=_("actions"))
    def manage(self, key: APIKey) -> str:
        if key.revoked_at is not None:
            return gettext("The key is revoked.")
        return format_html(
            '<span class="ooa-links"><a href="{}">{}</a> · <a href="{}">{}</a></span>',
            self._url("rotate", key.pk),
            gettext("Rotate"),
            self._url("revoke", key.pk),
            gettext("Revoke"),
        )

    @admin.display(description=_("state"), ordering="expires_at")
    def state(self, key: APIKey) -> Any:
        if key.revoked_at is not None:
            return _("revoked")
        if not is_live(key.expires_at, now()):
            return _("expired")
        if key.user is not None and not key.user.is_active:
            return _("refused: the user is inactive")
        if key.workspace is not None and not key.workspace.is_active:
            return _("refused: the workspace is inactive")
        if key.expires_at is not None:
            day = date_format(localtime(key.expires_at), "SHORT_DATE_FORMAT")
            return gettext("valid until %(day)s") % {"day": day}
        return _("valid")

    @admin.action(description=_("Rotate selected API keys"), permissions=["change"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> HttpResponse:
        keys = self._changeable(request, queryset)
        is_sent = "confirmed" in request.POST
        form = _RotateForm(request.POST if is_sent else None)
        if not is_sent or not form.is_valid():
            return self._confirm(request, "rotate", keys, form)
        return self._rotate(request, keys, form.cleaned_data)

    @sensitive_variables()
    def _rotate(
        self, request: HttpRequest, keys: list[APIKey], cleaned: dict[str, Any]
    ) -> HttpResponse:
        first, overlap = cleaned["first_id"], timedelta(hours=cleaned["overlap"])
        if _is_made(APIKeySecret, first):
            return self._again(request)
        prefix, values = access_settings().KEY_PREFIX, []
        try:
            with transaction.atomic():
                for number, key in enumerate(keys):
                    values.append((key, key.rotate(prefix, overlap, nth_id(first, number))))
                    self.log_change(request, key, gettext("Rotated."))
        except IntegrityError:
            # The same form was submitted at the same time.
            if not _is_made(APIKeySecret, first):
                raise
            return self._again(request)
        return self._show(request, values)

    @admin.action(description=_("Revoke selected API keys"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> HttpResponse | None:
        keys = self._changeable(request, queryset)
        if "confirmed" not in request.POST:
            return self._confirm(request, "revoke", keys, forms.Form())
        for key in keys:
            key.revoke()
            self.log_change(request, key, gettext("Revoked."))
        self.message_user(
            request,
            ngettext("%(count)d key is revoked.", "%(count)d keys are revoked.", len(keys))
            % {"count": len(keys)},
            messages.SUCCESS,
        )
        return None

    def get_urls(self) -> list[URLPattern]:
        ask = self.admin_site.admin_view(self._ask)
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path(f"<uuid:pk>/{action}/", ask, {"action": action}, name=f"{name}_{action}")
            for action in ("rotate", "revoke")
        ]
        return [*own, *super().get_urls()]

    def _ask(self, request: HttpRequest, pk: UUID, action: str) -> HttpResponse:
        """Ask for confirmation to rotate or revoke one key. The actions of the list do it."""
        keys = self._changeable(request, self.get_queryset(request).filter(pk=pk))
        if not self.has_change_permission(request):
            raise PermissionDenied
        form = _RotateForm() if action == "rotate" else forms.Form()
        return self._confirm(request, action, keys, form)

    def _changeable(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> list[APIKey]:
        keys = queryset.filter(revoked_at=None).order_by("pk")
        return [key for key in keys if self.has_change_permission(request, key)]

    def _confirm(
        self, request: HttpRequest, action: str, keys: Iterable[APIKey], form: forms.Form
    ) -> HttpResponse:
        is_rotation = action == "rotate"
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Rotate API keys") if is_rotation else gettext("Revoke API keys"),
            "opts": self.opts,
            "media": self.media,
            "keys": [(key, self.value(key)) for key in keys],
            "form": form,
            "action": action,
            "is_rotation": is_rotation,
            "checkbox": ACTION_CHECKBOX_NAME,
            "list_url": self._url("changelist"),
        }
        return TemplateResponse(request, f"{TEMPLATES}/confirm.html", context)

    @sensitive_variables()
    def _show(self, request: HttpRequest, values: list[tuple[APIKey, str]]) -> HttpResponse:
        # Not as a message, which would be stored in a cookie or a session.
        context = {
            **self.admin_site.each_context(request),
            "title": ngettext("Copy the new value now", "Copy the new values now", len(values)),
            "opts": self.opts,
            "media": self.media,
            "values": [(key, ShownOnce(value)) for key, value in values],
            "list_url": self._url("changelist"),
        }
        response = TemplateResponse(request, f"{TEMPLATES}/values.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _again(self, request: HttpRequest) -> HttpResponse:
        self.message_user(request, already_made(), messages.WARNING)
        return HttpResponseRedirect(self._url("changelist"))

    def _url(self, page: str, *args: Any) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)


def _is_superuser(user: Any) -> bool:
    return bool(getattr(user, "is_superuser", False))


def _is_id_of_user(text: str) -> bool:
    try:
        get_user_model()._meta.pk.to_python(text)
    except ValidationError:
        return False
    return bool(text)


def _is_made(model: type[APIKey | APIKeySecret], pk: Any) -> bool:
    try:
        return model._default_manager.filter(pk=UUID(str(pk))).exists()
    except ValueError:
        return False
