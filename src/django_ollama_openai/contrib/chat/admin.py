"""The admin of conversations, responses and stored completions."""

from __future__ import annotations

from django.contrib import admin

from ._admin.stored import CompletionAdmin, ConversationAdmin, ResponseAdmin
from .models import Completion, Conversation, Response

__all__ = ["CompletionAdmin", "ConversationAdmin", "ResponseAdmin"]

admin.site.register(Conversation, ConversationAdmin)
admin.site.register(Response, ResponseAdmin)
admin.site.register(Completion, CompletionAdmin)
