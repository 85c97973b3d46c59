"""``docs/compatibility.toml`` and the tests that hold it agree, in both directions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs import generated

ROOT = Path(__file__).parents[2]
ROWS = generated.rows()
TABLE: dict[str, Any] = tomllib.loads(generated.COMPATIBILITY.read_text())
PAGE = "".join(text for name, text in generated.pages().items() if name.startswith("compatibility"))


def marks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each test of a module, with the rows that its marks name."""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_"):
            named = [
                ast.literal_eval(argument)
                for mark in node.decorator_list
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.compat"
                for argument in mark.args
            ]
            yield f"{path.relative_to(ROOT).as_posix()}::{node.name}", named


def all_marks() -> dict[str, list[str]]:
    paths = sorted(ROOT.glob("tests/**/test_*.py"))
    return {test: named for path in paths for test, named in marks(path)}


MARKS = all_marks()


def test_every_mark_is_found() -> None:
    """Also one that stands where it would not be read, as on a class or in a variable."""
    written = sum(
        len(re.findall(r"^ *@?.*\bpytest\.mark\.compat\(", path.read_text(), re.MULTILINE))
        for path in ROOT.glob("tests/**/*.py")
        if path != Path(__file__)
    )
    assert written == sum(bool(named) for named in MARKS.values())


def test_every_row_is_held_by_tests_that_name_it() -> None:
    held = [(row.id, test) for row in ROWS for test in row.tests]
    assert {row for row, _ in held} == {row.id for row in ROWS}
    assert [test for _, test in held if test not in MARKS] == []
    assert [(row, test) for row, test in held if row not in MARKS[test]] == []


def test_every_mark_is_of_rows_that_name_its_test() -> None:
    for test, named in MARKS.items():
        assert named == [row.id for row in ROWS if test in row.tests], test


def test_every_row_says_something() -> None:
    for row in ROWS:
        for text in (row.ours, row.ollama):
            assert re.fullmatch(r"[A-Z0-9`(].*\.", text), f"{row.id}: {text}"
            assert "  " not in text
            assert text.count("`") % 2 == 0


def test_every_part_of_the_table_is_on_the_page() -> None:
    assert set(TABLE) == {"openai", "ollama", "deviations", *(row.endpoint for row in ROWS)}
    assert len(ROWS) == len(re.findall(r"^ +\S* - \.\. _compatibility\.", PAGE, re.MULTILINE))
    for name in ("openai", "ollama"):
        assert TABLE[name] in PAGE


def test_no_two_rows_have_the_same_label() -> None:
    assert [label for label, count in Counter(row.label for row in ROWS).items() if count > 1] == []


def test_all_twenty_deviations_are_there() -> None:
    assert list(TABLE["deviations"]) == [str(number) for number in range(1, 21)]
    assert {row.deviation for row in ROWS} - {None} == set(range(1, 21))
    assert len(set(TABLE["deviations"].values())) == 20


def test_no_link_is_dead() -> None:
    targets = re.findall(r"\.\. _(compatibility\.[^:]+):$", PAGE, re.MULTILINE)
    links = re.findall(r":ref:`[^<`]+ <(compatibility\.[^>]+)>`", PAGE)
    assert set(links) <= set(targets)
    assert len(links) == sum(row.deviation is not None for row in ROWS)
    # Links to other pages.
    labels = re.findall(r"^\.\. _([\w-]+):$", "".join(generated.pages().values()), re.MULTILINE)
    others = re.findall(r":ref:`[^<`]+ <((?!compatibility\.)[^>]+)>`", PAGE)
    assert others
    assert set(others) <= set(labels)
