"""Who gets in: static keys, session users with their CSRF check, and a site's own authenticators.

Every request is made through Django's test client and through its asynchronous one.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core import exceptions as django_exceptions
from django.http import Http404, HttpRequest
from django.middleware.csrf import get_token
from django.test import AsyncClient, Client, RequestFactory

from django_ollama_openai import _conf, auth
from django_ollama_openai.auth import BaseAuthenticator, Caller, bearer_token
from django_ollama_openai.exceptions import AuthenticationFailed, UpstreamUnavailable
from django_ollama_openai.signals import completion_started
from tests.fast_lane import CLIENTS, IDS

if TYPE_CHECKING:
    from pytest_django import Settings

KEY = "sk-right-key"
OTHER = "sk-other-key"
CHAT = "/ai/v1/chat/completions"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
DUMMY = {"default": {"BACKEND": "django_ollama_openai.backends.DummyBackend"}}
KEYS = [KEY, {"KEY": OTHER, "NAME": "other"}]
DEFAULT = ["StaticKeyAuthenticator", "SessionAuthenticator"]
HERE = __name__
STATIC, SESSION = (f"django_ollama_openai.auth.{name}" for name in DEFAULT)


class Browser:
    """A client of either kind; its cookies stay."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    def send(
        self,
        method: str = "POST",
        path: str = CHAT,
        body: str = BODY,
        content_type: str = "application/json",
        **headers: str,
    ) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        arguments = (method, path, body, content_type)
        if isinstance(self.client, Client):
            return self.client.generic(*arguments, headers=named)

        async def generic() -> Any:
            pending: Any = self.client.generic(*arguments, headers=named)
            return await pending

        return async_to_sync(generic)()

    def log_in(self, user: User, backend: str | None = None) -> None:
        self.client.force_login(user, backend=backend)

    def get_csrf_token(self) -> str:
        """As a page of the site gives it to its scripts, with the cookie beside it."""
        request = HttpRequest()
        token = get_token(request)
        self.client.cookies["csrftoken"] = request.META["CSRF_COOKIE"]
        return token


@pytest.fixture(params=CLIENTS, ids=IDS)
def browser(request: pytest.FixtureRequest) -> Browser:
    return Browser(request.param(enforce_csrf_checks=True, raise_request_exception=False))


@pytest.fixture(autouse=True)
def site(settings: Settings) -> Callable[..., None]:
    """Sets ``OLLAMA_OPENAI``, in front of a backend with canned replies."""

    def configure(**options: Any) -> None:
        settings.OLLAMA_OPENAI = {"BACKENDS": DUMMY, "API_KEYS": KEYS, **options}

    configure()
    return configure


@pytest.fixture
def callers() -> Any:
    """The callers that completions were started for."""
    seen: list[Caller] = []

    def started(caller: Caller, **facts: Any) -> None:
        seen.append(caller)

    completion_started.connect(started)
    yield seen
    completion_started.disconnect(started)


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_user("ada")


def refusal(response: Any) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["param"] is None
    return response.status_code, error["code"], error["message"]


# Static keys


@pytest.mark.parametrize(
    ("credentials", "name"),
    [
        (f"Bearer {KEY}", "static-1"),
        (f"bearer {KEY}", "static-1"),
        (f"BEARER   {KEY}  ", "static-1"),
        (f"Bearer {OTHER}", "other"),
    ],
)
def test_a_right_key_names_its_caller(
    browser: Browser, callers: list[Caller], credentials: str, name: str
) -> None:
    assert browser.send(Authorization=credentials).status_code == 200
    (caller,) = callers
    assert caller.key_name == name
    assert caller == Caller(key_id=caller.key_id, key_name=name)
    assert caller.key_id == name if name == "other" else str(caller.key_id).startswith("static-")


