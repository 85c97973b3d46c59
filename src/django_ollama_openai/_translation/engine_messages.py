"""Decide which error messages of engines clients may see.

The messages explain what is wrong with a request. Some also contain addresses, file paths or keys
of the server, which clients must never see.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["REFUSED", "client_message"]

#: The message of a refusal whose own message clients must not see.
REFUSED: Final = "The engine refused the request."

#: Ollama's prefix of the names of models from its registry.
_REGISTRY: Final = re.compile(r"registry\.ollama\.ai/(library/)?")

#: Matches addresses, paths and keys of the server.
_SENSITIVE: Final = re.compile(
    r"""
      ://
    | \b(?:localhost|no\ such\ host|no\ such\ file|dial\ (?:tcp|udp|unix))\b
    | \b\d{1,3}(?:\.\d{1,3}){3}\b
    # IPv6
    | (?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])
    # host:port; two numbers may be a line and a column
    | (?<![\w.-])(?![\d.]{1,50}:)[\w.-]{1,253}:\d{2,5}\b
    # host/path, and hosts in private domains
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
    """Return ``text``, an engine's message, with full names of the model replaced by ``model``.
    Return ``""`` if the message has an address, a path or a key."""
    text = rest = _REGISTRY.sub("", text)
    if model:
        name = re.compile(
            rf"(?<![\w./:-])(?:[\w.-]+(?::\d+)?/)*{re.escape(model)}(?::latest)?(?![\w/:-]|\.\w)",
            re.IGNORECASE,
        )
        text = name.sub(lambda _: model, text)
        # The client knows the model's name, whatever it looks like.
        rest = name.sub("", text)
    return "" if _SENSITIVE.search(rest) else text
