"""The admins of conversations, responses and stored completions. Nobody changes them here, and only
a permission shows their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.db.models.fields.json import KT
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ...._ids import parse_public_id
from ..._admin import ModelAdmin
from .._store import search
from .._store.files import parts_of
from .._store.items import text_of
from .._store.messages import head_of
from .._store.retention import (
    BATCH,
    delete_completions,
    delete_conversations,
    delete_responses,
)
from .._store.tree import groups_of, path_to
from ..models import Completion, Conversation, Item, Kind, Response

__all__ = ["CompletionAdmin", "ConversationAdmin", "ResponseAdmin"]

VIEW_TEXT: Final = "ollama_openai_chat.view_text"
#: The most messages of one page, characters of each, and objects of a page that deletes them.
MESSAGES: Final = 50
CHARACTERS: Final = 20_000
MOST_LISTED: Final = 100
MOST_USERS: Final = 1_000


class _StoredAdmin(ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """The base of the admins: read-only, deleting in batches."""

    #: The path from a row to its owner and its user.
    owner_path: ClassVar[str] = ""

    show_full_result_count = False
    list_per_page = 50
    # For the field; get_search_results() looks up more.
    search_fields = ("pk",)
    list_display_links = ("public_id",)

    class Media:
        css: ClassVar = {"all": ["ollama_openai_chat/admin.css"]}

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may_read(self, request: HttpRequest) -> bool:
        """Return whether the user of ``request`` may read texts."""
        return request.user.has_perm(VIEW_TEXT)

    @admin.display(description=_("id"), ordering="pk")
    def public_id(self, row: Any) -> str:
        found: str = row.public_id
        return found

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        users = get_user_model()._default_manager.filter(
            **{f"{get_user_model().USERNAME_FIELD}__icontains": term}
        )
        found = Q(**{f"{self.owner_path}owner__startswith": term})
        found |= Q(
            **{f"{self.owner_path}user__in": list(users.values_list("pk", flat=True)[:MOST_USERS])}
        )
        pk = parse_public_id(self.model.prefix, term.replace("-", "_"))
        if pk is not None:
            found |= Q(pk=pk)
        return self.search_texts(request, queryset, found, term), False

    def search_texts(
        self, request: HttpRequest, rows: QuerySet[Any], found: Q, term: str
    ) -> QuerySet[Any]:
        """Return those of ``rows`` for which ``found`` holds, or, if the user may read texts, whose
        text has ``term``."""
        return rows.filter(found)

    # Deletion

    def delete_rows(self, keys: Sequence[UUID]) -> int:
        """Delete the rows with these ``keys``."""
        raise NotImplementedError

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.delete_rows([obj.pk])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        keys = list(queryset.values_list("pk", flat=True))
        for first in range(0, len(keys), BATCH):
            self.delete_rows(keys[first : first + BATCH])

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Any:
        """Return a summary: a list of all items could be very long."""
        keys = [row.pk for row in objs]
        opts = self.model._meta
        counts: dict[Any, int] = {opts.verbose_name_plural: len(keys)}
        listed = [
            f"{capfirst(str(opts.verbose_name))}: {self.model(pk=key).public_id}"
            for key in keys[:MOST_LISTED]
        ]
        if len(keys) > MOST_LISTED:
            listed.append(gettext("and %(count)d more") % {"count": len(keys) - MOST_LISTED})
        for name, count in self.deleted_with(keys):
            counts[name] = count
        missing = set() if self.has_delete_permission(request) else {opts.verbose_name}
        return listed, counts, missing, []

    def deleted_with(self, keys: Sequence[UUID]) -> Iterable[tuple[Any, int]]:
        """Return the names and numbers of what is deleted with the rows of these ``keys``."""
        return ()


class ConversationAdmin(_StoredAdmin):
    """Sessions and conversations."""

    list_display = (
        "public_id",
        "owner",
        "user",
        "workspace",
        "model_name",
        "message_count",
        "active_at",
    )
    list_filter = ("active_at", "visibility", "archived")
    list_select_related = ("user",)
    ordering = ("-active_at", "-pk")
    search_help_text = _("Id, beginning of the owner, or username")

    @admin.display(description=_("model"), ordering="model", empty_value="")
    def model_name(self, row: Conversation) -> str:
        return str(row.model)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        rows = super().get_queryset(request).filter(kind=Kind.CONVERSATION)
        return rows.defer("instructions", "parameters", "tools", "metadata")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = ["public_id", "owner", "user", "workspace", "visibility", "model", "archived"]
        fields += ["pinned", "message_count", "active_at", "created_at", "updated_at"]
        if self.may_read(request) and obj is not None:
            obj.shown_below = request.GET.get("below", "")
            fields += ["title", "instructions", "parameters", "tools", "metadata", "messages"]
        return fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)

    def search_texts(
        self, request: HttpRequest, rows: QuerySet[Any], found: Q, term: str
    ) -> QuerySet[Any]:
        if self.may_read(request):
            found |= Q(pk__in=search.matching(rows, term).order_by().values("pk"))
        return rows.filter(found)

    def delete_rows(self, keys: Sequence[UUID]) -> int:
        return delete_conversations(keys)

    def deleted_with(self, keys: Sequence[UUID]) -> Iterable[tuple[Any, int]]:
        items = sum(
            Item.objects.filter(conversation__in=keys[first : first + BATCH]).count()
            for first in range(0, len(keys), BATCH)
        )
        return [(Item._meta.verbose_name_plural, items)]

    @admin.display(description=_("messages"))
    def messages(self, conversation: Conversation) -> str:
        """Return a page of the current branch, as HTML: the last messages, or those before one."""
        below = getattr(conversation, "shown_below", "")
        path = path_to(conversation.leaf)
        number = int(below) if below.isdecimal() and len(below) < 19 else None
        heads = path.newest(MESSAGES + 1, below=number, head=None)
        shown = heads[:MESSAGES][::-1]
        links = []
        if number is not None:
            links.append(("?", gettext("Latest messages")))
        if len(heads) > MESSAGES:
            links.append((f"?below={shown[0].sequence}", gettext("Earlier messages")))
        return format_html(
            '<div class="ooc-messages">{}<p class="ooc-links">{}</p></div>',
            format_html_join("", "{}", ((_message(rows),) for rows in groups_of(shown))),
            format_html_join(" · ", '<a href="{}">{}</a>', links),
        )


def _message(rows: list[Item]) -> str:
    head = head_of(rows)
    role = head.role or head.type
    texts = [text_of(row) for row in rows]
    calls = [row.data for row in rows if row.type in ("function_call", "custom_tool_call")]
    texts += [f"{call.get('name')}({call.get('arguments', call.get('input'))})" for call in calls]
    text = "\n".join(text for text in texts if text)
    if len(text) > CHARACTERS:
        text = text[:CHARACTERS] + " […]"
    files = sum(1 for _part in parts_of(head.data))
    if files:
        text += "\n" + ngettext("[%(count)d file]", "[%(count)d files]", files) % {"count": files}
    return format_html(
        '<section class="ooc-message ooc-{}"><h3>{} <time datetime="{}">{}</time></h3>'
        "<p>{}</p></section>",
        "user" if role == "user" else "other",
        role,
        head.created_at.isoformat(),
        f"{localtime(head.created_at):%Y-%m-%d %H:%M}",
        text.strip(),
    )


class ResponseAdmin(_StoredAdmin):
    """Stored responses, without their text."""

    owner_path = "conversation__"
    list_display = (
        "public_id",
        "owner",
        "user",
        "model_name",
        "status",
        "background",
        "created_at",
    )
    list_filter = ("created_at", "status", "background")
    ordering = ("-pk",)
    list_select_related = ("conversation__user",)
    fields = readonly_fields = (*list_display, "conversation")
    search_help_text = ConversationAdmin.search_help_text

    def get_queryset(self, request: HttpRequest) -> QuerySet[Response]:
        # The body has the instructions, and may be large.
        rows: QuerySet[Response] = super().get_queryset(request)
        rows = rows.defer("body", "input_ids", "output_ids")
        return rows.annotate(model_of_body=KT("body__model"))

    def delete_rows(self, keys: Sequence[UUID]) -> int:
        return delete_responses(keys)

    @admin.display(description=_("owner"), ordering="conversation__owner")
    def owner(self, row: Response) -> str:
        return row.conversation.owner

    @admin.display(description=_("user"), ordering="conversation__user")
    def user(self, row: Response) -> Any:
        return row.conversation.user

    @admin.display(description=_("model"))
    def model_name(self, row: Any) -> str:
        return str(row.model_of_body or "")


class CompletionAdmin(_StoredAdmin):
    """Stored chat completions, without their text."""

    list_display = ("public_id", "owner", "user", "model", "created_at")
    list_filter = ("created_at",)
    list_select_related = ("user",)
    ordering = ("-pk",)
    fields = readonly_fields = list_display
    search_help_text = ConversationAdmin.search_help_text

    def get_queryset(self, request: HttpRequest) -> QuerySet[Completion]:
        return super().get_queryset(request).defer("body", "messages", "metadata")

    def delete_rows(self, keys: Sequence[UUID]) -> int:
        return delete_completions(keys)
