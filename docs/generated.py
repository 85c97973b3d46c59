"""The parts of the documentation that are made from the code, as reStructuredText.

They need no Sphinx. ``_conf.py`` puts them where a page says ``.. generated:: name``.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import django_ollama_openai
from django_ollama_openai import _conf, exceptions
from django_ollama_openai import backends as shipped
from django_ollama_openai.backends._base import OPTIONAL_PARAMETERS
from django_ollama_openai.contrib.access.conf import AccessSettings, LimitStoreConfig
from django_ollama_openai.contrib.chat.conf import ChatSettings, RetentionDays
from django_ollama_openai.contrib.usage.conf import (
    OpenMeterConfig,
    StripeConfig,
    UsageSettings,
    WebhookConfig,
)
from django_ollama_openai.exceptions import GatewayError

__all__ = [
    "COMPATIBILITY",
    "PARTS",
    "ClientFault",
    "EngineFault",
    "Row",
    "client_faults",
    "deviations",
    "engine_faults",
    "pages",
    "rows",
    "sources",
]

PACKAGE: Final = Path(django_ollama_openai.__file__).parent
DOCS: Final = Path(__file__).parent
CHANGELOG: Final = DOCS.parent / "CHANGELOG.md"
COMPATIBILITY: Final = DOCS / "compatibility.toml"
FAULTS: Final = DOCS / "faults.toml"

_DIRECTIVE = re.compile(r"^\.\. generated:: (\w+)$", re.MULTILINE)


def sources() -> list[Path]:
    """The files that the generated parts are made from."""
    names = [
        "_conf.py",
        "backends/_base.py",
        "checks.py",
        "contrib/access/checks.py",
        "contrib/access/conf.py",
        "contrib/chat/conf.py",
        "contrib/usage/conf.py",
        "exceptions.py",
    ]
    return [CHANGELOG, COMPATIBILITY, FAULTS, Path(__file__), *(PACKAGE / name for name in names)]


def pages() -> dict[str, str]:
    """Return the source of every page by its name, with its generated parts in place."""
    return {
        path.relative_to(DOCS).with_suffix("").as_posix(): _DIRECTIVE.sub(
            lambda match: PARTS[match[1]](), path.read_text()
        )
        for path in sorted(DOCS.rglob("*.rst"))
        if "_build" not in path.parts
    }


# Settings


_MORE: Final = {
    "AUTHENTICATION": ":doc:`authentication`",
    "POLICIES": ":ref:`policies`",
    "API_KEYS": ":ref:`api-key-entries`",
    "BACKENDS": ":ref:`backend-entries`",
    "MAX_CONCURRENCY": ":ref:`queues`",
    "MODELS": ":ref:`model-entries`",
    "RESPONSE_CASE": ":ref:`spelling`",
    "CORS_ORIGINS": ":ref:`cors`",
    "STREAM_KEEPALIVE_SECONDS": ":ref:`streams`",
    "UNSUPPORTED_PARAMETERS": ":ref:`optional-parameters`",
}
"""Where there is more to say about a key."""


def settings() -> str:
    """Every key of ``OLLAMA_OPENAI``."""
    return "\n".join(
        f".. setting:: {name}\n\n"
        f"   {_rst(field.description or '')}{f' See {_MORE[name]}.' if name in _MORE else ''}\n\n"
        f"   Default: {_default(field)}. Type: {_type(field)}.\n"
        for name, field in _conf.Settings.model_fields.items()
    )


def backend_entries() -> str:
    """The keys of an entry of ``BACKENDS``."""
    return _fields(_conf.BackendConfig)


def model_entries() -> str:
    """The keys of an entry of ``MODELS``."""
    return _fields(_conf.ModelConfig)


def api_key_entries() -> str:
    """The keys of an entry of ``API_KEYS``."""
    return _fields(_conf.APIKey)


def access_settings() -> str:
    """The keys of ``ACCESS``."""
    return _fields(AccessSettings)


def limit_store_settings() -> str:
    """The keys of ``ACCESS["LIMIT_STORE"]``."""
    return _fields(LimitStoreConfig)


def chat_settings() -> str:
    """The keys of ``CHAT``."""
    return _fields(ChatSettings)


def retention_settings() -> str:
    """The keys of ``CHAT["RETENTION_DAYS"]``."""
    return _fields(RetentionDays)


def usage_settings() -> str:
    """The keys of ``USAGE``."""
    return _fields(UsageSettings)


def usage_receiver_settings() -> str:
    """The keys of ``USAGE["WEBHOOK"]``, ``USAGE["STRIPE"]`` and ``USAGE["OPENMETER"]``."""
    parts = (("WEBHOOK", WebhookConfig), ("STRIPE", StripeConfig), ("OPENMETER", OpenMeterConfig))
    return "\n".join(f"The keys of ``{name}``:\n\n{_fields(model)}" for name, model in parts)


def _fields(model: type[BaseModel]) -> str:
    return _table(
        ["Key", "Default", "Type", "Meaning"],
        [
            [f"``{name}``", _default(field), _type(field), _rst(field.description or "")]
            for name, field in model.model_fields.items()
        ],
        widths=[30, 15, 18, 37],
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "see below"
    if isinstance(default, list) and default:
        return ", ".join(f"``{item!r}``" for item in default)
    return f"``{default!r}``"


def _type(field: FieldInfo) -> str:
    limits = [
        f"{words} {getattr(limit, name)}"
        for limit in field.metadata
        for name, words in (("ge", "at least"), ("gt", "more than"))
        if hasattr(limit, name)
    ]
    return ", ".join([f"``{_annotation(field.annotation)}``", *limits])


def _annotation(annotation: Any) -> str:
    """``annotation`` as one would write it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotation(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(_annotation(argument) for argument in arguments)
    if origin is Literal:
        return " | ".join(f'"{argument}"' for argument in arguments)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(_annotation(argument) for argument in arguments)}]"
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "dict"
    return str(getattr(annotation, "__name__", annotation))


