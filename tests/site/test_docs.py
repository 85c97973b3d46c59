"""The documentation says all there is, and what it shows works."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import threading
import tomllib
import types
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import AppConfig, apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.db import connection, connections
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import URLPattern, include, path
from pydantic import BaseModel

import django_ollama_openai
from django_ollama_openai import (
    _conf,
    asgi,
    auth,
    backends,
    checks,
    endpoints,
    exceptions,
    policies,
    signals,
    testing,
    urls,
)
from django_ollama_openai import types as types_
from django_ollama_openai._gateway import admission, flow
from django_ollama_openai._gateway import policy as policy_
from django_ollama_openai._translation.model_cards import METADATA
from django_ollama_openai._wire.chat import ChatCompletionRequest
from django_ollama_openai._wire.completions import CompletionRequest
from django_ollama_openai._wire.embeddings import EmbeddingsRequest
from django_ollama_openai._wire.responses import ResponsesRequest
from django_ollama_openai.auth import Caller
from django_ollama_openai.backends import BaseBackend
from django_ollama_openai.management.commands.ollama import Command
from docs import generated
from tests.conftest import DEAD_HOST
from tests.endurance import test_faults
from tests.ollama_server import Answer, Close, Download, OllamaServer
from tests.servers import KEY, serve
from tests.terminals import run as run_command

ROOT = Path(__file__).parents[2]
PACKAGE = Path(django_ollama_openai.__file__).parent
PAGES = generated.pages()
ASK = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
DUMMY = {"default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"}}

urlpatterns = [path("ai/", include("django_ollama_openai.urls"))]


# What there is, is said


def mentions(page: str, name: str) -> bool:
    """Whether ``name`` stands on ``page`` as a word of its own."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", PAGES[page]) is not None


def check_ids() -> set[str]:
    modules = [PACKAGE / "checks.py", *PACKAGE.glob("contrib/*/checks.py")]
    sources = "".join(module.read_text() for module in modules)
    return set(re.findall(r'"(ollama_openai\.[EW]\d+)"', sources))


def error_classes() -> list[type[exceptions.GatewayError]]:
    return [getattr(exceptions, name) for name in exceptions.__all__]


def error_codes() -> set[str]:
    """Codes of classes, and those given where an error is raised."""
    given = {
        code
        for module in PACKAGE.rglob("*.py")
        for code in re.findall(r'\bcode="(\w+)"', module.read_text())
    }
    return given | {error.code for error in error_classes() if error.code}


def shipped_backends() -> list[type[BaseBackend]]:
    public = [getattr(backends, name) for name in backends.__all__]
    classes = [one for one in public if inspect.isclass(one) and issubclass(one, BaseBackend)]
    return [one for one in classes if one is not backends.HTTPBackend]


def constructor_keywords() -> set[tuple[str, str]]:
    return {
        (backend.__name__, parameter.name)
        for backend in shipped_backends()
        for parameter in inspect.signature(backend).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "alias"
    }


@pytest.mark.parametrize("key", _conf.Settings.model_fields)
def test_settings(key: str) -> None:
    assert f".. setting:: {key}\n" in PAGES["settings"]


@pytest.mark.parametrize("model", [_conf.BackendConfig, _conf.ModelConfig, _conf.APIKey])
def test_entries_of_settings(model: type[_conf.BackendConfig]) -> None:
    for key, field in model.model_fields.items():
        assert re.search(rf"\* - ``{key}``\n", PAGES["settings"])
        assert field.description


def test_settings_that_are_mentioned_exist() -> None:
    for text in PAGES.values():
        assert set(re.findall(r":setting:`(\w+)`", text)) <= set(_conf.Settings.model_fields)


@pytest.mark.parametrize("id", sorted(check_ids()))
def test_check_ids(id: str) -> None:
    assert f"* - ``{id}``\n" in PAGES["settings"]


def test_check_ids_that_are_mentioned_exist() -> None:
    mentioned = set(re.findall(r"ollama_openai\.[EW]\d+", "".join(PAGES.values())))
    assert mentioned == check_ids()


