"""Models of conversations, their items, stored responses and chat completions, and running answers.

A conversation is a tree of items. Each item belongs to a branch and has a sequence number, which
grows along every path: the path to an item is, for its branch and each branch above, one range of
sequence numbers.
"""

from __future__ import annotations

import secrets
from typing import ClassVar
from uuid import UUID

from django.conf import settings
from django.db.models import (
    CASCADE,
    DO_NOTHING,
    SET_NULL,
    BooleanField,
    CharField,
    DateTimeField,
    FileField,
    ForeignKey,
    Index,
    Model,
    OneToOneField,
    PositiveBigIntegerField,
    PositiveIntegerField,
    TextChoices,
    UniqueConstraint,
    UUIDField,
)
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _

from ..._ids import public_id, uuid7
from .._models import PublicModel
from ._fields import StoredCharField, StoredJSONField, StoredTextField

__all__ = [
    "Attachment",
    "Branch",
    "Completion",
    "Conversation",
    "Item",
    "Kind",
    "Piece",
    "Response",
    "Run",
    "Status",
    "Visibility",
]

MAX_OWNER = 255
MAX_TITLE = 255
MAX_MODEL = 1_024


class Kind(TextChoices):
    """The kinds of conversations. A thread is that of responses outside a conversation: clients
    cannot name it."""

    CONVERSATION = "conversation", _("conversation")
    THREAD = "thread", _("thread of responses")


class Visibility(TextChoices):
    """Who may read a session."""

    PRIVATE = "private", _("private")
    WORKSPACE = "workspace", _("workspace")


class Status(TextChoices):
    """The states of items and responses."""

    QUEUED = "queued", _("queued")
    IN_PROGRESS = "in_progress", _("in progress")
    COMPLETED = "completed", _("completed")
    INCOMPLETE = "incomplete", _("incomplete")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


class Conversation(PublicModel):
    """A session, which is the same as a conversation of OpenAI's API."""

    prefix = "conv"

    kind = CharField(_("kind"), max_length=12, choices=Kind.choices, default=Kind.CONVERSATION)
    owner = CharField(_("owner"), max_length=MAX_OWNER)
    user = ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        blank=True,
        # A signal deletes it first, in batches: see _store/retention.py.
        on_delete=DO_NOTHING,
        related_name="+",
    )
    workspace = CharField(_("workspace"), max_length=64, blank=True, default="")
    visibility = CharField(
        _("visibility"), max_length=9, choices=Visibility.choices, default=Visibility.PRIVATE
    )
    title = StoredCharField(_("title"), max_length=MAX_TITLE, blank=True, default="")
    model = StoredCharField(_("model"), max_length=MAX_MODEL, blank=True, default="")
    instructions = StoredTextField(_("instructions"), blank=True, default="")
    parameters = StoredJSONField(_("parameters"), default=dict, blank=True)
    tools = StoredJSONField(_("tools"), default=list, blank=True)
    metadata = StoredJSONField(_("metadata"), default=dict, blank=True)
    archived = BooleanField(_("archived"), default=False)
    pinned = BooleanField(_("pinned"), default=False)
    #: The last item of the current branch. Without a constraint, since both refer to each other.
    leaf = ForeignKey(
        "Item",
        null=True,
        on_delete=DO_NOTHING,
        related_name="+",
        db_constraint=False,
        db_index=False,
        editable=False,
    )
    message_count = PositiveIntegerField(_("messages"), default=0, editable=False)
    #: The greatest sequence number of an item of this conversation, or of the item after which it
    #: continues another one.
    sequence = PositiveBigIntegerField(default=0, editable=False)
    active_at = DateTimeField(_("last activity"), default=now, editable=False)
    created_at = DateTimeField(_("created"), default=now, editable=False)
    updated_at = DateTimeField(_("changed"), default=now, editable=False)

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        permissions: ClassVar = [("view_text", _("Can read the text of conversations"))]
        indexes: ClassVar = [
            Index(
                fields=["owner", "kind", "archived", "-active_at", "-id"],
                name="ollama_openai_chat_activity",
            ),
            Index(
                fields=["workspace", "visibility", "archived", "-active_at", "-id"],
                name="ollama_openai_chat_shared",
            ),
            # For RETENTION_DAYS, and for the admin.
            Index(fields=["kind", "created_at"], name="ollama_openai_chat_retention"),
            Index(fields=["kind", "-active_at", "-id"], name="ollama_openai_chat_latest"),
        ]

    def __str__(self) -> str:
        return self.public_id


