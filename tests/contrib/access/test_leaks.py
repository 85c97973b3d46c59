"""No secret is in the database, in a log, in an error report, or in any response except the one
that shows it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.views.debug import ExceptionReporter

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib.access._views import keys, organization
from django_ollama_openai.contrib.access.models import APIKey, ServiceAccount
from tests.contrib.access.conftest import World
from tests.contrib.access.sites import DUMMY, Database, access_site
from tests.servers import NO_TLS, SERVERS_AND_LANE, Server

#: Everything is logged, and every error is reported by a mail with all variables of all frames.
SETTINGS = """
from tests.project.settings import *
DEBUG = True
STATIC_URL = "static/"
TEMPLATES[0]["APP_DIRS"] = True
ROOT_URLCONF = "leak_urls"
ADMINS = ["admin@site.example"]
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = os.environ["LEAK_MAILS"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "output": {"class": "logging.StreamHandler"},
        "mail": {
            "class": "django.utils.log.AdminEmailHandler", "level": "ERROR", "include_html": True
        },
    },
    "root": {"handlers": ["output", "mail"], "level": "DEBUG"},
    "loggers": {"django": {"level": "DEBUG"}, "django.db.backends": {"level": "DEBUG"}},
}
"""
URLS = """
import logging
from django.contrib import admin
from django.urls import path
from django_ollama_openai import endpoints
from django_ollama_openai.contrib.access import _key_cache
from tests.project.urls import urlpatterns

crash = endpoints.Endpoint()

@crash.get(scope="")
def fail(admission):
    logging.getLogger("leak").error(
        "%r %r %r %r", admission, admission.caller, admission.request, vars(_key_cache.cache)
    )
    raise RuntimeError(f"{admission!r} {admission.caller!r} {admission.request!r}")

