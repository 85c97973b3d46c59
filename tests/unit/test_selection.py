"""Which member of a pool gets a request, from what is known of the members."""

from __future__ import annotations

from typing import Any

import pytest

from django_ollama_openai._translation.model_cards import ModelCard
from django_ollama_openai.backends import BaseBackend
from django_ollama_openai.backends._pool import selection
from django_ollama_openai.backends._pool.selection import (
    MAX_REMEMBERED,
    Health,
    Member,
    able,
    conflicts,
    ranked,
    versions,
)

MODEL = "llama3"


def card(name: str = "llama3:latest", digest: str | None = "1") -> ModelCard:
    untagged = name.removesuffix(":latest")
    aliases = () if untagged == name else (untagged,)
    return ModelCard(id=name, aliases=aliases, metadata={"digest": digest})


def member(
    alias: str,
    *cards: ModelCard,
    health: Health = Health.HEALTHY,
    loaded: frozenset[str] | None = frozenset({"llama3", "llama3:latest"}),
    running: int = 0,
    used: int = 0,
    failed_at: float = 0,
) -> Member:
    made = Member(alias, BaseBackend(alias=alias))
    made.note_models(cards or [card()])
    made.note_loaded(loaded)
    made.health, made.slots.running = health, running
    made.used, made.failed_at = used, failed_at
    return made


def unknown(alias: str) -> Member:
    """One that nobody has seen yet."""
    return Member(alias, BaseBackend(alias=alias))


def order(*members: Member, model: str = MODEL, **options: Any) -> str:
    """The aliases of those that would get a request, the best first."""
    options = {"tried": [], "loading_cost": 4, **options}
    return "".join(each.alias for each in ranked(members, model, **options))


# Load


def test_the_least_busy_comes_first() -> None:
    assert order(member("a", running=2), member("b", running=1), member("c", running=3)) == "bac"


def test_idle_ones_share_the_work() -> None:
    a, b, c = member("a"), member("b"), member("c")
    got = []
    for _ in range(6):
        first = order(a, b, c)[0]
        got.append(first)
        next(each for each in (a, b, c) if each.alias == first).note_begin(MODEL)
    assert "".join(got) == "abcabc"


@pytest.mark.parametrize(("busy", "first"), [(3, "a"), (4, "a"), (5, "b")])
def test_loading_a_model_costs_as_much_as_some_requests(busy: int, first: str) -> None:
    a, b = member("a", running=busy), member("b", loaded=frozenset(), used=1)
    assert order(a, b)[0] == first


def test_a_model_that_is_asked_for_counts_as_being_loaded() -> None:
    a, b = member("a", loaded=frozenset()), member("b", loaded=frozenset())
    a.note_begin(MODEL)
    assert order(a, b) == "ab"
    # A look that does not see it yet.
    a.note_loaded(frozenset())
    assert order(a, b) == "ab"
    a.note_end(MODEL)
    assert order(a, b) == "ba"


def test_a_model_that_was_asked_for_counts_as_loaded_until_the_next_look() -> None:
    a, b = member("a", loaded=frozenset()), member("b", loaded=frozenset())
    a.note_begin(MODEL)
    a.note_end(MODEL)
    assert order(a, b) == "ab"
    a.note_loaded(frozenset())
    assert order(a, b) == "ba"


def test_one_that_has_failed_is_avoided_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = member("a"), member("b", running=5, used=1)
    a.note_failure()
    assert order(a, b) == "ab"
    a.note_failure()
    assert order(a, b) == "ba"
    a.note_success()
    assert order(a, b) == "ab"
    for _ in range(5):
        a.note_failure()
    assert order(a, b) == "ba"
    monkeypatch.setattr(selection, "FAILURE_SECONDS", -1)
    assert order(a, b) == "ab"


def test_an_engine_that_does_not_tell_counts_as_having_it_loaded() -> None:
    assert order(member("a", loaded=frozenset()), member("b", loaded=None)) == "ba"


