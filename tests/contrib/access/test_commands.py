"""``manage.py ollama keys``, ``workspaces`` and ``limits``."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from django_ollama_openai.contrib.access.models import APIKey, Limit, Workspace
from tests.contrib.access.conftest import Caller, World
from tests.contrib.access.sites import AccessSite, access_site
from tests.servers import ROOT

KEY = re.compile(r"sk-site_[0-9A-Za-z]{46}\n")


class Ran:
    def __init__(self, line: str) -> None:
        out, err = StringIO(), StringIO()
        call_command("ollama", *shlex.split(line), stdout=out, stderr=err)
        self.out, self.err = out.getvalue(), err.getvalue()


@pytest.fixture
def site(world: World) -> World:
    world.user("ada")
    world.user("bob")
    world.workspace("Lab", owner=world.user("cy"))
    for slug in ("twin-1", "twin-2"):
        Workspace.objects.create(name="Twin", slug=slug)
    Workspace.objects.create(name="Only one", slug="only")
    return world


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--user ada", {"scopes": None, "models": None, "networks": None, "expires_at": None}),
        ("--workspace lab", {"user": None}),
        ("--workspace 'Only one'", {}),
        ("--user cy --workspace lab", {}),
        ("--user ada --scope chat --scope models", {"scopes": ["chat", "models"]}),
        ("--user ada --model 'a*' --model b", {"models": ["a*", "b"]}),
        ("--user ada --network 127.0.0.0/8 --network ::1", {"networks": ["127.0.0.0/8", "::1"]}),
        ("--user ada --scope admin", {"scopes": ["admin"]}),
    ],
)
def test_create_prints_the_key_alone(site: World, options: str, expected: dict[str, Any]) -> None:
    ran = Ran(f"keys create ci {options}")
    assert KEY.fullmatch(ran.out)
    # The operator may give more than the user has, and gets to know it.
    assert ("not a superuser" in ran.err) == ("admin" in options)
    row = APIKey.objects.get(name="ci")
    assert {name: getattr(row, name) for name in expected} == expected
    assert Caller(ran.out.strip())("GET", "api/me/").body["key"]["id"] == row.public_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_durations(site: World, text: str, expected: timedelta) -> None:
    Ran(f"keys create ci --user ada --expires {text}")
    end = APIKey.objects.get().expires_at
    assert end is not None
    assert abs(end - now() - expected) < timedelta(seconds=30)


#: Commands that fail, each with a part of its message.
WRONG = {
    "keys create ci": "--user, --workspace",
    "keys create '' --user ada": "name: ",
    f"keys create {'x' * 101} --user ada": "name: ",
    "keys create ci --user eve": "no user 'eve'",
    "keys create ci --workspace nowhere": "no workspace 'nowhere'",
    "keys create ci --workspace Twin": "Several workspaces",
    "keys create ci --user ada --workspace lab": "ada is not a member of Lab",
    "keys create ci --user ada --scope everything": "'everything'",
    "keys create ci --user ada --network 10.0.0.1/8": "'10.0.0.1/8' is not a network",
    "keys create ci --user ada --model ''": "models: ",
    "keys create ci --user ada --expires 0": "'0' is not a duration",
    "keys create ci --user ada --expires 0d": "'0d' is not between",
    "keys create ci --user ada --expires=-1d": "'-1d' is not a duration",
    "keys create ci --user ada --expires 30": "'30' is not a duration",
    "keys create ci --user ada --expires 999999w": "'999999w' is not between",
    "keys create ci --user ada --expires ''": "'' is not a duration",
    "keys revoke key_1": "no API key 'key_1'",
    "keys rotate key_1": "no API key 'key_1'",
    "keys": "required: action",
    "workspaces create New --owner eve": "no user 'eve'",
    "workspaces create Lab --owner ada": "slug: ",
    "workspaces create New": "--owner",
    "workspaces create New --owner ada --slug 'a b'": "slug: ",
    "workspaces add nowhere ada": "no workspace 'nowhere'",
    "workspaces add lab eve": "no user 'eve'",
    "workspaces add lab ada --role king": "invalid choice: 'king'",
    "workspaces add lab cy --role member": "last owner",
    "limits remove lim_1": "no limit 'lim_1'",
    "limits set --target user --unit requests --amount 1 --per day": "'user' is not a target",
    "limits set --target everybody:x --unit requests --amount 1 --per day": "is not a target",
    "limits set --target user:eve --unit requests --amount 1 --per day": "no user 'eve'",
    "limits set --target key:k --unit requests --amount 1 --per day": "no API key 'k'",
    "limits set --target everybody --unit requests --amount=-1 --per day": "amount: ",
    "limits set --target everybody --unit requests --amount 1.5 --per day": "amount: ",
    "limits set --target everybody --unit requests --amount nan --per day": "not a number",
    "limits set --target everybody --unit requests --amount inf --per day": "not a number",
    "limits set --target everybody --unit requests --amount 1e30 --per day": "amount: ",
    "limits set --target everybody --unit requests --amount 1": "per: ",
    "limits set --target everybody --unit concurrent --amount 1 --per day": "per: ",
    "limits set --target everybody --unit apples --amount 1": "invalid choice: 'apples'",
    "limits set --target everybody --unit requests --amount 1 --per year": "invalid choice: 'year'",
    "limits set --target everybody --unit requests --amount 1 --per day --timezone Mars": "'Mars'",
}


@pytest.mark.parametrize("line", WRONG)
def test_mistakes_are_named(site: World, line: str) -> None:
    counts = [model._default_manager.count() for model in (APIKey, Workspace, Limit)]
    with pytest.raises(CommandError, match=re.escape(WRONG[line])):
        Ran(line)
    assert counts == [model._default_manager.count() for model in (APIKey, Workspace, Limit)]


def test_the_lifetime_of_a_key(site: World) -> None:
    value = Ran("keys create ci --user ada").out.strip()
    key = APIKey.objects.get()
    new = Ran(f"keys rotate {key.public_id}").out
    assert KEY.fullmatch(new)
    assert [Caller(each).chat().status for each in (value, new.strip())] == [200, 200]
    last = Ran(f"keys rotate {key.public_id} --overlap 0s").out.strip()
    assert [Caller(each).chat().status for each in (value, new.strip(), last)] == [401, 401, 200]
    listed = Ran("keys list").out
    assert all(part in listed for part in (key.public_id, "ci", "ada", last[-4:]))
    assert last[12:-4] not in listed
    Ran(f"keys revoke {key.public_id}")
    assert Caller(last).chat().status == 401
    assert "revoked" in Ran("keys list").out
    with pytest.raises(CommandError, match="revoked"):
        Ran(f"keys rotate {key.public_id}")


def test_workspaces(site: World) -> None:
    made = Ran("workspaces create 'Data team' --owner ada --model 'a*'")
    row = Workspace.objects.get(slug="data-team")
    assert made.out == f"{row.public_id}\n"
    assert row.models == ["a*"]
    Ran("workspaces add data-team bob --role admin")
    Ran(f"workspaces add {row.public_id} bob --role owner")
    Ran("workspaces add 'Data team' ada")
    roles = dict(row.memberships.values_list("user__username", "role"))
    assert roles == {"ada": "member", "bob": "owner"}
    listed = Ran("workspaces list").out
    assert all(part in listed for part in (row.public_id, "data-team", "Data team", "2"))


@pytest.mark.parametrize("target", ["everybody", "each_workspace", "each_user", "each_key",
                                    "workspace:lab", "user:ada", "key:{key}"])  # fmt: skip
def test_limits_of_each_target(site: World, target: str) -> None:
    Ran("keys create ci --user ada")
    target = target.format(key=APIKey.objects.get().public_id)
    line = f"limits set --target {target} --unit requests --per day --model 'a*'"
    first = Ran(f"{line} --amount 60 --timezone Europe/Berlin")
    assert Ran(f"{line} --amount 7 --timezone Asia/Tokyo").out == first.out
    (row,) = Limit.objects.all()
    assert first.out == f"{row.public_id}\n"
    assert (row.amount, row.timezone, row.model) == (Decimal(7), "Asia/Tokyo", "a*")
    listed = Ran("limits list").out
    assert all(part in listed for part in (row.public_id, target, "7 requests per day", "a*"))
    Ran(f"limits remove {row.public_id}")
    assert not Limit.objects.exists()


def test_a_limit_on_cost_warns(site: World) -> None:
    ran = Ran("limits set --target everybody --unit cost --amount 0.5 --per month")
    assert re.fullmatch(r"lim_[0-9a-f]{32}\n", ran.out)
    assert "has no effect" in ran.err


@pytest.mark.parametrize(
    "line",
    ["keys", "keys create", "keys list", "keys rotate", "keys revoke", "workspaces",
     "workspaces create", "workspaces list", "workspaces add", "limits", "limits set",
     "limits list", "limits remove"],
)  # fmt: skip
def test_help_explains_every_option(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Ran(f"{line} --help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    # An option without a help text is followed by another option, or by the end.
    assert not re.search(r"^  (--(?!skip|traceback)\S+)( \S+)?\n(?=  -|\Z)", text, re.MULTILINE)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccessSite]:
    with access_site("gunicorn", tmp_path_factory.mktemp("site")) as site:
        yield site


def shell(site: AccessSite, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=ROOT,
        env={**os.environ, **site.database.environment, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


CLIENT = """
import os, sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=os.environ["AI_KEY"], max_retries=0)
answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
print(answer.choices[0].message.content)
"""


@pytest.mark.any_database
def test_a_key_in_a_shell_variable_is_used_by_a_client(running: AccessSite, tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    manage = '"$PYTHON" -m django'
    done = shell(
        running,
        f"set -eu; key=$({manage} ollama keys create ci --user ada); "
        f'echo "[$key]"; AI_KEY=$key "$PYTHON" {client} {running.base_url}',
    )
    assert done.returncode == 0, done.stderr
    first, answer = done.stdout.splitlines()
    assert KEY.fullmatch(first.strip("[]") + "\n")
    assert answer
    assert done.stderr == ""


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("create ci --user nobody", 1),
        ("create ci --user ada --expires 0", 2),
        ("create ci --nothing", 2),
    ],
)
def test_errors_go_to_stderr_only(running: AccessSite, arguments: str, code: int) -> None:
    done = shell(running, f'"$PYTHON" -m django ollama keys {arguments}')
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