urlpatterns = [path("admin/", admin.site.urls), endpoints.path("crash/", crash), *urlpatterns]
"""
DEAD = {
    "BACKEND": "django_ollama_openai.backends.OllamaBackend",
    "HOST": "http://127.0.0.1:9",
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


class Leaks:
    """The data sent to and by a site, and the secrets that must not be in it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.secrets: set[str] = set()
        self.responses: list[str] = []

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self.client.request(method, path, **options)
        text = str(answer.headers) + answer.text
        if found := re.findall(r"sk-site_[0-9A-Za-z]{46}", answer.text):
            # It is shown once.
            assert not self.secrets & set(found)
            self.secrets |= set(found)
        else:
            self.responses.append(text)
        return answer

    def api(self, method: str, path: str, key: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return self.send(method, f"/ai/{path}", headers=headers, json=body)

    def login(self) -> None:
        self.send("GET", "/admin/login/")
        self.form("/admin/login/", username="root", password="a-password")

    def form(self, path: str, **fields: Any) -> httpx.Response:
        token = self.client.cookies["csrftoken"]
        answer = self.send("POST", path, data={"csrfmiddlewaretoken": token, **fields})
        assert answer.status_code in (200, 302), answer.text
        return answer

    def found_in(self, content: bytes | str) -> list[str]:
        """Return the text around each half of a secret in ``content``, ignoring case."""
        text = content.decode("latin-1") if isinstance(content, bytes) else content
        halves = {key[begin : begin + 15].lower() for key in self.secrets for begin in (12, 27)}
        places = (text.lower().find(half) for half in halves)
        return [text[max(0, place - 100) : place + 50] for place in places if place >= 0]


WRONG: list[Callable[[str], str]] = [
    lambda key: f"Bearer {key[:-1]}",
    lambda key: f"Bearer {key.swapcase()}",
    lambda key: f'Bearer "{key}"',
    lambda key: f"Bearer {key} and more",
    lambda key: f"bearer  {key},",
    lambda key: f"Basic {key}",
    lambda key: f"Token token={key}",
    lambda key: key,
]


@pytest.mark.any_database
@pytest.mark.parametrize("server", SERVERS_AND_LANE)
def test_no_secret_is_stored_or_logged(server: Server, tmp_path: Path) -> None:
    code, mails, data = tmp_path / "code", tmp_path / "mails", tmp_path / "data"
    for each in (code, mails, data):
        each.mkdir()
    (code / "leak_settings.py").write_text(SETTINGS)
    (code / "leak_urls.py").write_text(URLS)
    environment = {
        "DJANGO_SETTINGS_MODULE": "leak_settings",
        "LEAK_MAILS": str(mails),
        "PYTHONPATH": os.pathsep.join([str(code), *filter(None, sys.path)]),
    }
    options = {
        "BACKENDS": {"default": DUMMY, "second": DEAD},
        "MODELS": {"dead": {"BACKEND": "second", "MODEL": "m"}},
    }
    with access_site(server, data, environment, **options) as site:
        with httpx.Client(base_url=site.site.url, verify=NO_TLS, timeout=60) as client:
            leaks = Leaks(client)
            _make_and_use(leaks, site.database)
        output = site.site.log()
    assert len(leaks.secrets) == 9
    # Everything was recorded indeed.
    assert "INSERT INTO" in output
    assert "RuntimeError" in output
    assert any("Traceback" in mail.read_text() for mail in mails.iterdir())
    cookies = str(list(leaks.client.cookies.jar))
    sent = [cookies, *leaks.responses]
    assert [found for each in sent for found in leaks.found_in(each)] == []
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert site.database.path in files
    # The output of the server is one of them.
    assert [(file, found) for file in files for found in leaks.found_in(file.read_bytes())] == []


PREPARE = """
from django.contrib.auth.models import User
from django_ollama_openai.contrib.access.models import APIKey, Workspace
root = User.objects.get(username="root")
root.set_password("a-password")
root.save()
lab = Workspace.objects.create(name="Lab", slug="lab")
lab.memberships.create(user=User.objects.get(username="ada"), role="owner")
answer = APIKey.objects.create(name="admin", user=root, scopes=["admin"]).new_secret("site")
"""


def _make_and_use(leaks: Leaks, database: Database) -> None:
    def command(*arguments: str) -> str:
        printed = database.command("ollama", "keys", *arguments)
        leaks.responses.append(printed.stderr)
        value = printed.stdout.strip()
        leaks.secrets.add(value)
        return value

    admin: str = database.run(PREPARE)
    leaks.secrets.add(admin)
    key = command("create", "ci", "--user", "ada", "--workspace", "lab")
    listed = leaks.api("GET", "api/keys/", key).json()["data"][0]
    command("rotate", listed["id"])
    made = leaks.api("POST", "api/keys/", key, {"name": "b"}).json()
    leaks.api("POST", f"api/keys/{made['id']}/rotate/", key, {})
    project = f"v1/organization/projects/{listed['workspace']}/service_accounts"
    account = leaks.api("POST", project, admin, {"name": "bot"}).json()
    leaks.api("POST", f"{project}/{account['id']}/api_keys", admin, {})
    leaks.login()
    page = "/admin/ollama_openai_access/apikey/"
    inlines = {"limits-TOTAL_FORMS": 0, "limits-INITIAL_FORMS": 0}
    user = {"name": "by hand", "users": listed["user"], "first_id": str(uuid7())}
    leaks.form(f"{page}add/", **user, expires_at_0="", expires_at_1="", **inlines)
    chosen = database.run(
        "from django_ollama_openai.contrib.access.models import APIKey\n"
        "answer = str(APIKey.objects.get(name='by hand').pk)"
    )
    sent = {"confirmed": "1", "overlap": "24", "first_id": str(uuid7())}
    leaks.form(page, action="rotate", _selected_action=chosen, **sent)
    leaks.send("GET", page)
    leaks.send("GET", f"{page}{chosen}/history/")

    assert leaks.api("POST", "v1/chat/completions", key, CHAT).status_code == 200
    stream = leaks.api("POST", "v1/chat/completions", key, {**CHAT, "stream": True})
    assert stream.status_code == 200
    dead = leaks.api("POST", "v1/chat/completions", key, {**CHAT, "model": "dead"})
    assert dead.status_code == 503
    assert leaks.send(
        "GET", "/crash/", headers={"Authorization": f"Bearer {key}"}
    ).status_code == 500  # fmt: skip
    leaks.api("POST", "v1/chat/completions", key, [])
    leaks.api("GET", "nowhere/", key)
    for wrong in WRONG:
        for path in ("/ai/v1/models", "/admin/", "/nowhere/"):
            leaks.send("GET", path, headers={"Authorization": wrong(key)})
    leaks.send("GET", "/ai/v1/models", headers={"x-api-key": key})
    leaks.api("PATCH", f"api/keys/{made['id']}/", key, {"networks": ["10.0.0.0/8"]})
    refused = leaks.api("GET", "v1/models", made["value"]).json()
    assert refused["error"]["code"] == "ip_not_authorized"
    leaks.api("DELETE", f"api/keys/{listed['id']}/", key)
    assert leaks.api("GET", "v1/models", key).status_code == 401


@pytest.mark.parametrize("way", ["create", "rotate", "account", "key of an account"])
def test_a_report_of_an_error_has_no_secret(
    world: World, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view fails after the secret is stored; error reports without DEBUG have all variables."""
    lab, root = world.workspace("Lab"), world.user("root", is_superuser=True)
    caller = world.key(root, scopes=["keys", "admin"])
    account = ServiceAccount.objects.create(workspace=lab, name="bot")
    caller.client.raise_request_exception = False
    made: list[str] = []
    new_secret = APIKey.new_secret

    def remember(key: APIKey, *arguments: Any) -> str:
        made.append(new_secret(key, *arguments))
        return made[-1]

    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("Failed.")

    monkeypatch.setattr(APIKey, "new_secret", remember)
    monkeypatch.setattr(keys, "present", fail)
    monkeypatch.setattr(organization, "present_account", fail)
    if way == "key of an account":
        monkeypatch.setattr(organization, "_seconds", fail)
    reports: list[str] = []

    def report(*arguments: Any, exc_info: Any = None, **options: Any) -> None:
        kind, error, traceback = type(exc_info), exc_info, exc_info.__traceback__
        reports.append(ExceptionReporter(None, kind, error, traceback).get_traceback_html())

    monkeypatch.setattr("django_ollama_openai._views.endpoint.logger.error", report)
    path = {
        "create": "api/keys/",
        "rotate": f"api/keys/{caller.row.public_id}/rotate/",  # type: ignore[attr-defined]
        "account": f"v1/organization/projects/{lab.public_id}/service_accounts",
        "key of an account": f"v1/organization/projects/{lab.public_id}"
        f"/service_accounts/{account.public_id}/api_keys",
    }[way]
    body = {} if way == "rotate" else {"name": "x"}
    assert caller("POST", path, body).status == 500
    assert "Failed." in reports[0]
    assert made[0] not in reports[0]