# System checks


def checks() -> str:
    """The ids of the system checks, from the docstrings of the modules ``checks.py``."""
    modules = [PACKAGE / "checks.py", *PACKAGE.glob("contrib/*/checks.py")]
    docstrings = [ast.get_docstring(ast.parse(module.read_text())) or "" for module in modules]
    rows = sorted(re.findall(r"^``(\S+)``\s+(.+)$", "\n".join(docstrings), re.MULTILINE))
    kinds = {"E": "error", "W": "warning"}
    return _table(
        ["Id", "Kind", "Meaning"],
        [[f"``{id}``", kinds[id.split(".")[1][0]], _sentence(text)] for id, text in rows],
        widths=[30, 15, 55],
    )


# Errors


def errors() -> str:
    """Every class of error, with its status, type and code."""
    rows = []
    for name in sorted(exceptions.__all__, key=lambda name: (_error(name).status, _depth(name))):
        error = _error(name)
        code = f"``{error.code}``" if error.code else "``null``"
        meaning = "Any other failure." if error is GatewayError else _summary(error)
        kind = f"| ``{error.type}``\n| {code}"
        rows.append([str(error.status), kind, _class(name), meaning])
    return _table(
        ["Status", "``type`` and ``code``", "Class", "When"], rows, widths=[8, 27, 27, 38]
    )


def error_tree() -> str:
    """The classes of errors as a tree, from the docstring of ``exceptions.py``."""
    lines = inspect.cleandoc(exceptions.__doc__ or "").splitlines()
    tree = [line for line in lines if line.startswith("    ")]
    return "\n".join([".. code-block:: text", "", *tree, ""])


def exceptions_reference() -> str:
    """The classes of errors, for ``autodoc``."""
    return "\n".join(
        f".. autoexception:: {name}\n" + ("   :members:\n" if name == "GatewayError" else "")
        for name in sorted(exceptions.__all__, key=_depth)
    )


def _error(name: str) -> type[GatewayError]:
    error: type[GatewayError] = getattr(exceptions, name)
    return error


def _depth(name: str) -> int:
    return len(_error(name).__mro__)


def _class(name: str) -> str:
    return f":class:`~django_ollama_openai.exceptions.{name}`"


# Backends


_BY_GATEWAY: Final = {"tool_choice", "parallel_tool_calls"}
"""Parameters that the gateway honours itself where the engine has tools and does not know them."""


def parameters() -> str:
    """Return the table of optional parameters, with the backends that honour them."""
    columns = [
        _supported(shipped.OllamaBackend.supported_parameters),
        _supported(shipped.OpenAIBackend.supported_parameters),
        {
            **dict.fromkeys(_supported(shipped.LlamaCppBackend.tool_parameters), "``tools=True``"),
            **_supported(shipped.LlamaCppBackend.supported_parameters),
        },
    ]
    rows = [
        [f"``{name}``", *(column.get(name, "no") for column in columns)]
        for name in sorted(OPTIONAL_PARAMETERS)
    ]
    table = _table(
        ["Parameter", "``OllamaBackend``", "``OpenAIBackend``", "``LlamaCppBackend``"],
        [row for row in rows if set(row[1:]) != {"no"}],
        widths=[28, 24, 24, 24],
    )
    unsupported = ", ".join(row[0] for row in rows if set(row[1:]) == {"no"})
    return f"{table}\nNo backend supports: {unsupported}.\n"


