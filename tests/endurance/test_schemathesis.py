"""Requests made from the OpenAPI document: what it calls valid is answered as it says, what it
calls invalid is refused.

Schemathesis makes them: for each operation some at random, with a fixed seed, and each edge of each
field. It makes most of them while pytest collects, so that only the environment ``fuzz`` does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, CheckContext, Response

from django_ollama_openai import urls
from django_ollama_openai._views.openapi import describe
from tests.ollama_server import OllamaServer
from tests.servers import KEY, ROOT, SERVERS, Site, serve

AnyCase: TypeAlias = Case[Any]
Test: TypeAlias = Callable[[AnyCase, Site, requests.Session], None]

OLLAMA = "django_ollama_openai.backends.OllamaBackend"
CHAT_MODEL, EMBEDDING_MODEL = "smollm2-tools:135m", "all-minilm:22m"

# What each of them answers is held to it in test_openapi.py.
DOCUMENT = describe(urls.urlpatterns, "both", server="/ai")

REFUSALS = (
    # An integer is one without a fraction here; to JSON schema 1.0 is the same as 1.
    r"input should be a valid integer",
    r"input should be a string, an array of strings, of tokens, or of arrays of tokens",
    # Texts that hold more than a pattern can say.
    r"input should be base64 audio: ",
    r"input should be an image: ",
    r"input should be seconds or a duration such as '5m', up to 24 hours",
    # The rules in the descriptions of the operations.
    r"'stream_options' is only allowed when 'stream' is true",
    r"'top_logprobs' is only allowed when 'logprobs' is true",
    r"'tool_choice' is only allowed when 'tools' are specified",
    r"'function_call' is only allowed when 'functions' are specified",
    r"'functions' cannot be combined with 'tool(s|_choice)'",
    r"The function .* in 'function_call' is not one of 'functions'",
    r"Tool choice .* not found in 'tools' parameter",
    r"The (function|custom) .* in 'tool_choice' is not one of 'tools'",
    r"'logprobs' cannot be combined with 'echo'",
    r"'echo' is only allowed with prompts that are text",
    r"'input' must contain a message or another item with readable text",
    r"'previous_response_id' is not supported",
    r"Missing required parameter: 'input'",
    r"Send only one of 'previous_response_id' and 'conversation'",
    r"references to items are not supported",
    r"This request asks for \d+ choices; this site allows \d+",
    r"'options.num_ctx' may be up to \d+, not \d+",
    r"This site does not fetch images",
    r"does not support",
    r"'dimensions' may be up to \d+ for this model",
    r"This model has \d+ dimensions, and its engine cannot reduce them",
)


REJECTED = ["400", "404", "405", "413"]


@schemathesis.check
def only_documented_refusals(ctx: CheckContext, response: Response, case: AnyCase) -> None:
    """Stands in for ``positive_data_acceptance``, which knows of no rule beyond the schema."""
    meta = case.meta
    assert meta is not None
    if response.status_code == 400 and meta.generation.mode.is_positive:
        message = response.json()["error"]["message"]
        assert any(re.search(refusal, message) for refusal in REFUSALS), message


def api(*, edges: bool, examples: int) -> Any:
    """The document as Schemathesis reads it. ``edges`` are limits just kept, just exceeded, fields
    left out, methods that are not there; ``examples`` how many more there are at random."""
    return schemathesis.openapi.from_dict(
        DOCUMENT,
        config=schemathesis.Config.from_dict(
            {
                "generation": {
                    "deterministic": True,
                    "database": "none",
                    "max-examples": max(examples, 1),
                },
                "phases": {
                    "coverage": {"enabled": edges},
                    "fuzzing": {"enabled": examples > 0},
                },
                "checks": {
                    # See only_documented_refusals().
                    "positive_data_acceptance": {"enabled": False},
                    "negative_data_rejection": {"expected-statuses": REJECTED},
                },
            }
        ),
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a table of sessions: a wrong one can be looked for, and not be there."""
    path = tmp_path_factory.mktemp("api") / "db.sqlite3"
    migrate = [sys.executable, "-m", "django", "migrate", "--skip-checks", "--verbosity=0"]
    site = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "SITE_DATABASE": str(path)}
    subprocess.run(migrate, cwd=ROOT, env={**os.environ, **site}, check=True)
    return path


@pytest.fixture(scope="module", params=SERVERS)
def api_site(
    request: pytest.FixtureRequest,
    ollama_server: OllamaServer,
    database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A site whose answers depend on the request alone."""
    ollama_server.reset()
    directory = tmp_path_factory.mktemp(f"api-{request.param}")
    options = {
        "HOST": ollama_server.url,
        "BACKENDS": {"second": {"BACKEND": OLLAMA, "HOST": ollama_server.url}},
        "API_KEYS": [KEY],
        "DEFAULT_MODEL": CHAT_MODEL,
        "UNSUPPORTED_PARAMETERS": "ignore",
    }
    with serve(request.param, directory, options, SITE_DATABASE=str(database)) as site:
        yield site


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


ANYTHING, EDGES = api(edges=False, examples=20), api(edges=True, examples=0)


# How long something takes is the machine's affair.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def of(schema: Any) -> Callable[[Test], Test]:
    """Run a test for each operation, with the requests that ``schema`` makes of it."""
    decorator: Callable[[Test], Test] = schema.parametrize()
    return decorator


@of(ANYTHING)
@PATIENT
def test_requests_at_random(case: AnyCase, api_site: Site, session: requests.Session) -> None:
    check(case, api_site, session)


@of(EDGES.include(method="GET"))
@PATIENT
def test_every_edge_without_a_body(
    case: AnyCase, api_site: Site, session: requests.Session
) -> None:
    check(case, api_site, session)


# What reads a body is the same in both servers; those at random go to both.
@pytest.mark.parametrize("api_site", SERVERS[:1], indirect=True)
@of(EDGES.include(method="POST"))
@PATIENT
def test_every_edge_of_a_body(case: AnyCase, api_site: Site, session: requests.Session) -> None:
    check(case, api_site, session)


def check(case: AnyCase, site: Site, session: requests.Session) -> None:
    make_consistent(case)
    case.call_and_validate(
        base_url=f"{site.url}/ai",
        session=session,
        headers={"Authorization": f"Bearer {KEY}"},
        additional_checks=[only_documented_refusals],
    )


def make_consistent(case: AnyCase) -> None:
    """Change what is valid by itself, and would only be refused for what a schema cannot say."""
    assert case.meta is not None
    is_valid = case.meta.generation.mode.is_positive
    if is_valid and "model_id" in case.path_parameters:
        case.path_parameters["model_id"] = CHAT_MODEL
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str | None) and body.get("model") != "":
        body["model"] = EMBEDDING_MODEL if case.path == "/v1/embeddings" else CHAT_MODEL
    # A null is valid, and the same as nothing.
    if "messages" in body and body.get("top_logprobs") is not None:
        body.update({} if body.get("logprobs") is not None and not is_valid else {"logprobs": True})
    if body.get("stream_options") is not None and body.get("stream") is None:
        body["stream"] = True
    if is_valid and not isinstance(body.get("tool_choice"), str | None):
        del body["tool_choice"]