@pytest.mark.parametrize(
    "token",
    [
        "wrong",
        KEY[:-1],
        KEY + "x",
        KEY.upper(),
        f"{KEY} {KEY}",
        f"{KEY},{OTHER}",
        "schl\xfcssel",
        "\x00",
        "*",
        "x" * 100_000,
    ],
)
def test_a_wrong_key_is_refused(browser: Browser, token: str) -> None:
    response = browser.send(Authorization=f"Bearer {token}")
    assert refusal(response) == (401, "invalid_api_key", "Incorrect API key provided.")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "credentials",
    ["", "Bearer", "Bearer ", "Bearer    ", KEY, f"Basic {KEY}", f"Token {KEY}", f"Bearer:{KEY}"],
)
def test_what_is_no_bearer_token_is_no_key(browser: Browser, credentials: str) -> None:
    status, code, message = refusal(browser.send(Authorization=credentials))
    assert (status, code) == (401, "invalid_api_key")
    assert "You didn't provide an API key" in message


@pytest.mark.parametrize("token", ["\ud800", "\udcff", "\u20ac", "\U0001f511"])
def test_a_key_may_be_any_text(site: Callable[..., None], token: str) -> None:
    request = RequestFactory().get("/", headers={"Authorization": f"Bearer {token}"})
    authenticator = auth.StaticKeyAuthenticator()
    assert authenticator.authenticate(request) is None
    site(API_KEYS=[KEY, token])
    # What cannot be a key is refused at start-up.
    if not _conf.problems():
        caller = authenticator.authenticate(request)
        assert caller is not None
        assert caller.key_name == "static-2"


def test_what_a_key_without_a_name_owns_stays_its_own(site: Callable[..., None]) -> None:
    request = RequestFactory().get("/", headers={"Authorization": f"Bearer {KEY}"})
    owners = []
    for keys in ([KEY], ["new", KEY], [{"KEY": KEY}]):
        site(API_KEYS=keys)
        caller = auth.StaticKeyAuthenticator().authenticate(request)
        assert caller is not None
        owners.append(caller.owner)
    assert len(set(owners)) == 1
    assert KEY not in str(owners)


def test_all_keys_are_compared_whichever_is_right(
    browser: Browser, site: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, compared = hmac.compare_digest, []

    def recording(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", recording)
    site(API_KEYS=["first-key", "second", "third-key-of-all"])
    for token in ("first-key", "third-key-of-all", "none of them"):
        compared.clear()
        browser.send("GET", "/ai/v1/models", Authorization=f"Bearer {token}")
        # Of equal length always: neither the count nor the time tells anything.
        assert compared == [(32, 32)] * 3


def test_without_keys_every_token_is_wrong(browser: Browser, site: Callable[..., None]) -> None:
    site(API_KEYS=[])
    for token in ("", "None", "[]", "wrong"):
        assert refusal(browser.send(Authorization=f"Bearer {token}"))[0] == 401


def test_an_empty_key_in_the_settings_is_refused(
    browser: Browser, site: Callable[..., None]
) -> None:
    site(API_KEYS=[KEY, ""])
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {KEY}"}):
        assert browser.send(**headers).status_code == 500


def test_a_key_needs_no_csrf_token_and_no_content_type(browser: Browser) -> None:
    assert browser.send(content_type="text/plain", Authorization=f"Bearer {KEY}").status_code == 200


def test_bearer_token() -> None:
    def token(credentials: str) -> str | None:
        request = HttpRequest()
        request.META["HTTP_AUTHORIZATION"] = credentials
        return bearer_token(request)

    assert bearer_token(HttpRequest()) is None
    given = {
        "Bearer a": "a",
        "bearer  a b ": "a b",
        "Bearer": None,
        "Bearer ": None,
        "Basic a": None,
    }
    assert {credentials: token(credentials) for credentials in given} == given


# The session's user


def test_a_session_user_with_a_csrf_token(
    browser: Browser, user: User, callers: list[Caller]
) -> None:
    browser.log_in(user)
    response = browser.send(X_CSRFToken=browser.get_csrf_token())
    assert response.status_code == 200
    assert callers == [Caller(user=user)]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "CSRF token"),
        ({"X_CSRFToken": "x" * 32}, "CSRF token"),
        ({"X_CSRFToken": "short"}, "CSRF token"),
        ({"Origin": "https://evil.example"}, "Origin checking failed"),
        ({"Origin": "null"}, "Origin checking failed"),
    ],
)
def test_a_session_user_without_a_right_csrf_token(
    browser: Browser, user: User, callers: list[Caller], headers: dict[str, str], reason: str
) -> None:
    browser.log_in(user)
    token = browser.get_csrf_token()
    if "Origin" in headers:
        headers = {**headers, "X_CSRFToken": token}
    status, code, message = refusal(browser.send(**headers))
    assert (status, code) == (403, "csrf_failed")
    assert reason in message
    assert callers == []