@pytest.mark.parametrize("error", error_classes())
def test_error_classes(error: type[exceptions.GatewayError]) -> None:
    assert f".. autoexception:: {error.__name__}\n" in PAGES["api"]


@pytest.mark.parametrize("code", sorted(error_codes()))
def test_error_codes(code: str) -> None:
    assert f"``{code}``" in PAGES["errors"]


@pytest.mark.parametrize("name", signals.__all__)
def test_signals(name: str) -> None:
    assert f".. autodata:: {name}\n" in PAGES["signals"]


@pytest.mark.parametrize("pattern", urls.urlpatterns, ids=lambda pattern: pattern.name)
def test_endpoints(pattern: URLPattern) -> None:
    route = re.sub(r"<\w+:", "<", str(pattern.pattern))
    if pattern.name == "ollama_openai_not_found":
        return
    assert f"``{pattern.name}``" in PAGES["endpoints"]
    assert not route or f" {route}``\n" in PAGES["endpoints"]


REQUESTS: dict[str, type[BaseModel]] = {
    "chat-completions": ChatCompletionRequest,
    "completions": CompletionRequest,
    "embeddings": EmbeddingsRequest,
    "responses": ResponsesRequest,
}


@pytest.mark.parametrize(
    ("page", "field"),
    [(page, field) for page, request in REQUESTS.items() for field in request.model_fields],
)
def test_fields_of_requests(page: str, field: str) -> None:
    assert f"``{field}``" in PAGES[f"endpoints/{page}"]


PUBLIC = (asgi, auth, backends, endpoints, policies, testing, types_)


@pytest.mark.parametrize("key", METADATA)
def test_metadata_of_models(key: str) -> None:
    assert f'"{key}": ' in PAGES["endpoints/models"]


@pytest.mark.parametrize("name", sorted({name for module in PUBLIC for name in module.__all__}))
def test_public_names(name: str) -> None:
    assert re.search(rf"^\.\. (auto\w+|class|data|function):: {name}\b", PAGES["api"], re.MULTILINE)


@pytest.mark.parametrize("backend", shipped_backends())
def test_shipped_backends(backend: type[BaseBackend]) -> None:
    assert mentions("backends", backend.__name__)


@pytest.mark.parametrize(("backend", "keyword"), sorted(constructor_keywords()))
def test_constructor_keywords(backend: str, keyword: str) -> None:
    # autodoc takes the page's reference from the docstring.
    page = "testing" if backend == "DummyBackend" else "backends"
    assert f".. autoclass:: django_ollama_openai.backends.{backend}\n" in PAGES[page]
    assert re.search(rf"\b{keyword}\b", inspect.getdoc(getattr(backends, backend)) or "")


def test_subcommands() -> None:
    """Each has its place, with the options that only some have."""
    parser = Command().create_parser("manage.py", "ollama")
    (subcommands,) = [each.choices for each in parser._actions if each.dest == "subcommand"]
    assert isinstance(subcommands, dict)
    titles = re.findall(r"^(\w+)\n-+$", PAGES["command"], re.MULTILINE)
    assert list(subcommands) == titles
    common = set.intersection(*(set(each._option_string_actions) for each in subcommands.values()))
    for name, subcommand in subcommands.items():
        assert f"   * - ``{name}" in PAGES["command"]
        for option in {*subcommand._option_string_actions} - common | {"--backend"}:
            assert re.search(rf"``{option}[ `]", PAGES["command"]), option


def test_rows_of_faults() -> None:
    """Each row names tests that there are, and each test of the suite has its row."""
    faults: list[generated.EngineFault | generated.ClientFault]
    faults = [*generated.engine_faults(), *generated.client_faults()]
    named = {test for fault in faults for test in fault.tests}
    suite = {
        f"tests/endurance/test_faults.py::{name}"
        for name in names_of_tests("tests/endurance/test_faults.py")
    }
    assert {test for test in named if test.startswith("tests/endurance/test_faults.py")} == suite
    for test in named:
        path, _, name = test.partition("::")
        assert name in names_of_tests(path), test
    cases = {
        fault.id
        for fault in generated.engine_faults()
        if "tests/endurance/test_faults.py::test_a_fault_of_the_engine" in fault.tests
    }
    assert cases == set(test_faults.SCRIPTS)
    for fault in faults:
        assert f"* - {fault.id}\n" in PAGES["faults"]


