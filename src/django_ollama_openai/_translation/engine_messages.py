"""Which of an engine's own words clients may read.

An engine says what is wrong with a request, and sometimes also where it runs, which files it reads
and which keys it has. Those are the server's, and clients never get them.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["REFUSED", "client_message"]

REFUSED: Final = "The engine refused the request."
"""The message for a refusal whose words clients must not read."""

_REGISTRY: Final = re.compile(r"registry\.ollama\.ai/(library/)?")
"""What Ollama puts before the names of the models it has from there."""

_OF_THE_SERVER: Final = re.compile(
    r"""
      ://
    | \b(?:localhost|no\ such\ host|no\ such\ file|dial\ (?:tcp|udp|unix))\b
    | \b\d{1,3}(?:\.\d{1,3}){3}\b
    # IPv6
    | (?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])
    # host:port; a number alone may be a line with its column
    | (?<![\w.-])(?![\d.]{1,50}:)[\w.-]{1,253}:\d{2,5}\b
    # host/path, and hosts of networks that are nobody else's
    | (?<![\w./-])[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}(?::\d{1,5})?/\w
    | \w\.(?:cluster|corp|home|internal|intranet|lan|local|localdomain|svc)\b
    # paths; "#/" begins a reference of a JSON schema, and "</" ends an element
    | (?<![\w.#<*/)\]}-])~?/[\w.~]
    | (?<!\w)[a-z]:[\\/]
    | \\\\\w
    # keys
    | (?<![\w-])(?:sk|pk|rk|hf|gsk|ghp|gho|xox[abp])[-_][\w-]{4}
    | \bBearer\ |\bapi[_-]?key\s*[=:]
    | (?<![\w-])(?=[a-z_-]{0,200}\d)[\w-]{32}
    """,
    re.IGNORECASE | re.VERBOSE,
)


def client_message(text: str, model: str = "") -> str:
    """Return ``text`` of an engine with ``model`` by that name wherever it stands in full; nothing
    if it names an address, a path or a key."""
    text = rest = _REGISTRY.sub("", text)
    if model:
        name = re.compile(
            rf"(?<![\w./:-])(?:[\w.-]+(?::\d+)?/)*{re.escape(model)}(?::latest)?(?![\w/:-]|\.\w)",
            re.IGNORECASE,
        )
        text = name.sub(lambda _: model, text)
        # The name is the client's own, or replaced by it.
        rest = name.sub("", text)
    return "" if _OF_THE_SERVER.search(rest) else text
