"""Make the tables of conversations, and sessions whose ids are numbers:
``python -m benchmarks.site.prepare_chat``."""

from __future__ import annotations

from uuid import UUID

import django

__all__ = ["SESSIONS", "main"]

#: More than all jobs of a benchmark have requests.
SESSIONS = 100_000


def main() -> None:
    """Make them, for the key of the settings."""
    django.setup()
    from django.core.management import call_command

    from django_ollama_openai.contrib.chat.models import Conversation

    call_command("migrate", verbosity=0)
    Conversation.objects.bulk_create(
        (Conversation(id=UUID(int=number), owner="key:benchmark") for number in range(SESSIONS)),
        batch_size=1_000,
    )


if __name__ == "__main__":
    main()
