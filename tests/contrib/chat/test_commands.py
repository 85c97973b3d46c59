"""``manage.py ollama prune`` and ``erase``."""

from __future__ import annotations

import shlex
from datetime import timedelta
from io import StringIO
from typing import Any, ClassVar

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from django_ollama_openai.contrib.chat.models import Completion, Conversation
from django_ollama_openai.management.pruning import BasePruner, Pruning
from tests.contrib.access.conftest import Caller
from tests.contrib.chat.common import media_site

__all__ = ["media_site"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.any_database]


def run(line: str) -> str:
    out = StringIO()
    call_command("ollama", *shlex.split(line), stdout=out, stderr=StringIO())
    return out.getvalue()


def fill() -> None:
    for days, owner in ((100, "key:wiki"), (1, "key:wiki"), (100, "user:7")):
        made = now() - timedelta(days=days)
        Conversation.objects.create(owner=owner, created_at=made)
        Completion.objects.create(owner=owner, model="m", body={}, messages=[], created_at=made)


@pytest.mark.parametrize(
    ("options", "conversations", "completions"),
    [
        ("", 3, 1),
        ("--only chat", 3, 1),
        ("--older-than 90d", 1, 1),
        ("--only chat --older-than 9000w", 3, 3),
        ("--older-than 90d --dry-run", 3, 3),
        ("--older-than 90d --verbosity 0", 1, 1),
    ],
)
def test_prune(options: str, conversations: int, completions: int) -> None:
    fill()
    out = run(f"prune {options}")
    assert Conversation.objects.count() == conversations
    assert Completion.objects.count() == completions
    if options == "--only chat":
        assert out.splitlines() == [
            "responses: 0 deleted",
            "threads: 0 deleted",
            "completions: 2 deleted",
            "streams: 0 deleted",
        ]
    elif "dry-run" in options:
        assert "conversations: 2" in out and "deleted" not in out
    elif "verbosity" in options:
        assert out == ""


@pytest.mark.parametrize("options", ["--older-than 90", "--older-than 0d", "--older-than 5m"])
def test_no_age(options: str) -> None:
    with pytest.raises(CommandError, match="90d or 8w"):
        run(f"prune {options}")


def test_an_unknown_name() -> None:
    with pytest.raises(CommandError, match="'usages', only: chat"):
        run("prune --only usages")


class OtherPruner(BasePruner):
    """The pruner of another app, whose user interrupts it."""

    name = "other"
    left: ClassVar[int] = 3

    def prunings(self, older_than: timedelta | None) -> list[Pruning]:
        def delete() -> int:
            if OtherPruner.left == 1:
                raise KeyboardInterrupt
            OtherPruner.left -= 1
            return 1

        return [Pruning("other rows", lambda: OtherPruner.left, delete)]


def test_another_app_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    config = apps.get_app_config("ollama_openai_access")
    path = f"{__name__}.OtherPruner"
    monkeypatch.setattr(config, "ollama_openai_pruners", [path], raising=False)
    out = StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("ollama", "prune", "--only", "other", stdout=out)
    assert stopped.value.code == 130
    assert out.getvalue() == "other rows: 2 deleted\n"
    assert Conversation.objects.count() == 3


@pytest.mark.parametrize(
    ("owner", "left"), [("key:wiki", 1), ("user:7", 2), ("key:nobody", 3), ("sha256:abc", 3)]
)
def test_erase(owner: str, left: int) -> None:
    fill()
    out = run(f"erase {owner} --dry-run")
    assert f"conversations and threads: {3 - left}" in out and Conversation.objects.count() == 3
    out = run(f"erase {owner}")
    assert f"conversations and threads: {3 - left} deleted" in out
    assert Conversation.objects.count() == Completion.objects.count() == left
    assert not Conversation.objects.filter(owner=owner).exists()


@pytest.mark.parametrize("owner", ["7", "wiki", "everybody:1"])
def test_erase_needs_an_owner(owner: str) -> None:
    with pytest.raises(CommandError, match="no owner"):
        run(f"erase {owner}")


def test_erase_finds_owners_with_any_name(settings: Any) -> None:
    name = "Wiki " * 80
    settings.OLLAMA_OPENAI = {
        **settings.OLLAMA_OPENAI,
        "API_KEYS": [{"KEY": "secret", "NAME": name}],
    }
    assert Caller("secret")("POST", "api/chat/sessions/", {}).status == 201
    run(f"erase {shlex.quote(f'key:{name}')}")
    assert not Conversation.objects.exists()