def test_names_from_clients_do_not_fill_the_memory() -> None:
    a = member("a", loaded=frozenset())
    for number in range(MAX_REMEMBERED * 2):
        a.note_begin(f"model {number}")
        a.note_end(f"model {number}")
    assert len(a._requested) == MAX_REMEMBERED
    assert not a._running


# Who has the model


def test_those_that_lack_the_model_get_nothing() -> None:
    a, b = member("a", card("other"), running=0), member("b", running=9)
    assert order(a, b) == "b"
    assert order(a, b, model="llama3:latest") == "b"
    assert [each.alias for each in able([a, b, unknown("c")], MODEL)] == ["b", "c"]


def test_all_are_asked_for_a_model_that_nobody_is_known_to_have() -> None:
    a, b = member("a"), member("b")
    assert order(a, b, model="new") == "ab"


def test_one_that_has_lost_a_model_is_known_to_lack_it() -> None:
    a, b = member("a"), member("b")
    a.note_missing(MODEL)
    assert order(a, b) == "b"
    b.note_missing(MODEL)
    # It may have come to any of them since.
    assert order(a, b) == "ab"


# Standing


def test_nobody_gets_anything_who_is_out_while_another_is_in() -> None:
    out, doubtful = Health.UNHEALTHY, Health.SUSPECT
    a, b, c = member("a", health=out), member("b", health=doubtful), member("c", running=9)
    assert order(a, b, c) == "c"
    assert order(a, b, c, tried=[c]) == "b"
    assert order(a, b, c, tried=[c, b]) == "a"
    assert order(a, b, c, tried=[c, b, a]) == ""


def test_if_all_are_out_they_share_what_there_is() -> None:
    out = Health.UNHEALTHY
    a = member("a", health=out, running=1)
    b = member("b", health=out, running=5)
    c = member("c", health=out)
    assert order(a, b, c) == "cab"


def test_one_that_lacks_the_model_does_not_stand_in_for_one_that_is_out() -> None:
    a, b = member("a", health=Health.UNHEALTHY), member("b", card("other"))
    assert order(a, b) == "a"


# Versions


def test_versions_are_not_mixed() -> None:
    a, b, c = member("a", running=9), member("b", card(digest="2")), member("c", running=1)
    assert order(a, b, c) == "ca"
    assert order(a, b, c, tried=[a, c]) == ""


def test_another_version_serves_when_the_first_cannot_be_reached() -> None:
    a = member("a", health=Health.UNHEALTHY)
    b, c = member("b", card(digest="2")), member("c", card(digest="2"), running=1)
    assert order(a, b, c) == "bc"
    assert order(a, b, c, tried=[b, c]) == ""
    a.health = Health.SUSPECT
    # It may be well: a broken connection is no proof of the contrary.
    assert order(a, b, c) == "a"
    b.health = c.health = a.health = Health.UNHEALTHY
    assert sorted(order(a, b, c)) == ["a", "b", "c"]


def test_an_engine_without_versions_has_any_and_one_nobody_has_seen_has_none() -> None:
    a, b = member("a"), member("b", card(digest=None))
    assert order(a, b, unknown("c")) == "ab"
    assert order(a, b, unknown("c"), tried=[a, b]) == ""


def test_versions_of_other_models_do_not_matter() -> None:
    a = member("a", card(), card("other", "1"))
    b = member("b", card(), card("other", "2"))
    assert order(a, b) == "ab"
    assert order(a, b, model="other") == "a"


def test_the_difference_is_described() -> None:
    held = {
        "a": versions([card("same"), card("differs", "1"), card("alone"), card("none", None)]),
        "b": versions([card("same"), card("differs", "2"), card("none", "1")]),
        "c": versions([card("differs", "1")]),
    }
    assert conflicts(held) == {"differs": {"a": "1", "b": "2", "c": "1"}}