def names_of_tests(path: str) -> set[str]:
    names = re.findall(r"^(?:async )?def (test_\w+)\(", (ROOT / path).read_text(), re.MULTILINE)
    return set(names)


# What is said, there is


def test_files() -> None:
    for text in PAGES.values():
        for name in re.findall(
            r"``((?:docs|tests|_views|_wire|_gateway|_translation|backends)/[\w/.]+|_\w+\.py)``",
            text,
        ):
            is_made = name.startswith("docs/_build")
            assert is_made or (ROOT / name).exists() or (PACKAGE / name).exists(), name


def test_layers() -> None:
    """The page names those that import-linter enforces, in their order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    _, _, page = PAGES["architecture"].partition("\nLayers\n------\n")
    rows = re.findall(r"^   \* - (.+)$", page, re.MULTILINE)
    names = [set(re.findall(r"``(\w+)``", row)) for row in rows]
    assert names == [set(layer.split(" | ")) for layer in layers]


def test_what_the_pages_install_can_be_installed() -> None:
    """Nothing is on a package index yet: pages install from a clone, with extras that exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*PAGES.values(), (ROOT / "README.md").read_text()]:
        assert "install 'django-ollama-openai" not in text
        for extras in re.findall(r"pip install '\.\[([^]]+)\]'", text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_references() -> None:
    """Roles name what can be imported."""
    for text in PAGES.values():
        for path_ in re.findall(r":(?:class|meth|func):`(?:[^<`]*<|~)(django_[\w.]+)", text):
            pkgutil.resolve_name(path_)


# Examples


@dataclass(frozen=True)
class Example:
    page: str
    language: str
    number: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def find_examples() -> Iterator[Example]:
    block = re.compile(
        r"^\.\. code-block:: (\w+)\n(?:   :caption: .+\n)?\n((?:(?:   .*)?\n)+)", re.MULTILINE
    )
    for page, text in PAGES.items():
        for number, (language, code) in enumerate(block.findall(text), start=1):
            yield Example(page, language, number, dedent(code))


EXAMPLES = list(find_examples())
PYTHON = [example for example in EXAMPLES if example.language == "python"]


def example(page: str, part: str) -> str:
    """The one example of ``page`` that contains ``part``."""
    (found,) = (one.code for one in PYTHON if one.page == page and part in one.code)
    return found


def run(code: str, **names: Any) -> dict[str, Any]:
    namespace = {"__name__": "example", **names}
    exec(compile(code, "<docs>", "exec"), namespace)  # noqa: S102
    return namespace


def module(**names: Any) -> types.ModuleType:
    made = types.ModuleType("example")
    made.__dict__.update(names)
    return made


@contextmanager
def imported(name: str, code: str) -> Iterator[types.ModuleType]:
    """``code`` as the module ``name``."""
    package, _, _ = name.partition(".")
    made = types.ModuleType(name)
    sys.modules.update({package: types.ModuleType(package), name: made})
    try:
        exec(compile(code, name, "exec"), made.__dict__)  # noqa: S102
        yield made
    finally:
        del sys.modules[name], sys.modules[package]


def settings_from(code: str) -> dict[str, Any]:
    options: dict[str, Any] = run(f"import os\n{code}")["OLLAMA_OPENAI"]
    return options


@pytest.mark.parametrize("example", PYTHON, ids=str)
def test_python_compiles(example: Example) -> None:
    code = example.code
    if code.lstrip().startswith('"'):
        code = f"{{\n{code}}}"  # an entry of a dict
    ast.parse(code)


@pytest.mark.parametrize(
    "example", [one for one in PYTHON if "OLLAMA_OPENAI = {" in one.code], ids=str
)
def test_settings_are_valid(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r'environ\["(\w+)"\]', example.code):
        monkeypatch.setenv(name, KEY)
    with override_settings(OLLAMA_OPENAI=settings_from(example.code)):
        assert _conf.problems() == []


def test_every_block_is_found() -> None:
    assert len(EXAMPLES) == sum(
        len(re.findall(r"^\.\. code-block::", text, re.MULTILINE)) for text in PAGES.values()
    )


def test_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_KEY", KEY)
    options = settings_from(example("quickstart", "INSTALLED_APPS"))
    assert options.pop("HOST")
    mounted = module(**run(example("quickstart", "urlpatterns")))
    with override_settings(OLLAMA_OPENAI={**options, "BACKENDS": DUMMY}, ROOT_URLCONF=mounted):
        client = Client(headers={"Authorization": f"Bearer {KEY}"})
        response = client.post("/ai/v1/chat/completions", ASK, content_type="application/json")
        assert response.status_code == 200
        assert response.json()["model"] == "llama3.2"
        assert Client().get("/ai/v1/models").status_code == 401


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_quickstart_client(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_KEY", KEY)
    code = example("quickstart", "from openai import OpenAI")
    with serve(server, tmp_path, {"API_KEYS": [KEY], "BACKENDS": DUMMY}) as site:
        assert "http://127.0.0.1:8000/ai/v1" in code
        with redirect_stdout(StringIO()) as printed:
            names = run(code.replace("http://127.0.0.1:8000", site.url))
            names["client"].close()
    assert printed.getvalue() == "This is a canned reply.\n"


@pytest.mark.llamacpp
@override_settings(ROOT_URLCONF=__name__)
def test_quickstart_without_an_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_KEY", KEY)
    monkeypatch.syspath_prepend(ROOT / "example_project")
    options = settings_from(example("quickstart", "LlamaCppBackend"))
    with override_settings(OLLAMA_OPENAI=options):
        client = Client(headers={"Authorization": f"Bearer {KEY}"})
        response = client.post("/ai/v1/chat/completions", ASK, content_type="application/json")
        assert "Paris" in response.json()["choices"][0]["message"]["content"]
    # The example site, which starts with the same question, has the same settings.
    engine = importlib.import_module("example.engine").embedded("")
    assert options["DEFAULT_MODEL"] == engine.model
    assert options["BACKENDS"] == {"default": engine.backend}
    assert options["MODELS"] == {engine.model: {"OPTIONS": engine.options}}


@override_settings(ROOT_URLCONF=__name__)
def test_example_tests() -> None:
    namespace = run(example("testing", "class AskTests"))
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(namespace["AskTests"])
    assert suite.countTestCases() == 2
    result = unittest.TestResult()
    suite.run(result)
    assert result.failures + result.errors == []


def test_example_chat_box() -> None:
    """The page calls the endpoint at its address, and the browser gets the token that it sends."""
    folder = generated.DOCS / "howto" / "chat_box"
    view = run((folder / "views.py").read_text())["chat"]
    mounted = module(urlpatterns=[*urlpatterns, path("chat/", view)])
    templates = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [str(folder)]}
    ]
    request = RequestFactory().get("/chat/")
    request.user = User(username="ada")
    with override_settings(ROOT_URLCONF=mounted, TEMPLATES=templates, LOGIN_URL="/login/"):
        response = view(request)
        assert '"/ai/v1/chat/completions"' in response.content.decode()
        assert response.cookies["csrftoken"].value
        request.user = AnonymousUser()
        assert view(request).headers["Location"] == "/login/?next=/chat/"