def _supported(parameters: Collection[str]) -> dict[str, str]:
    own = dict.fromkeys(parameters, "yes")
    return {**dict.fromkeys(_BY_GATEWAY, "by the gateway"), **own} if "tools" in own else own


# Compatibility


_ENDPOINTS: Final = {
    "chat": "``POST v1/chat/completions``",
    "responses": "``POST v1/responses``",
    "completions": "``POST v1/completions``",
    "embeddings": "``POST v1/embeddings``",
    "models": "``GET v1/models``",
    "errors": "errors",
    "http": "HTTP",
}

_KINDS: Final = {
    "request": ("Request", "Field"),
    "response": ("Response", "Field"),
    "event": ("Events", "Field"),
    "stream": ("Stream", "What"),
    "status": ("Statuses", "Status"),
    "header": ("Headers", "Header"),
    "path": ("Paths", "Path"),
}
"""Of each kind of row the heading of their table and that of its first column."""


@dataclass(frozen=True)
class Row:
    """One row of ``compatibility.toml``, which says what each field is."""

    endpoint: str
    kind: str
    field: str
    ours: str
    ollama: str
    tests: list[str]
    deviation: int | None = None
    ours_only: bool = False
    absent: bool = False

    @property
    def id(self) -> str:
        """What the mark ``compat`` of its tests calls it."""
        field = re.sub(r"\[type=.+\]$", "[type]", self.field)
        return f"{self.endpoint}.{self.kind}.{field}"

    @property
    def path(self) -> str:
        """The field without the remark that may follow it."""
        return self.field.partition(" (")[0]

    @property
    def label(self) -> str:
        """What links on the page call it."""
        plain = self.id.lower().replace("[type]", " types")
        return "compatibility." + re.sub(r"[^a-z0-9._]+", "-", plain).strip("-")

    @property
    def title(self) -> str:
        """The field as the page shows it."""
        name, types_, alternatives = self.field.partition("[type=")
        if types_:
            names = ", ".join(f"``{type_}``" for type_ in alternatives.rstrip("]").split("|"))
            return f"``{name}[]`` of the types {names}" if name else f"Of the types {names}"
        if self.kind in ("stream", "status"):
            return _sentence(self.field).rstrip(".")
        remark = self.field.removeprefix(self.path)
        return ", ".join(f"``{name}``" for name in self.path.split(", ")) + remark


def rows() -> list[Row]:
    """All rows of ``compatibility.toml``, in the order of the page."""
    table = _compatibility()
    return [
        Row(endpoint, kind, field, **facts)
        for endpoint in _ENDPOINTS
        for kind, fields in table.get(endpoint, {}).items()
        for field, facts in fields.items()
    ]


def _compatibility() -> dict[str, Any]:
    return tomllib.loads(COMPATIBILITY.read_text())


def deviations() -> str:
    """Where Ollama's own layer deviates from OpenAI, each with links to its rows."""
    titles: dict[str, str] = _compatibility()["deviations"]
    lines = []
    for number, title in titles.items():
        item = f"{number}. "
        lines.append(f"{item}{_rst(title)}.")
        of_it = [row for row in rows() if row.deviation == int(number)]
        for endpoint, of_endpoint in groupby(of_it, lambda row: row.endpoint):
            links = ", ".join(f":ref:`{row.field} <{row.label}>`" for row in of_endpoint)
            lines.append(f"\n{' ' * len(item)}{_ENDPOINTS[endpoint]}: {links}.\n")
    return "\n".join([*lines, ""])


def compatibility(endpoint: str) -> str:
    """Return the rows of ``endpoint``, as a table for each kind.

    The tests of a row are for those who change the code, and stay in ``compatibility.toml``.
    """
    parts = []
    of_endpoint = (row for row in rows() if row.endpoint == endpoint)
    for kind, of_kind in groupby(of_endpoint, lambda row: row.kind):
        title, first = _KINDS[kind]
        parts.append(f"{title}\n{'-' * len(title)}\n")
        parts.append(
            _table(
                [first, "django-ollama-openai", "Ollama's own ``/v1``"],
                [
                    [f".. _{row.label}:\n\n{row.title}", _rst(row.ours), _rst(row.ollama)]
                    for row in of_kind
                ],
                widths=[36, 36, 28],
            )
        )
    return "\n".join(parts)


# Faults


