"""CSV whose cells no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

__all__ = ["CSV", "rows_as_csv"]

CSV: Final = "text/csv; charset=utf-8"

#: The characters that begin a formula: OWASP's list.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def rows_as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Return the lines of a CSV file in UTF-8. Texts that begin like a formula get an apostrophe;
    numbers stay as they are, and ``None`` is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_safe(cell) for cell in row])
        if buffer.tell() > 1 << 15:
            yield _taken(buffer)
    yield _taken(buffer)


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _taken(buffer: io.StringIO) -> bytes:
    data = buffer.getvalue().encode()
    buffer.seek(0)
    buffer.truncate()
    return data