@override_settings(ROOT_URLCONF=__name__)
async def test_example_house_style(ollama: OllamaServer) -> None:
    options = settings_from(example("backends", "myapp.backends.HouseStyleBackend"))
    options["BACKENDS"]["default"]["HOST"] = ollama.url
    options |= {"DEFAULT_MODEL": "smollm2:135m", "ALLOW_ANONYMOUS": True}
    with (
        imported("myapp.backends", example("backends", "class HouseStyleBackend")),
        override_settings(OLLAMA_OPENAI=options),
    ):
        response: Any = await AsyncClient().post(
            "/ai/v1/chat/completions", ASK, content_type="application/json"
        )
        assert response.status_code == 200
    (asked,) = ollama.chats()
    assert asked.body["messages"] == [
        {"role": "system", "content": "Answer in one sentence."},
        *ASK["messages"],
    ]


@override_settings(ROOT_URLCONF=__name__)
def test_example_token_file(ollama: OllamaServer, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    options = settings_from(example("backends", "myapp.backends.TokenFileBackend"))
    options["BACKENDS"]["default"] |= {
        "HOST": ollama.url,
        "OPTIONS": {"token_file": str(token_file)},
    }
    with (
        imported("myapp.backends", example("backends", "class TokenFileBackend")),
        override_settings(OLLAMA_OPENAI={**options, "ALLOW_ANONYMOUS": True}),
    ):
        for token, get in (
            ("first", Client().get),
            ("second", Client().get),
            ("third", async_to_sync(AsyncClient().get)),
        ):
            token_file.write_text(f"{token}\n")
            assert get("/ai/v1/models").status_code == 200
            assert ollama.requests[-1].headers["authorization"] == f"Bearer {token}"


@override_settings(ROOT_URLCONF=__name__)
async def test_example_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "ollama.sock"
    backend = {"BACKEND": "myapp.backends.UnixSocketBackend", "OPTIONS": {"path": str(path)}}
    options = {"BACKENDS": {"default": backend}, "ALLOW_ANONYMOUS": True}
    with (
        OllamaServer(path) as own,
        imported("myapp.backends", example("backends", "class UnixSocketBackend")),
        override_settings(OLLAMA_OPENAI=options),
    ):
        response = await AsyncClient().get("/ai/v1/models")
        assert response.status_code == 200
        assert response.json() == await asyncio.to_thread(
            lambda: Client().get("/ai/v1/models").json()
        )
        assert len(own.requests) == 2


@override_settings(ROOT_URLCONF=__name__)
def test_example_echo() -> None:
    options = {
        "BACKENDS": {"default": {"BACKEND": "myapp.backends.EchoBackend"}},
        "DEFAULT_MODEL": "echo",
        "ALLOW_ANONYMOUS": True,
    }
    with (
        imported("myapp.backends", example("backends", "class EchoBackend")),
        override_settings(OLLAMA_OPENAI=options),
    ):
        client = Client()
        answer = client.post("/ai/v1/chat/completions", ASK, content_type="application/json").json()
        assert answer["choices"][0]["message"]["content"] == "What is the capital of France? "
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["total_tokens"] == 12
        body = {**ASK, "max_tokens": 2, "stream": True}
        response: Any = client.post(
            "/ai/v1/chat/completions", body, content_type="application/json"
        )
        streamed = b"".join(response).decode()
        assert '"content":"is "' in streamed
        assert '"content":"the "' not in streamed
        assert '"finish_reason":"length"' in streamed
        (model,) = client.get("/ai/v1/models").json()["data"]
        assert model["id"] == "echo"


@override_settings(ROOT_URLCONF=__name__)
def test_example_parameters(ollama: OllamaServer) -> None:
    code = "from django_ollama_openai.backends import OllamaBackend\n"
    code += example("backends", "class PlainOllamaBackend")
    options = {
        "BACKENDS": {
            "default": {"BACKEND": "myapp.backends.PlainOllamaBackend", "HOST": ollama.url}
        },
        "DEFAULT_MODEL": "smollm2:135m",
        "ALLOW_ANONYMOUS": True,
    }
    tool = {"type": "function", "function": {"name": "get_time"}}
    body = {**ASK, "tools": [tool]}
    with imported("myapp.backends", code):
        with override_settings(OLLAMA_OPENAI=options):
            refused = Client().post(
                "/ai/v1/chat/completions", body, content_type="application/json"
            )
        options["UNSUPPORTED_PARAMETERS"] = "ignore"
        with override_settings(OLLAMA_OPENAI=options):
            answered = Client().post(
                "/ai/v1/chat/completions", body, content_type="application/json"
            )
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "unsupported_parameter"
    assert answered.status_code == 200
    assert answered.headers["x-ignored-parameters"] == "tools"


@override_settings(ROOT_URLCONF=__name__)
def test_example_store(ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_KEY", KEY)
    options = settings_from(example("stores", "myapp.stores.CacheResponseStore"))
    options |= {"HOST": ollama.url, "DEFAULT_MODEL": "smollm2:135m"}
    with (
        imported("myapp.stores", example("stores", "class CacheResponseStore")),
        override_settings(OLLAMA_OPENAI=options),
    ):
        client = Client(headers={"Authorization": f"Bearer {KEY}"})

        def ask(**body: Any) -> Any:
            return client.post("/ai/v1/responses", body, content_type="application/json").json()

        first = ask(input="Hi")
        assert first["store"] is True
        assert ask(input="And?", previous_response_id=first["id"])["status"] == "completed"
        assert ask(input="And?", previous_response_id="resp_x")["error"]["code"] == (
            "previous_response_not_found"
        )
    assert len(ollama.chats()[1].body["messages"]) == 3


def command_runs() -> list[tuple[str, str]]:
    """What the page of the command shows to be typed, and what is shown of it then."""
    blocks = [one.code for one in EXAMPLES if one.page == "command" and one.language == "console"]
    split = (block.removeprefix("$ python manage.py ").split("\n", 1) for block in blocks)
    return [(typed, shown) for typed, shown in split if shown.strip()]


@pytest.mark.once
@pytest.mark.parametrize(("typed", "shown"), command_runs(), ids=lambda text: text.split("\n")[0])
def test_output_of_the_command(ollama: OllamaServer, typed: str, shown: str) -> None:
    options = settings_from(example("command", "OLLAMA_OPENAI = {"))
    hosts = {"default": ollama.url, "large": DEAD_HOST}
    for alias, entry in options["BACKENDS"].items():
        entry["HOST"] = hosts[alias]
    if "both" in typed:
        entry = example("command", '"both": {')
        options["BACKENDS"] |= ast.literal_eval(f"{{{entry}}}")
    layers = {"dde5aa3fc5ff": 2_019_377_376, "966de95ca8a6": 1429, "fcc5a6bec9da": 7711}
    ollama.downloads["llama3.2"] = Download(
        {f"sha256:{name:0<64}": size for name, size in layers.items()},
        step=30_000_000,
        breaks=[(960_000_000, Close())],
    )
    ollama.reply(Answer([comparable(shown)]))
    _, output, _ = run_command(*shlex.split(typed), "--no-color", options=options, columns=120)
    for host, named in (ollama.url, "http://gpu-1:11434"), (DEAD_HOST, "http://gpu-2:11434"):
        output = output.replace(host, named)
    lines = output.replace("\r\n", "\n").split("\n")
    assert comparable("\n".join(text.rpartition("\r")[2] for text in lines)) == comparable(shown)


def comparable(output: str) -> str:
    """``output`` without what depends on the width of the terminal, and on how long it took."""
    output = re.sub(r"\|█+\|(.+) \[.+\]", r"\1", output)
    return " ".join(re.sub(r"\b\d+ ms\b", "1 ms", output).split())


@override_settings(ROOT_URLCONF=__name__)
def test_example_authenticator() -> None:
    path_ = "myapp.auth.SignedTokenAuthenticator"
    options = settings_from(example("authentication", path_))
    code = example("authentication", "class SignedTokenAuthenticator")
    with (
        imported("myapp.auth", code) as own,
        override_settings(OLLAMA_OPENAI={**options, "BACKENDS": DUMMY, "DEFAULT_MODEL": "dummy"}),
    ):
        token = own.make_token("alice")
        for authorization, path_, status in (
            (f"Bearer {token}", "chat/completions", 200),
            (f"Bearer {token}", "models", 403),
            (f"Bearer {token}x", "chat/completions", 401),
            ("Bearer sk-other", "chat/completions", 401),
        ):
            client = Client(headers={"Authorization": authorization})
            if path_ == "models":
                response: Any = client.get("/ai/v1/models")
            else:
                response = client.post(f"/ai/v1/{path_}", ASK, content_type="application/json")
            assert response.status_code == status


def test_example_logging() -> None:
    code = example("deployment", "LOGGING = {") + dedent(
        """
        import logging.config

        logging.config.dictConfig(LOGGING)
        logging.getLogger("django_ollama_openai").info("is back")
        """
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stderr == "is back\n"


@override_settings(PROMETHEUS_KEY="sk-prometheus")
def test_example_metrics_key() -> None:
    path_ = "myapp.auth.PrometheusAuthenticator"
    options = {"AUTHENTICATION": [path_], "BACKENDS": DUMMY}
    with (
        imported("myapp.auth", example("monitoring", "class PrometheusAuthenticator")),
        override_settings(OLLAMA_OPENAI=options, ROOT_URLCONF=__name__),
    ):
        found = run_gates("sk-prometheus")
        assert found.may("metrics")
        assert not found.may("chat")
        assert found.key_id
        for key in ("sk-other", "é"):
            with pytest.raises(exceptions.AuthenticationFailed):
                run_gates(key)


def run_gates(key: str) -> Caller:
    request = RequestFactory(headers={"Authorization": f"Bearer {key}"}).get("/ai/metrics")
    return flow.run(admission.authenticate(request, _conf.get()))


@pytest.mark.metrics
@pytest.mark.otel
def test_example_optional_apps() -> None:
    """The settings on the page name apps that can be installed."""
    for part in ("contrib.prometheus", "contrib.opentelemetry"):
        (name,) = (
            app for app in run(example("monitoring", f'{part}"'))["INSTALLED_APPS"] if part in app
        )
        assert AppConfig.create(name).name == name


@override_settings(ROOT_URLCONF=__name__)
def test_example_receiver(caplog: pytest.LogCaptureFixture) -> None:
    namespace = run(example("signals", "def log_usage"))
    options = {"BACKENDS": DUMMY, "DEFAULT_MODEL": "dummy", "API_KEYS": [{"KEY": KEY, "NAME": "a"}]}
    caplog.set_level("INFO", logger="example")
    try:
        with override_settings(OLLAMA_OPENAI=options):
            client = Client(headers={"Authorization": f"Bearer {KEY}"})
            client.post("/ai/v1/chat/completions", ASK, content_type="application/json")
    finally:
        signals.completion_finished.disconnect(namespace["log_usage"])
    (record,) = (record for record in caplog.records if record.name == "example")
    assert re.fullmatch(r"a used dummy: 6 \+ 5 tokens in 0\.\d s \(stop\)", record.getMessage())


def test_example_first_app() -> None:
    with imported("notes.urls", example("extending", "class Note(")) as own:
        mounted = module(urlpatterns=[path("ai/", include(own.urlpatterns))])
        options = {"BACKENDS": DUMMY, "API_KEYS": [KEY]}
        with override_settings(OLLAMA_OPENAI=options, ROOT_URLCONF=mounted):
            client = Client(headers={"Authorization": f"Bearer {KEY}"})
            body = {"text": "Buy milk."}
            cache.clear()
            assert client.get("/ai/api/note/").status_code == 404
            assert client.post("/ai/api/note/", body, "application/json").json() == body
            assert client.get("/ai/api/note/").json() == body


@pytest.fixture
def summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The second app of the page, installed."""
    package = tmp_path / "myapp"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    tables = [example("extending", f"class {name}(models.Model)") for name in ("Summary", "Visit")]
    package.joinpath("models.py").write_text("\n".join(tables))
    for name, part in (
        ("apps", "class SummariesConfig"),
        ("conf", "class SummariesSettings"),
        ("urls", "class SummaryRecorder"),
        ("stages", "class Glossary"),
        ("policies", "class OneAtATime"),
        ("rows", "visits = BatchWriter"),
        ("pruners", "class VisitPruner"),
    ):
        package.joinpath(f"{name}.py").write_text(example("extending", part))
    monkeypatch.syspath_prepend(tmp_path)
    installed = [*settings.INSTALLED_APPS, "myapp.apps.SummariesConfig"]
    options = {
        "BACKENDS": DUMMY,
        "DEFAULT_MODEL": "dummy",
        "API_KEYS": [{"KEY": KEY, "NAME": "wiki"}],
        "SUMMARIES": {"MAX_WORDS": 7},
    }
    with override_settings(INSTALLED_APPS=installed, OLLAMA_OPENAI=options):
        ours = importlib.import_module("myapp.urls")
        mounted = module(urlpatterns=[path("ai/", include(ours.urlpatterns))])
        with override_settings(ROOT_URLCONF=mounted):
            yield ours
    apps.all_models.pop("myapp")
    _conf._create.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "myapp"]:
        del sys.modules[name]


@pytest.mark.django_db(transaction=True)
def test_example_app(summaries: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Django never closes connections to a database in memory, not even those of other threads. This
    # one is kept open, since the database ends with the last of them.
    connection.ensure_connection()
    monkeypatch.setattr(connections["default"], "close_at", None)
    monkeypatch.setattr(type(connections["default"]), "is_in_memory_db", lambda self: False)
    models = importlib.import_module("myapp.models")
    assert checks.check_apps() + checks.check_paths() == []
    assert summaries.urlpatterns in [patterns for _, patterns in urls.optional_endpoints()]
    (policy,) = policy_.policies(_conf.get())
    client = Client(headers={"Authorization": f"Bearer {KEY}"})

    def post(**fields: Any) -> Any:
        body = {"text": "Let us talk about zithers.", **fields}
        return client.post("/ai/api/summaries", body, content_type="application/json")

    with connection.schema_editor() as editor:
        for model in (models.Summary, models.Term, models.Visit):
            editor.create_model(model)
    try:
        models.Term.objects.create(word="zither", meaning="an instrument")
        whole = post().json()["choices"][0]["message"]["content"]
        assert b"[DONE]" in b"".join(post(stream=True))
        assert client.get("/ai/api/summaries/").json() == {"data": [whole, whole]}
        first, second, _ = testing.requests_to()[0].messages
        assert "zither: an instrument" in str(first)
        assert "up to 7 words" in str(second)
        assert vars(policy)["busy"] == set()
        vars(policy)["busy"].add("key:wiki")
        assert post().status_code == 503
        assert client.get("/ai/api/summaries/").status_code == 200
        assert Client().get("/ai/api/summaries/").status_code == 401
        rows = importlib.import_module("myapp.rows")
        rows.note_visit(types.SimpleNamespace(request_id="req_1"))
        assert rows.visits.flush(timeout=30)
        assert models.Visit.objects.get().request_id == "req_1"
        pruner = importlib.import_module("myapp.pruners").VisitPruner()
        for age, batches in ((None, [0]), (timedelta(microseconds=1), [1, 0])):
            (pruning,) = pruner.prunings(age)
            assert [pruning.delete_batch() for _ in batches] == batches
        rows.visits.close(timeout=30)
        for thread in threading.enumerate():
            if thread.name == "ollama-openai-writer-visits":
                thread.join()
    finally:
        with connection.schema_editor() as editor:
            for model in (models.Summary, models.Term, models.Visit):
                editor.delete_model(model)


@override_settings(ROOT_URLCONF=__name__)
def test_example_error() -> None:
    with pytest.raises(exceptions.InvalidRequest) as raised:
        run(example("errors", "too_many_words"))
    assert raised.value.envelope()["error"]["code"] == "too_many_words"


def test_example_flow() -> None:
    from django_ollama_openai._gateway import flow

    namespace = run(
        example("architecture", "def greet"),
        call=flow.call,
        find_user=lambda user_id: types.SimpleNamespace(name=f"user {user_id}"),
        afind_user=None,
    )
    assert flow.run(namespace["greet"](7)) == "Hello user 7"


def test_example_mounts() -> None:
    code = "from django.urls import include, path\n"
    mounted = module(**run(code + example("settings", '{"backend": "large"}')))
    options = {
        "BACKENDS": {**DUMMY, "large": DUMMY["default"]},
        "DEFAULT_MODEL": "dummy",
        "ALLOW_ANONYMOUS": True,
    }
    with override_settings(OLLAMA_OPENAI=options, ROOT_URLCONF=mounted):
        (model,) = Client().get("/large/v1/models").json()["data"]
        assert model["metadata"]["backend"] == "large"
        answer = Client().post("/plan/v1/chat/completions", ASK, content_type="application/json")
        assert "finishReason" in answer.json()["choices"][0]