@dataclass(frozen=True)
class EngineFault:
    """A row of ``faults.toml`` on the engine, which says what each field is."""

    id: str
    connection: Literal["closed", "closed in a stream", "kept", "new", "none"]
    status: int | None = None
    code: str | None = None
    message: str | None = None
    in_stream: bool = False
    engine_says: bool = False
    answered: bool = False
    mode: Literal["stream", "whole"] | None = None
    bounded: bool = False
    tests: tuple[str, ...] = ("tests/endurance/test_faults.py::test_a_fault_of_the_engine",)

    @property
    def told(self) -> str:
        """What the client gets, in words."""
        if self.answered:
            return "Its answer."
        if self.engine_says:
            return f"{self.status}, with the engine's message."
        said = f"`{self.code}`: {self.message}" if self.message else f"`{self.code}`."
        if not self.in_stream:
            return f"{self.status} {said}"
        if self.mode == "stream":
            return f"A frame with {said}"
        return f"{self.status} {said} In a stream that has begun, a frame."


@dataclass(frozen=True)
class ClientFault:
    """A row of ``faults.toml`` on the client."""

    id: str
    sees: str
    engine: str
    tests: tuple[str, ...]


def engine_faults() -> list[EngineFault]:
    """The faults of the engine, in the order of the page."""
    return [EngineFault(id, **_row(row)) for id, row in _faults()["engine"].items()]


def client_faults() -> list[ClientFault]:
    """Those of the client."""
    return [ClientFault(id, **_row(row)) for id, row in _faults()["client"].items()]


def _faults() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads(FAULTS.read_text())


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    if "tests" not in facts:
        return facts
    # One without a module is of the suite itself.
    suite = "tests/endurance/test_faults.py"
    tests = (name if "::" in name else f"{suite}::{name}" for name in facts["tests"])
    return {**facts, "tests": tuple(tests)}


_CONNECTION: Final = {
    "closed": "Closed.",
    "closed in a stream": "Closed in a stream; else kept.",
    "kept": "Kept for the next request.",
    "new": "A new one is opened.",
    "none": "There is none.",
}


def engine_fault_table() -> str:
    """What becomes of every fault of the engine."""
    return _table(
        ["The engine …", "The client gets", "The connection to the engine", "Logged"],
        [
            [
                fault.id,
                _rst(fault.told),
                _CONNECTION[fault.connection],
                "One line." if (fault.status or 0) >= 500 else "Nothing.",
            ]
            for fault in engine_faults()
        ],
        widths=[28, 42, 18, 12],
    )


def client_fault_table() -> str:
    """What becomes of every fault of the client; nothing of them is logged."""
    return _table(
        ["The client …", "The client gets", "The connection to the engine"],
        [[fault.id, fault.sees, fault.engine] for fault in client_faults()],
        widths=[34, 34, 32],
    )


# Changelog


def changelog() -> str:
    """``CHANGELOG.md`` below its title. Of Markdown it uses headings, lists, code and links."""
    _, _, text = CHANGELOG.read_text().partition("\n")
    text = _rst(text)
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r"`\1 <\2>`__", text)
    text = re.sub("^(##+) (.+)$", _heading, text, flags=re.MULTILINE)
    return text.strip() + "\n"


def _heading(match: re.Match[str]) -> str:
    return f"{match[2]}\n{'-~'[len(match[1]) - 2] * len(match[2])}"


# reStructuredText


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, widths: Sequence[int]) -> str:
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        f"   :widths: {' '.join(str(width) for width in widths)}",
        "",
    ]
    for row in [head, *rows]:
        for position, cell in enumerate(row):
            first, *more = cell.splitlines() or [""]
            lines.append(f"   {'  ' if position else '* '}- {first}")
            lines.extend(f"       {line}" for line in more)
    return "\n".join([*lines, ""])


def _rst(text: str) -> str:
    """Markdown's code spans as reStructuredText's."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)


def _summary(documented: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def _sentence(text: str) -> str:
    # Not capitalize(), which would spell the rest in small letters.
    return f"{text[0].upper()}{text[1:]}."


PARTS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "access_settings": access_settings,
    "chat_settings": chat_settings,
    "limit_store_settings": limit_store_settings,
    "retention_settings": retention_settings,
    "usage_settings": usage_settings,
    "usage_receiver_settings": usage_receiver_settings,
    "backend_entries": backend_entries,
    "model_entries": model_entries,
    "api_key_entries": api_key_entries,
    "checks": checks,
    "errors": errors,
    "error_tree": error_tree,
    "exceptions": exceptions_reference,
    "parameters": parameters,
    "deviations": deviations,
    **{f"compatibility_{name}": partial(compatibility, name) for name in _ENDPOINTS},
    "engine_faults": engine_fault_table,
    "client_faults": client_fault_table,
    "changelog": changelog,
}