class Branch(Model):
    """A branch of a conversation that begins after an item of another branch, which may be one of
    another conversation. The first branch of a conversation has the conversation's id, and no row
    unless it continues another one."""

    id = UUIDField(primary_key=True, default=uuid7, editable=False)
    conversation = ForeignKey(Conversation, on_delete=CASCADE, related_name="branches")
    #: The other branch, and the sequence number of its last item on the path.
    parent = UUIDField()
    fork = PositiveBigIntegerField()

    class Meta:
        verbose_name = _("branch")
        verbose_name_plural = _("branches")

    def __str__(self) -> str:
        return str(self.id)


#: The prefixes of the public ids of items, by type: OpenAI's.
ITEM_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
}


class Item(Model):
    """An item of a conversation: a message, a tool call, the output of one, reasoning."""

    id = UUIDField(primary_key=True, default=uuid7, editable=False)
    conversation = ForeignKey(
        Conversation,
        verbose_name=_("conversation"),
        on_delete=CASCADE,
        related_name="items",
        # The index with the sequence number serves it.
        db_index=False,
    )
    branch = UUIDField(editable=False)
    sequence = PositiveBigIntegerField(editable=False)
    parent = ForeignKey(
        "self", null=True, on_delete=DO_NOTHING, related_name="children", db_constraint=False
    )
    #: The item whose message of a session this one is a part of; ``None`` for that item itself.
    head = ForeignKey(
        "self", null=True, on_delete=DO_NOTHING, related_name="parts", db_constraint=False
    )
    #: The response that has made the item.
    response = ForeignKey("Response", null=True, on_delete=SET_NULL, related_name="items")
    type = StoredCharField(_("type"), max_length=40)
    role = StoredCharField(_("role"), max_length=16, blank=True, default="")
    status = CharField(_("status"), max_length=11, choices=Status.choices, default=Status.COMPLETED)
    #: OpenAI's object without ``id``, ``type``, ``role`` and ``status``; media are attachments.
    data = StoredJSONField(default=dict)
    #: For search.
    text = StoredTextField(_("text"), blank=True, default="")
    #: Of a message that a model has written in a session: ``model``, ``finish_reason``, ``usage``,
    #: ``error``, ``truncated_messages``.
    answer = StoredJSONField(null=True)
    metadata = StoredJSONField(default=dict)
    created_at = DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("item")
        verbose_name_plural = _("items")
        constraints: ClassVar = [
            UniqueConstraint(fields=["branch", "sequence"], name="ollama_openai_chat_path")
        ]
        # For the messages of all branches in their order.
        indexes: ClassVar = [
            Index(fields=["conversation", "sequence"], name="ollama_openai_chat_order")
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        """Return the id that clients see, such as ``msg_0192…``."""
        return public_id(ITEM_PREFIXES.get(self.type, "item"), self.id)

    @property
    def message_id(self) -> str:
        """Return the id of the item as a message of a session."""
        return public_id("msg", self.head_id or self.id)


class Response(PublicModel):
    """A stored response. Its owner is that of its conversation."""

    prefix = "resp"

    conversation = ForeignKey(
        Conversation, verbose_name=_("conversation"), on_delete=CASCADE, related_name="responses"
    )
    #: The last item of the response: what continues it begins after this.
    leaf = ForeignKey(
        Item, null=True, on_delete=DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    status = CharField(_("status"), max_length=11, choices=Status.choices)
    background = BooleanField(_("background"), default=False)
    #: OpenAI's object without ``output``.
    body = StoredJSONField()
    #: The ids of the items of the input and of the output, as hexadecimal digits, in order.
    input_ids = StoredJSONField(default=list)
    output_ids = StoredJSONField(default=list)
    created_at = DateTimeField(_("created"), default=now, editable=False, db_index=True)

    class Meta:
        verbose_name = _("response")
        verbose_name_plural = _("responses")

    def __str__(self) -> str:
        return self.public_id


class Run(Model):
    """An answer that a process is writing, or has written lately.

    The process renews the lease while it runs. If it is killed, the lease expires, and another
    process ends the answer. No constraint demands an item or a response: before Django deletes one
    in MariaDB, it sets the key to null.
    """

    id = UUIDField(primary_key=True, default=uuid7, editable=False)
    item = OneToOneField(Item, null=True, on_delete=CASCADE, related_name="run")
    response = OneToOneField(Response, null=True, on_delete=CASCADE, related_name="run")
    #: The conversation that no one else may add to meanwhile.
    locks = OneToOneField(Conversation, null=True, on_delete=CASCADE, related_name="run")
    background = BooleanField(default=False)
    #: OpenAI's items, as far as they have been written.
    output = StoredJSONField(default=list)
    lease_until = DateTimeField(null=True, db_index=True)
    stop = BooleanField(default=False)
    ended_at = DateTimeField(null=True, db_index=True)

    class Meta:
        verbose_name = _("running answer")
        verbose_name_plural = _("running answers")

    def __str__(self) -> str:
        return str(self.id)


class Piece(Model):
    """A part of a stream as it was sent: ``count`` events from the number ``first`` on."""

    run = ForeignKey(Run, on_delete=CASCADE, related_name="pieces")
    first = PositiveIntegerField()
    count = PositiveIntegerField()
    data = StoredTextField()

    class Meta:
        verbose_name = _("part of a stream")
        verbose_name_plural = _("parts of streams")
        constraints: ClassVar = [
            UniqueConstraint(fields=["run", "first"], name="ollama_openai_chat_pieces")
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.first}"


class Completion(PublicModel):
    """A stored chat completion."""

    prefix = "chatcmpl"

    owner = CharField(_("owner"), max_length=MAX_OWNER)
    user = ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        blank=True,
        # A signal deletes it first, in batches: see _store/retention.py.
        on_delete=DO_NOTHING,
        related_name="+",
    )
    model = StoredCharField(_("model"), max_length=MAX_MODEL)
    body = StoredJSONField()
    messages = StoredJSONField()
    metadata = StoredJSONField(_("metadata"), default=dict, blank=True)
    created_at = DateTimeField(_("created"), default=now, editable=False, db_index=True)

    class Meta:
        verbose_name = _("stored completion")
        verbose_name_plural = _("stored completions")
        indexes: ClassVar = [Index(fields=["owner", "id"], name="ollama_openai_chat_completions")]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        """Return the id that clients see, such as ``chatcmpl-0192…``."""
        return f"{self.prefix}-{self.id.hex}"


def attachment_path(attachment: Attachment, filename: str) -> str:
    """Return a name in the storage. It cannot be derived from the public id, since some storages
    serve every file that one knows the name of."""
    token = secrets.token_hex(16)
    return f"ollama_openai_chat/{token[:2]}/{token}"


class Attachment(PublicModel):
    """An image, audio or another file of an item or of a stored completion, in the default
    storage."""

    prefix = "file"

    item = ForeignKey(Item, null=True, on_delete=CASCADE, related_name="attachments")
    completion = ForeignKey(Completion, null=True, on_delete=CASCADE, related_name="attachments")
    file = FileField(_("file"), upload_to=attachment_path, max_length=255)
    content_type = CharField(_("type"), max_length=100)
    size = PositiveBigIntegerField(_("size"))
    created_at = DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("attachment")
        verbose_name_plural = _("attachments")

    def __str__(self) -> str:
        return self.public_id


def parse_hex(values: list[str]) -> list[UUID]:
    """Return the UUIDs of ``input_ids`` or ``output_ids``."""
    return [UUID(value) for value in values]
