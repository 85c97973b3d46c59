"""``pyproject.toml`` declares what the package imports, and caps what it reaches into."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_ollama_openai.backends._http_backend import AIOHTTP_VERSIONS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "django_ollama_openai"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}

EXTRAS = {
    "fast": "backends/_fast_transport.py",
    "llamacpp": "backends/_llamacpp.py",
    "metrics": "contrib/prometheus/",
    "otel": "contrib/opentelemetry/",
    "progress": "management/progress.py",
    "redis": "contrib/access/stores/_redis",
    "stripe": "contrib/usage/_billing/stripe.py",
}
"""The modules that import what an extra installs."""

CAPPED = ("aiohttp", "asgiref", "django", "httpcore", "httpx", "ollama", "xllamacpp")


def requirements(entries: list[str]) -> dict[str, str]:
    """Return the version specifiers by names of imports."""
    found = (re.fullmatch(r"([\w-]+)(.*)", entry) for entry in entries)
    names = {match[1].replace("-", "_"): match[2] for match in found if match}
    return {"opentelemetry" if name == "opentelemetry_api" else name: names[name] for name in names}


CORE = requirements(PROJECT["dependencies"])
OPTIONAL = {
    extra: requirements(entries) for extra, entries in PROJECT["optional-dependencies"].items()
}


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of all modules that are imported from other packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def third_party(tree: ast.Module) -> set[str]:
    # Migrations, which Django writes, import the package by its name.
    own = {*sys.stdlib_module_names, PACKAGE.name}
    return {name.partition(".")[0] for name in imported(tree)} - own


def test_imports_are_declared_and_declarations_imported() -> None:
    core = set(CORE)
    used: dict[str, set[str]] = {extra: set() for extra in ("", *OPTIONAL)}
    for path, tree in SOURCES.items():
        for name in third_party(tree):
            extras = [extra for extra, prefix in EXTRAS.items() if path.startswith(prefix)]
            used["" if name in core or not extras else extras[0]].add(name)
    assert used == {"": core} | {extra: set(names) for extra, names in OPTIONAL.items()}


def test_versions_are_capped_where_private_parts_are_used() -> None:
    specifiers = CORE | {name: text for extra in OPTIONAL.values() for name, text in extra.items()}
    assert [name for name in CAPPED if "<" not in specifiers[name]] == []


def test_the_backends_know_the_versions_of_the_extra() -> None:
    first, end = (".".join(map(str, version)) for version in AIOHTTP_VERSIONS)
    assert OPTIONAL["fast"] == {"aiohttp": f">={first},<{end}"}


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines: those of classes, functions, variables, attributes of
    ``self`` and parameters."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.rpartition(".")[2]


FENCED = {
    # Documented: docs.python.org/3/library/asyncio-extending.html
    "_tasks.py": {"_enter_task", "_leave_task"},
    "_views/http_requests.py": {"_body"},
    "asgi.py": {"_handler_class", "_stream"},
    "contrib/chat/_store/retention.py": {"_raw_delete"},
}
"""The modules that use private names of asyncio and Django, and these names."""

#: Private by their names only: Django documents them.
DOCUMENTED = {"_base_manager", "_default_manager", "_meta", "_state"}

OWN = {name for tree in SOURCES.values() for name in defined(tree)}


def foreign_private_names(tree: ast.Module) -> set[str]:
    """Return the private modules of other packages, the private attributes of ``self`` that no
    module of the package defines, and those of other objects that this module does not define."""
    own = set(defined(tree))
    names = {part for name in imported(tree) for part in name.split(".")}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if name in OWN:
                pass
            case ast.Attribute(attr=name) if name not in own:
                names.add(name)
    private = {name for name in names if name.startswith("_") and not name.endswith("__")}
    return private - DOCUMENTED


def test_private_names_of_other_packages_are_not_used() -> None:
    used = {
        path: foreign_private_names(tree)
        for path, tree in SOURCES.items()
        # Django writes them, with absolute imports.
        if "/migrations/" not in path
    }
    assert {path: names for path, names in used.items() if names} == FENCED


@pytest.mark.parametrize(
    "source",
    [
        "transport._pool._network_backend = backend",
        "import httpx._client",
        "from httpx._client import BoundAsyncStream",
        "from httpx import _client",
    ],
)
def test_private_names_of_other_packages_would_be_found(source: str) -> None:
    assert foreign_private_names(ast.parse(source))
