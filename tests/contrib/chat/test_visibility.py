"""Every endpoint of the app, for every kind of caller: another's things do not exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from django.db import transaction
from django.utils.timezone import now
from pytest_django import Settings

from django_ollama_openai.contrib.access.models import Workspace
from django_ollama_openai.contrib.chat.models import Conversation
from django_ollama_openai.contrib.chat.urls import urlpatterns
from tests.contrib.access.conftest import DUMMY, Caller, World
from tests.contrib.chat.conftest import PNG, SESSIONS

pytestmark = pytest.mark.any_database

STATIC: Final = "a-static-key"
#: No answer to anybody else has these.
SECRETS: Final = ("Zanzibar", "quagga", "yttrium")
QUESTION, REPLY, TITLE = SECRETS

CALLERS: Final = (
    "nobody",
    "anonymous",
    "static key",
    "other user",
    "key of another user",
    "superuser",
    "key without scope",
    "member of another workspace",
    "member of the workspace",
    "owner",
)


@dataclass(frozen=True)
class Row:
    """A request, and the statuses that its callers get.

    ``private`` is the status for the owner of a private session. ``shared`` is that for another
    member of the workspace if the session is shared. Those who own nothing that the request names
    get ``others``: 404, or the answer to a list or a creation of their own. ``stateless`` is that
    for anonymous callers and keys without the scope ``sessions``, for whom nothing is kept.
    """

    request: str
    body: Any = None
    private: int = 200
    shared: int = 403
    others: int = 404
    stateless: int = 403


def listed(request: str, body: Any = None, status: int = 200, **fields: int) -> Row:
    """Return the row of a request that names nothing: all callers get the same status."""
    return Row(request, body, private=status, shared=status, others=status, **fields)


def unshared(request: str, body: Any = None, **fields: int) -> Row:
    """Return the row of a request that is the owner's alone, though the session is shared."""
    return Row(request, body, shared=404, **fields)


S: Final = "api/chat/sessions/{session}/"
C: Final = "v1/conversations/{session}"
R: Final = "v1/responses/{response}"
K: Final = "v1/chat/completions/{completion}"
ITEM: Final = {"role": "user", "content": "x"}
IMPORT: Final = {
    "object": "chat.session.export",
    "version": 1,
    "session": {"title": "x"},
    "messages": [],
}
#: A line for each method of each path. What a caller may read of a shared session is a 200.
ROWS: Final[Sequence[Row]] = (
    listed("GET api/chat/sessions/"),
    listed("POST api/chat/sessions/", {}, 201),
    listed("POST api/chat/sessions/import/", IMPORT, 201),
    listed("GET api/chat/export/"),
    Row(f"GET {S}", shared=200),
    Row(f"PATCH {S}", {"title": "x"}),
    Row(f"DELETE {S}"),
    Row(f"GET {S}messages/", shared=200),
    Row(f"POST {S}messages/", {"content": "x"}),
    Row(f"GET {S}messages/{{message}}/", shared=200),
    Row(f"PATCH {S}messages/{{message}}/", {"content": "x"}, private=201),
    Row(f"DELETE {S}messages/{{message}}/"),
    Row(f"POST {S}messages/{{message}}/regenerate/", {}),
    Row(f"POST {S}stop/", {}),
    Row(f"POST {S}title/", {"title": "x"}),
    Row(f"GET {S}messages/{{answer}}/stream/", shared=200),
    Row(f"GET {S}export/"),
    unshared("GET api/chat/files/{file}/"),
    listed("POST v1/conversations", {}),
    Row(f"GET {C}", shared=200),
    Row(f"POST {C}", {"metadata": {}}),
    Row(f"DELETE {C}"),
    Row(f"GET {C}/items", shared=200),
    Row(f"POST {C}/items", {"items": [ITEM]}),
    Row(f"GET {C}/items/{{message}}", shared=200),
    Row(f"DELETE {C}/items/{{message}}"),
    listed("POST v1/responses", {"input": "x"}, stateless=200),
    listed("POST v1/responses/input_tokens", {"input": "x"}, stateless=200),
    listed("POST v1/responses/compact", {"model": "m", "input": "x"}, stateless=200),
    unshared(f"GET {R}"),
    unshared(f"DELETE {R}"),
    # It does not run in the background.
    unshared(f"POST {R}/cancel", {}, private=400),
    unshared(f"GET {R}/input_items"),
    listed("GET v1/chat/completions"),
    listed("POST v1/chat/completions", {"messages": [ITEM], "store": True}, stateless=200),
    unshared(f"GET {K}"),
    unshared(f"POST {K}", {"metadata": {}}),
    unshared(f"DELETE {K}"),
    unshared(f"GET {K}/messages"),
)
#: Callers who own other things than the session, or nothing in it.
STRANGERS: Final = frozenset(CALLERS[2:6]) | {"member of another workspace"}


