"""``docs/compatibility.toml`` and the tests that hold it agree, in both directions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs import generated

ROOT = Path(__file__).parents[2]
ROWS = generated.rows()


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