def test_a_session_user_without_a_csrf_cookie(browser: Browser, user: User) -> None:
    browser.log_in(user)
    status, code, message = refusal(browser.send(X_CSRFToken="x" * 32))
    assert (status, code) == (403, "csrf_failed")
    assert "CSRF cookie not set" in message


def test_an_origin_that_the_site_trusts(browser: Browser, user: User, settings: Settings) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example"]
    browser.log_in(user)
    token = browser.get_csrf_token()
    response = browser.send(X_CSRFToken=token, Origin="https://app.example")
    assert response.status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
def test_a_session_user_must_send_json(browser: Browser, user: User, content_type: str) -> None:
    browser.log_in(user)
    token = browser.get_csrf_token()
    response = browser.send(content_type=content_type, X_CSRFToken=token)
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json; charset=utf-8"])
def test_json_may_be_spelt_otherwise(browser: Browser, user: User, content_type: str) -> None:
    browser.log_in(user)
    token = browser.get_csrf_token()
    assert browser.send(content_type=content_type, X_CSRFToken=token).status_code == 200


def test_a_session_user_needs_no_csrf_token_to_look(browser: Browser, user: User) -> None:
    browser.log_in(user)
    assert browser.send("GET", "/ai/v1/models", "").status_code == 200


def test_a_wrong_key_does_not_pass_because_of_a_cookie(
    browser: Browser, user: User, callers: list[Caller]
) -> None:
    browser.log_in(user)
    token = browser.get_csrf_token()
    response = browser.send(Authorization="Bearer wrong", X_CSRFToken=token)
    assert refusal(response) == (401, "invalid_api_key", "Incorrect API key provided.")
    assert callers == []


def test_other_schemes_leave_the_session_alone(browser: Browser, user: User) -> None:
    # The password of a staging site, in front of Django.
    browser.log_in(user)
    token = browser.get_csrf_token()
    assert browser.send(Authorization="Basic dTpw", X_CSRFToken=token).status_code == 200


def test_an_inactive_user_is_anonymous(browser: Browser, user: User, settings: Settings) -> None:
    backend = "django.contrib.auth.backends.AllowAllUsersModelBackend"
    settings.AUTHENTICATION_BACKENDS = [backend]
    browser.log_in(user, backend)
    token = browser.get_csrf_token()
    assert browser.send(X_CSRFToken=token).status_code == 200
    User.objects.update(is_active=False)
    assert refusal(browser.send(X_CSRFToken=token))[0] == 401


@pytest.mark.parametrize("cookie", ["", "nonsense", "\x7f" * 40])
def test_a_session_that_does_not_exist_is_anonymous(
    browser: Browser, db: None, cookie: str
) -> None:
    browser.client.cookies["sessionid"] = cookie
    assert refusal(browser.send(X_CSRFToken=browser.get_csrf_token()))[0] == 401


def test_a_site_without_sessions_has_no_session_users(browser: Browser, settings: Settings) -> None:
    settings.MIDDLEWARE = []
    assert refusal(browser.send())[0] == 401
    assert browser.send(Authorization=f"Bearer {KEY}").status_code == 200