def expected(row: Row, caller: str, *, is_shared: bool) -> int:
    if caller == "nobody":
        return 401
    if caller in ("anonymous", "key without scope"):
        return row.stateless
    if caller == "owner":
        return row.private
    if caller == "member of the workspace" and is_shared:
        return row.shared
    return row.others


class Site:
    """A session with a question, which has a picture, and an answer; a stored response; a stored
    chat completion; and everybody who may want to see them."""

    def __init__(self, world: World, *, is_shared: bool) -> None:
        ada, bob, eve = (world.user(name) for name in ("ada", "bob", "eve"))
        lab, firm = world.workspace("Lab", member=ada), world.workspace("Firm", member=eve)
        lab.memberships.create(user=bob, role="admin")
        root = world.user("root", is_superuser=True, is_staff=True)
        self.callers: dict[str, Caller] = {
            "nobody": Caller(),
            "anonymous": Caller(),
            "static key": Caller(STATIC),
            "other user": world.session(world.user("max")),
            "key of another user": world.key(eve),
            "superuser": world.session(root),
            "key without scope": world.key(ada, lab, scopes=["chat", "models"]),
            "member of another workspace": world.key(eve, firm),
            "member of the workspace": world.key(bob, lab),
            "owner": world.session(ada),
        }
        owner = world.key(ada, lab)
        parts = [
            {"type": "text", "text": QUESTION},
            {"type": "image_url", "image_url": {"url": PNG}},
        ]
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": REPLY}]
        visibility = "workspace" if is_shared else "private"
        made = owner(
            "POST", SESSIONS, {"title": TITLE, "messages": messages, "visibility": visibility}
        )
        assert made.status == 201, made.body
        path = f"{SESSIONS}{made.body['id']}/messages/"
        question, answer = owner("GET", path).body["data"]
        response = owner("POST", "v1/responses", {"input": QUESTION})
        body = {"messages": [{"role": "user", "content": QUESTION}], "store": True}
        self.ids = {
            "session": made.body["id"],
            "message": question["id"],
            "answer": answer["id"],
            "file": question["content"][1]["image_url"]["url"].rsplit("/", 1)[1],
            "response": response.body["id"],
            "completion": owner("POST", "v1/chat/completions", body).body["id"],
            "workspace": lab.public_id,
        }


@pytest.fixture(params=[False, True], ids=["private", "shared"])
def is_shared(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture
def site(world: World, settings: Settings, is_shared: bool) -> Site:
    settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "API_KEYS": [STATIC], "DEFAULT_MODEL": "m"}
    return Site(world, is_shared=is_shared)


def test_every_endpoint_by_every_caller(site: Site, settings: Settings, is_shared: bool) -> None:
    for row in ROWS:
        # One site serves all rows: to make it takes longer than they do.
        with transaction.atomic():
            _check(row, site, settings, is_shared=is_shared)
            transaction.set_rollback(True)


def _check(row: Row, site: Site, settings: Settings, *, is_shared: bool) -> None:
    method, path = row.request.split()
    named = [id_ for name, id_ in site.ids.items() if f"{{{name}}}" in path]
    path = path.format(**site.ids)
    # What the owner may do changes what there is, so that it is done last.
    for caller in CALLERS:
        settings.OLLAMA_OPENAI = {
            **settings.OLLAMA_OPENAI,
            "ALLOW_ANONYMOUS": caller == "anonymous",
        }
        answer = site.callers[caller](method, path, row.body)
        status = expected(row, caller, is_shared=is_shared)
        assert answer.status == status, (row.request, caller, answer.body)
        if status >= 400:
            assert set(answer.error) == {"message", "type", "param", "code"}
        if caller == "owner":
            break
        if status >= 400 or caller in STRANGERS:
            body = str(answer.body).replace(path, "")
            known = {*SECRETS, *site.ids.values()} - {*named}
            assert not [each for each in known if each in body], (row.request, caller)


