"""Rewrite regular expressions in JSON schemas so that llama.cpp can enforce them.

llama.cpp turns an expression into a grammar if it is anchored at both ends and consists of
characters, classes, groups, alternatives and repetitions. It ignores other expressions without an
error, and with characters that JSON has to escape the output would not be valid JSON.

Source: llama.cpp's ``json-schema-to-grammar.cpp``, and tests with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["enforceable_pattern"]

MAX_LENGTH: Final = 1_000
#: The maximum nesting of groups. llama.cpp ignores patterns with a few more.
MAX_GROUPS: Final = 50

_FLAGS: Final = re.VERBOSE | re.DOTALL | re.ASCII
_ANCHORED: Final = re.compile(r"\^ (?: .* [^\\] )? (?: \\\\ )* \$", _FLAGS)
_TOKEN: Final = re.compile(
    r"""
      \[ (?P<negated>\^?) (?P<members>(?: \\. | [^\[\]\\] )+) \]
    | \\ (?P<escaped>.)
    | (?P<repeated> [*+?] | \{ \d{1,3} (?: , \d{0,3} )? \} ) \??
    | (?P<plain> \( (?: \?: | (?!\?) ) | [^\[\]\\*+?{}(^$] )
    """,
    _FLAGS,
)
_MEMBER: Final = re.compile(r"\\([dws]) | (?: \\(.) | (.) ) (?: - (?: \\(.) | (.) ) )?", _FLAGS)
_CLASSES: Final = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
#: Characters that may be escaped. llama.cpp ignores patterns with other escapes.
_ESCAPABLE: Final = frozenset('^$.[]()|{}*+?-"\\')
_UNSAFE: Final = re.compile(r'[\x00-\x1f"\\]')
#: The characters that JSON does not have to escape in a string.
_SAFE_RANGES: Final = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x10FFFF))

_NO_EXPRESSION: Final = "it is not a valid regular expression"
_ANY: Final = r"[^\x22\x5c\x00-\x1f]"


def enforceable_pattern(pattern: str) -> str:
    """Return an expression that llama.cpp can enforce in place of ``pattern``.

    Every string that matches it also matches ``pattern``.

    Raises:
        ValueError: There is no such expression; the message is the reason.
    """
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"it is longer than {MAX_LENGTH} characters")
    if not _ANCHORED.fullmatch(pattern):
        raise ValueError("it must begin with '^' and end with '$'")
    enforceable = f"^{''.join(_tokens(pattern[1:-1]))}$"
    try:
        re.compile(enforceable)
    except (re.error, RecursionError):
        raise ValueError(_NO_EXPRESSION) from None
    return enforceable


def _tokens(text: str) -> Iterator[str]:
    place = depth = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise ValueError(f"{text[place : place + 3]!r} is not supported")
        place = token.end()
        if token["members"] is not None:
            yield _class(bool(token["negated"]), token["members"])
        elif token["escaped"] is not None:
            yield _escaped(token["escaped"])
        elif token["repeated"] is not None:
            # A lazy repetition matches the same strings as a greedy one.
            yield token["repeated"]
        elif token["plain"] == ".":
            yield _ANY
        else:
            depth += token["plain"].startswith("(") - (token["plain"] == ")")
            if depth > MAX_GROUPS:
                raise ValueError(f"its groups are nested more than {MAX_GROUPS} levels deep")
            yield _safe(token["plain"])


def _escaped(character: str) -> str:
    if character in _CLASSES:
        return f"[{_CLASSES[character]}]"
    if character.isalnum():
        raise ValueError(rf"'\{character}' is not supported")
    return ("\\" if character in _ESCAPABLE else "") + _safe(character)


def _class(is_negated: bool, members: str) -> str:
    translated = []
    for shorthand, *ends in _MEMBER.findall(members):
        if shorthand:
            if is_negated and shorthand == "s":
                raise ValueError(r"'\s' is not supported in '[^…]'")
            translated.append(_CLASSES[shorthand])
            continue
        escaped, plain, last_escaped, last_plain = ends
        for each in (escaped, last_escaped):
            if each.isalnum():
                raise ValueError(rf"'\{each}' is not supported in '[…]'")
        first = escaped or plain
        last = last_escaped or last_plain or first
        if first > last:
            raise ValueError(_NO_EXPRESSION)
        if is_negated:
            translated.append(_range(ord(first), ord(last)))
        else:
            translated += [
                _range(max(ord(first), low), min(ord(last), high))
                for low, high in _SAFE_RANGES
                if max(ord(first), low) <= min(ord(last), high)
            ]
    if is_negated:
        return f"[^{''.join(translated)}{_ANY[2:]}"
    if not translated:
        raise ValueError("characters that JSON has to escape are not supported")
    return f"[{''.join(translated)}]"


def _range(first: int, last: int) -> str:
    return _member(first) if first == last else f"{_member(first)}-{_member(last)}"


def _member(code: int) -> str:
    character = chr(code)
    return character if character.isalnum() or code > 0x7F else f"\\x{code:02x}"


def _safe(text: str) -> str:
    if _UNSAFE.search(text):
        raise ValueError("characters that JSON has to escape are not supported")
    return text