# Anybody


@pytest.mark.compat("errors.status.401")
def test_it_is_closed_by_default_and_says_how_to_open(
    browser: Browser, site: Callable[..., None]
) -> None:
    site(API_KEYS=[])
    for method, path in (("POST", CHAT), ("GET", "/ai/v1/models"), ("GET", "/ai/v1/models/m")):
        status, code, message = refusal(browser.send(method, path))
        assert (status, code) == (401, "invalid_api_key")
        assert "OLLAMA_OPENAI['API_KEYS']" in message
        assert "OLLAMA_OPENAI['ALLOW_ANONYMOUS'] = True" in message


@pytest.mark.parametrize("authentication", [[], [STATIC, SESSION]])
def test_anonymous_callers_may_be_allowed(
    browser: Browser, site: Callable[..., None], callers: list[Caller], authentication: list[str]
) -> None:
    site(ALLOW_ANONYMOUS=True, AUTHENTICATION=authentication)
    assert browser.send().status_code == 200
    # OpenAI's clients always send some key.
    assert browser.send(Authorization="Bearer whatever").status_code == 200
    assert callers == [Caller(), Caller()]


def test_known_callers_are_recognised_where_anonymous_ones_are_allowed(
    browser: Browser, site: Callable[..., None], callers: list[Caller]
) -> None:
    site(ALLOW_ANONYMOUS=True)
    assert browser.send(Authorization=f"Bearer {OTHER}").status_code == 200
    assert [caller.key_name for caller in callers] == ["other"]


# A site's own authenticators


class HeaderAuthenticator(BaseAuthenticator):
    """Synchronous; under ASGI it runs in a thread, where it may use the database."""

    asked: ClassVar[list[str]] = []

    def authenticate(self, request: HttpRequest) -> Caller | None:
        self.asked.append("header")
        name = request.headers.get("X-Name")
        if not name:
            return None
        if not (user := User.objects.filter(username=name).first()):
            raise AuthenticationFailed("Nobody is called that.")
        return Caller(user=user, scopes=frozenset(request.headers.get("X-Scopes", "chat").split()))


class BothWays(BaseAuthenticator):
    """Says which of the two methods was called."""

    def authenticate(self, request: HttpRequest) -> Caller | None:
        HeaderAuthenticator.asked.append("sync")
        return None

    async def aauthenticate(self, request: HttpRequest) -> Caller | None:
        HeaderAuthenticator.asked.append("async")
        return None


class Raises(BaseAuthenticator):
    def authenticate(self, request: HttpRequest) -> Caller | None:
        errors: dict[str, Exception] = {
            "gateway": UpstreamUnavailable("The directory is down.", retry_after=7),
            "denied": django_exceptions.PermissionDenied("Not on Sundays."),
            "denied silently": django_exceptions.PermissionDenied(),
            "not found": Http404("secret detail"),
            "crash": RuntimeError("secret detail"),
        }
        raise errors[request.headers["X-Error"]]


@pytest.fixture
def asked() -> list[str]:
    HeaderAuthenticator.asked.clear()
    return HeaderAuthenticator.asked


def test_authenticators_are_asked_in_order_until_one_answers(
    browser: Browser, site: Callable[..., None], user: User, asked: list[str]
) -> None:
    site(AUTHENTICATION=[f"{HERE}.BothWays", f"{HERE}.HeaderAuthenticator", f"{HERE}.Raises"])
    assert browser.send(X_Name="ada").status_code == 200
    way = "async" if isinstance(browser.client, AsyncClient) else "sync"
    assert asked == [way, "header"]


def test_the_first_authenticator_that_answers_counts(
    browser: Browser,
    site: Callable[..., None],
    user: User,
    asked: list[str],
    callers: list[Caller],
) -> None:
    site(AUTHENTICATION=[STATIC, f"{HERE}.HeaderAuthenticator"])
    assert browser.send(X_Name="ada", Authorization=f"Bearer {KEY}").status_code == 200
    assert asked == []
    assert [caller.key_name for caller in callers] == ["static-1"]


