"""The text of API keys, and the ids of rows."""

from __future__ import annotations

import re
import string
import uuid
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ollama_openai._ids import parse_public_id, public_id, uuid7
from django_ollama_openai.contrib.access import _keys

SIX = string.digits + string.ascii_uppercase + string.ascii_lowercase


def test_a_key_has_the_form_of_the_contract() -> None:
    key = _keys.new_key("my-site")
    match = re.fullmatch(r"(sk-my-site_[0-9A-Za-z]{40})([0-9A-Za-z]{6})", key)
    assert match is not None
    number = 0
    for digit in match[2]:
        number = number * 62 + SIX.index(digit)
    assert number == zlib.crc32(match[1].encode())
    assert _keys.is_well_formed(key)
    assert _keys.redacted(_keys.start(key), _keys.last_four(key)) == f"{key[:15]}…{key[-4:]}"


def test_keys_differ() -> None:
    assert len({_keys.new_key("site") for _ in range(100)}) == 100


WRONG: dict[str, Callable[[str], str]] = {
    "truncated": lambda key: key[:-1],
    "a space behind it": lambda key: key + " ",
    "a space before it": lambda key: " " + key,
    "a line end": lambda key: key + "\n",
    "another letter case": str.swapcase,
    "another prefix": lambda key: key.replace("sk-", "pk-"),
    "another checksum": lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
    "another character": lambda key: key[:12] + ("a" if key[12] != "a" else "b") + key[13:],
    "empty": lambda key: "",
    "zeros": lambda key: "sk-site_" + "0" * 46,
    "another alphabet": lambda key: key.replace("site", "\u017fite"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_other_texts_are_not_keys(kind: str) -> None:
    assert not _keys.is_well_formed(WRONG[kind](_keys.new_key("site")))


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    assert not _keys.is_well_formed(text)


def test_ids_sort_by_time_and_have_a_public_form() -> None:
    ids = [uuid7() for _ in range(3)]
    assert [each.version for each in ids] == [7] * 3
    assert {each.variant for each in ids} == {uuid.RFC_4122}
    text = public_id("ws", ids[0])
    assert re.fullmatch(r"ws_[0-9a-f]{32}", text)
    assert parse_public_id("ws", text) == ids[0]
    for wrong in (text.upper(), text[:-1], text + "0", text.replace("ws_", "key_"), "ws_", ""):
        assert parse_public_id("ws", wrong) is None
