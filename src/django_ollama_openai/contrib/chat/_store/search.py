"""Search in titles and texts: PostgreSQL's full text where there is one, else ``LIKE``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from django.db import connections
from django.db.models import BooleanField, F, Func, Q, QuerySet, Value

from ..models import Conversation, Item
from .text import storable

__all__ = ["DROP_INDEX_SQL", "INDEX_SQL", "matching"]

#: The characters of a text that PostgreSQL indexes; its limit is a megabyte of words.
MAX_INDEXED: Final = 100_000
MAX_WORDS: Final = 20

INDEX_SQL: Final = (
    "CREATE INDEX ollama_openai_chat_text ON ollama_openai_chat_item "
    f"USING gin (to_tsvector('simple', left(text, {MAX_INDEXED})))"
)
DROP_INDEX_SQL: Final = "DROP INDEX ollama_openai_chat_text"


def matching(rows: QuerySet[Conversation], query: str) -> QuerySet[Conversation]:
    """Return those of ``rows`` whose title, or one of whose texts, has all words of ``query``,
    whatever their case. A word has a letter or a digit."""
    words = [word for word in storable(query).split() if any(map(str.isalnum, word))][:MAX_WORDS]
    if not words:
        return rows.none() if query.strip() else rows
    vendor = connections[rows.db].vendor
    if vendor == "postgresql":
        in_title = Q(_matches("title", " ".join(words)))
        in_text = Q(_matches("text", " ".join(words)))
    else:
        in_title = _contains("title", words, vendor)
        in_text = _contains("text", words, vendor)
    own = rows.order_by().values("pk")
    found = Item.objects.filter(in_text, conversation__in=own).values("conversation")
    return rows.filter(in_title | Q(pk__in=found))


def _contains(field: str, words: Sequence[str], vendor: str) -> Q:
    condition = Q()
    for word in words:
        if vendor == "sqlite" and not word.isascii():
            # SQLite's LIKE regards the case of all letters but those of ASCII.
            condition &= Q((f"{field}__iregex", re.escape(word)))
        else:
            condition &= Q((f"{field}__icontains", word))
    return condition


def _matches(field: str, query: str) -> Func:
    """Return the condition that a text has all words of ``query``, with the expression of the
    index."""
    vector = Func(F(field), template=f"to_tsvector('simple', left(%(expressions)s, {MAX_INDEXED}))")
    words = Func(Value(query), template="plainto_tsquery('simple', %(expressions)s)")
    return Func(
        vector, words, template="(%(expressions)s)", arg_joiner=" @@ ", output_field=BooleanField()
    )