def test_raising_ends_the_asking(
    browser: Browser, site: Callable[..., None], db: None, asked: list[str]
) -> None:
    site(AUTHENTICATION=[f"{HERE}.HeaderAuthenticator", f"{HERE}.BothWays"], ALLOW_ANONYMOUS=True)
    response = browser.send(X_Name="nobody")
    assert refusal(response) == (401, "invalid_api_key", "Nobody is called that.")
    assert asked == ["header"]


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        ("gateway", 503, "upstream_unavailable", "The directory is down."),
        ("denied", 403, "permission_denied", "Not on Sundays."),
        ("denied silently", 403, "permission_denied", "Permission denied."),
        ("not found", 404, "not_found", "Not found."),
        ("crash", 500, None, "The server had an error while processing your request."),
    ],
)
def test_an_error_of_an_authenticator_is_in_openais_format(
    browser: Browser,
    site: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    error: str,
    status: int,
    code: str | None,
    message: str,
) -> None:
    site(AUTHENTICATION=[f"{HERE}.Raises"])
    response = browser.send(X_Error=error)
    assert refusal(response) == (status, code, message)
    assert response.headers.get("Retry-After") == ("7" if error == "gateway" else None)
    errors = [entry for entry in caplog.records if entry.name == "django_ollama_openai"]
    assert [entry.levelname for entry in errors] == (["ERROR"] if error == "crash" else [])


@pytest.mark.compat("errors.status.403")
def test_scopes_limit_what_a_caller_may_do(
    browser: Browser, site: Callable[..., None], user: User
) -> None:
    site(AUTHENTICATION=[f"{HERE}.HeaderAuthenticator"])

    def statuses(scopes: str) -> list[int]:
        headers = {"X_Name": "ada", "X_Scopes": scopes}
        answers = [browser.send("GET", "/ai/v1/models", **headers), browser.send(**headers)]
        return [answer.status_code for answer in answers]

    assert statuses("chat models") == [200, 200]
    assert statuses("models") == [200, 403]
    assert statuses("chat") == [403, 200]
    assert statuses(" ") == [403, 403]
    error = browser.send(X_Name="ada", X_Scopes="models").json()["error"]
    assert error["type"] == "permission_error"
    assert "'chat'" in error["message"]


def test_a_caller_without_scopes_may_do_everything() -> None:
    assert Caller().may("chat")
    assert Caller(scopes=frozenset({"chat"})).may("chat")
    assert not Caller(scopes=frozenset({"chat"})).may("models")
    assert not Caller(scopes=frozenset()).may("chat")


# Secrets


def test_keys_are_in_no_log_and_no_answer(
    browser: Browser,
    site: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    given = f"{KEY[:-1]}-given"
    answers = [
        browser.send(Authorization=f"Bearer {token}", X_Error="crash") for token in (KEY, given)
    ]
    site(AUTHENTICATION=[f"{HERE}.Raises"])
    answers.append(browser.send(Authorization=f"Bearer {given}", X_Error="crash"))
    site(BACKENDS={"default": {"BACKEND": "no.Way"}})
    answers.append(browser.send(Authorization=f"Bearer {KEY}"))
    assert [answer.status_code for answer in answers] == [200, 401, 500, 500]
    told = caplog.text + "".join(str(answer.headers) + answer.text for answer in answers)
    assert "crashed" in told
    for secret in (KEY, OTHER, given):
        assert secret not in told


def test_a_key_that_is_no_unicode_is_in_no_log_either(
    browser: Browser, site: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    # What os.environ makes of bytes that are no UTF-8.
    site(API_KEYS=[f"{KEY}-\udcfc"])
    response = browser.send(Authorization="Bearer wrong")
    assert KEY not in response.text + caplog.text
