"""Recorded exchanges with a real Ollama server: see ``recordings/README.md``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Recording", "load", "names"]

DIRECTORY = Path(__file__).resolve().parent / "recordings"


@dataclass(frozen=True)
class Recording:
    """One exchange. ``request`` has ``method``, ``path`` and ``json``."""

    name: str
    request: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: bytes
    arrival_ms: tuple[float, ...]

    @property
    def lines(self) -> list[bytes]:
        """The lines of the body: one, unless it was streamed."""
        return [line for line in self.body.split(b"\n") if line]

    @property
    def is_stream(self) -> bool:
        return self.headers["Content-Type"] == "application/x-ndjson"

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@cache
def load(name: str) -> Recording:
    """The recording called ``name``."""
    exchange = json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))
    response = exchange["response"]
    return Recording(
        name=name,
        request=exchange["request"],
        status=response["status"],
        headers={name.title(): value for name, value in response["headers"].items()},
        body=response["body"].encode(),
        arrival_ms=tuple(response.get("arrival_ms", ())),
    )


def names(prefix: str = "") -> list[str]:
    """The names of all recordings that begin with ``prefix``, in order."""
    return sorted(path.stem for path in DIRECTORY.glob(f"{prefix}*.json"))