def test_what_does_not_exist_and_what_is_another_s_look_alike(site: Site, is_shared: bool) -> None:
    stranger = site.callers["other user"]
    for row in ROWS:
        method, path = row.request.split()
        invented = {name: id_[:-4] + "0000" for name, id_ in site.ids.items()}
        if "{" not in path:
            continue
        theirs = stranger(method, path.format(**site.ids), row.body)
        nobody_s = stranger(method, path.format(**invented), row.body)
        assert theirs.status == nobody_s.status == 404
        for name, id_ in site.ids.items():
            theirs.error["message"] = theirs.error["message"].replace(id_, invented[name])
        assert theirs.body == nobody_s.body


def test_nothing_of_another_is_in_a_list_or_found(site: Site) -> None:
    nothing: dict[str, Any] = {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    of_lab = f"workspace={site.ids['workspace']}"
    for caller in sorted(STRANGERS):
        call = site.callers[caller]
        for query in (
            "archived=all",
            "q=Zanzibar",
            "q=yttrium",
            of_lab,
            f"{of_lab}&q=quagga",
            "archived=all&pinned=false&limit=100",
        ):
            assert call("GET", f"{SESSIONS}?{query}").body == nothing, (caller, query)
        after = call("GET", f"{SESSIONS}?after={site.ids['session']}")
        assert (after.status, after.error["param"]) == (400, "after")


def test_a_member_finds_what_is_shared_only(site: Site, is_shared: bool) -> None:
    member, owner = site.callers["member of the workspace"], site.callers["owner"]
    of_lab = f"{SESSIONS}?workspace={site.ids['workspace']}"
    for query in (of_lab, f"{of_lab}&q=quagga"):
        assert len(member("GET", query).body["data"]) == is_shared
    # Of one's own sessions, wherever they are, but not by another workspace's name.
    assert len(owner("GET", f"{SESSIONS}?q=quagga").body["data"]) == 1
    assert not member("GET", f"{SESSIONS}?q=quagga").body["data"]


def test_the_parts_of_a_session_are_not_reached_through_another(site: Site) -> None:
    """Ids of another's messages within one's own session."""
    for caller in (*STRANGERS, "member of the workspace"):
        call = site.callers[caller]
        own = call("POST", SESSIONS, {}).body["id"]
        path = f"{SESSIONS}{own}/"
        message = site.ids["message"]
        requests: list[tuple[str, str, Any]] = [
            ("PATCH", "", {"current_message_id": message}),
            ("POST", "messages/", {"content": "x", "parent_id": message}),
            ("GET", f"messages/?all=true&after={message}", None),
        ]
        for method, tail, body in requests:
            assert call(method, path + tail, body).status == 400
        for method, tail, body in (
            ("GET", "", None),
            ("PATCH", "", {"content": "x"}),
            ("DELETE", "", None),
            ("POST", "regenerate/", {}),
        ):
            assert call(method, f"{path}messages/{message}/{tail}", body).status == 404
    assert Conversation.objects.get(title=TITLE).message_count == 2


def test_the_table_has_every_endpoint() -> None:
    rows = sorted((row.request.split()[0], _shape(row.request.split()[1])) for row in ROWS)
    declared = sorted(
        (method, _shape(pattern.route))
        for pattern in urlpatterns
        for method in pattern.endpoint.operations
    )
    assert rows == declared


def _shape(path: str) -> tuple[str, ...]:
    return tuple("*" if part[:1] in ("{", "<") else part for part in path.strip("/").split("/"))


def test_a_logged_in_user_needs_the_csrf_token_for_every_change(site: Site) -> None:
    caller = site.callers["owner"]
    caller.client.handler.enforce_csrf_checks = True
    for row in ROWS:
        method, path = row.request.split()
        if method == "GET":
            continue
        answer = caller(method, path.format(**site.ids), row.body)
        assert (answer.status, answer.error["code"]) == (403, "csrf_failed"), row.request


@pytest.mark.parametrize("how", ["removed", "workspace closed", "deactivated", "key revoked"])
def test_who_is_no_longer_a_member_reads_nothing(
    world: World, site: Site, is_shared: bool, how: str
) -> None:
    """Nor from the next request on a stream that was read before."""
    member = site.callers["member of the workspace"]
    reads = [
        row.request.split()[1].format(**site.ids)
        for row in ROWS
        if row.request.startswith("GET") and row.shared == 200 and "{" in row.request
    ]
    assert {member("GET", path).status for path in reads} == {200 if is_shared else 404}
    lab = Workspace.objects.get(name="Lab")
    bob = lab.memberships.get(user__username="bob").user
    if how == "removed":
        lab.memberships.filter(user=bob).delete()
    elif how == "workspace closed":
        lab.is_active = False
        lab.save()
    elif how == "deactivated":
        bob.is_active = False
        bob.save()
    else:
        member.row.revoked_at = now()  # type: ignore[attr-defined]  # set by World.key
        member.row.save()  # type: ignore[attr-defined]  # as above
    for caller in [member] if how == "key revoked" else [member, world.session(bob)]:
        assert {caller("GET", path).status for path in reads} <= {401, 404}
        found = caller("GET", f"{SESSIONS}?workspace={site.ids['workspace']}")
        assert found.status == 401 or found.body["data"] == []


def naming(of: dict[str, str], own: str) -> list[tuple[str, dict[str, Any]]]:
    """Return requests by the owner of the session ``own`` whose bodies name the ids ``of``."""
    reference = {"type": "item_reference", "id": of["message"]}
    url = f"http://testserver/ai/api/chat/files/{of['file']}"
    picture = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    part = {"type": "image_url", "image_url": {"url": url}}
    message = {"role": "user", "content": [part]}
    fields: list[dict[str, Any]] = [
        {"previous_response_id": of["response"], "input": "x"},
        {"input": [reference, ITEM]},
        {"input": [picture]},
        {"conversation": of["session"], "input": "x"},
    ]
    requests = [
        (f"v1/responses{tail}", {"model": "m", **each})
        for each in fields
        for tail in ("", "/input_tokens", "/compact")
    ]
    return [
        *requests,
        (f"v1/conversations/{own}/items", {"items": [reference]}),
        ("v1/conversations", {"items": [picture]}),
        ("v1/chat/completions", {"messages": [message], "store": True}),
        (f"{SESSIONS}{own}/messages/", message),
        (f"{SESSIONS}{own}/messages/", {**message, "reply": False}),
        (SESSIONS, {"messages": [message]}),
        (f"{SESSIONS}import/", {**IMPORT, "messages": [{"id": "a", **message}]}),
    ]


def test_the_body_of_a_request_reaches_nothing_of_another(site: Site, is_shared: bool) -> None:
    """Another's ids in fields get the error of ids that do not exist, and the engine nothing."""
    ids = site.ids
    invented = {name: id_[:-4] + "0000" for name, id_ in ids.items()}
    for caller in (*sorted(STRANGERS), "member of the workspace"):
        call = site.callers[caller]
        own = call("POST", SESSIONS, {}).body["id"]
        for (path, theirs), (_, nobody_s) in zip(
            naming(ids, own), naming(invented, own), strict=True
        ):
            answers = [call("POST", path, body) for body in (theirs, nobody_s)]
            if is_shared and caller == "member of the workspace" and "conversation" in theirs:
                # A member reads it, but adds nothing.
                assert answers[0].status == 403, (path, answers[0].body)
                continue
            assert {answer.status for answer in answers} <= {400, 404}, (path, theirs, answers)
            shown = [str(answer.body) for answer in answers]
            for name, id_ in ids.items():
                shown[0] = shown[0].replace(id_, invented[name])
            assert shown[0] == shown[1], (path, theirs)
