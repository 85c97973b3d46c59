"""``backends``: one instance per alias and process, as ``BACKENDS`` says."""

from __future__ import annotations

import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_ollama_openai.backends import (
    BackendHandler,
    BaseBackend,
    DummyBackend,
    InvalidBackendError,
    OllamaBackend,
    backends,
)
from django_ollama_openai.backends._slots import QueueTicket
from django_ollama_openai.exceptions import Overloaded

if TYPE_CHECKING:
    from pytest_django import Settings

DUMMY = "django_ollama_openai.backends.DummyBackend"
HERE = __name__
THREADS = 16


class SlowToMake(DummyBackend):
    """Counts how often it was made and closed."""

    made: ClassVar[list[str]] = []
    closed: ClassVar[list[str]] = []

    def __init__(self, *, style: str = "plain", **options: Any) -> None:
        super().__init__(**options)
        time.sleep(0.05)
        self.style = style
        self.made.append(self.alias)

    def close(self) -> None:
        self.closed.append(self.alias)


class Refuses(DummyBackend):
    def __init__(self, *, error: str, **options: Any) -> None:
        super().__init__(**options)
        raise {"value": ValueError, "type": TypeError, "improper": ImproperlyConfigured}[error](
            "Refused."
        )


class NoBackend:
    def __init__(self, **options: Any) -> None:
        pass


A_FUNCTION = len


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    SlowToMake.made.clear()
    SlowToMake.closed.clear()


def table(**entries: Any) -> dict[str, Any]:
    return {"BACKENDS": entries}


def test_threads_that_race_get_one_instance(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(
        a={"BACKEND": f"{HERE}.SlowToMake"}, b={"BACKEND": f"{HERE}.SlowToMake"}
    )
    barrier = threading.Barrier(THREADS)

    def get(number: int) -> BaseBackend:
        barrier.wait(timeout=60)
        return backends["ab"[number % 2]]

    with ThreadPoolExecutor(THREADS) as pool:
        got = list(pool.map(get, range(THREADS)))
    assert sorted(SlowToMake.made) == ["a", "b"]
    assert len({id(backend) for backend in got}) == 2
    assert got[0] is backends["a"]
    assert got[1] is backends["b"]


async def test_the_event_loop_gets_the_instance_of_the_threads(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(default={"BACKEND": DUMMY})
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: backends["default"]).result() is backends["default"]


def test_without_a_setting_the_default_is_ollama(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = {}
    assert list(backends) == ["default"]
    assert type(backends["default"]) is OllamaBackend


def test_a_subclass_by_its_path_gets_its_options(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(
        house={"BACKEND": f"{HERE}.SlowToMake", "OPTIONS": {"style": "baroque", "models": ["m"]}}
    )
    backend = backends["house"]
    assert isinstance(backend, SlowToMake)
    assert (backend.alias, backend.style) == ("house", "baroque")
    assert [card.id for card in backend.list_models()] == ["m"]


def test_a_backend_is_created_on_first_use(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(
        b={"BACKEND": f"{HERE}.SlowToMake"}, a={"BACKEND": f"{HERE}.SlowToMake"}
    )
    assert list(backends) == ["b", "a"]
    assert SlowToMake.made == []
    backends["a"]
    assert SlowToMake.made == ["a"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"BACKEND": "nodots"},
            r"\['BACKENDS'\]\['x'\]\['BACKEND'\]: could not import 'nodots'",
        ),
        (
            {"BACKEND": "no.such.module.Backend"},
            r"\['BACKEND'\]: could not import 'no.such.module.Backend': No module named 'no'",
        ),
        ({"BACKEND": f"{HERE}.Missing"}, r"could not import .*does not define a \"Missing\""),
        ({"BACKEND": f"{HERE}.NoBackend"}, r"NoBackend' is not a subclass of BaseBackend"),
        ({"BACKEND": f"{HERE}.A_FUNCTION"}, r"A_FUNCTION' is not a subclass of BaseBackend"),
        (
            {"BACKEND": DUMMY, "OPTIONS": {"tempo": 3}},
            r"\['BACKENDS'\]\['x'\]: .*does not take 'tempo'",
        ),
        ({"BACKEND": DUMMY, "HOST": "http://h"}, r"\['x'\].*does not take 'HOST'"),
        ({"BACKEND": DUMMY, "BASE_URL": "http://h"}, r"\['x'\].*'BASE_URL'"),
        ({"BACKEND": DUMMY, "OPTIONS": {"alias": "y"}}, r"does not take 'alias'"),
        ({"BACKEND": DUMMY, "OPTIONS": {"replies": []}}, r"replies must not be empty"),
        ({"BACKEND": f"{HERE}.Refuses", "OPTIONS": {"error": "value"}}, r"\['x'\].*Refused"),
        ({"BACKEND": f"{HERE}.Refuses", "OPTIONS": {"error": "type"}}, r"\['x'\].*Refused"),
        ({"BACKEND": f"{HERE}.Refuses", "OPTIONS": {"error": "improper"}}, r"\['x'\].*Refused"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(
    settings: Settings, entry: dict[str, Any], message: str
) -> None:
    settings.OLLAMA_OPENAI = table(x=entry)
    with pytest.raises(InvalidBackendError, match=message) as caught:
        backends["x"]
    assert isinstance(caught.value, ImproperlyConfigured)
    assert str(caught.value).startswith("OLLAMA_OPENAI['BACKENDS']['x']")


def test_each_backend_has_the_slots_of_its_own_limits(settings: Settings) -> None:
    entry = {"BACKEND": DUMMY}
    settings.OLLAMA_OPENAI = {**table(a={**entry, "MAX_CONCURRENCY": 1}, b=entry), "MAX_QUEUE": 0}
    a, b = backends["a"].slots, backends["b"].slots
    with a.acquire(QueueTicket()), b.acquire(QueueTicket()), b.acquire(QueueTicket()):
        assert (a.running, b.running) == (1, 2)
        with pytest.raises(Overloaded), a.acquire(QueueTicket()):
            pass
    assert (a.running, b.running) == (0, 0)
    assert backends["a"].slots is a


def test_a_backend_of_its_own_making_has_slots_without_a_limit() -> None:
    backend = DummyBackend()
    with backend.slots.acquire(QueueTicket()), backend.slots.acquire(QueueTicket()):
        assert (backend.slots.running, backend.slots.queued) == (2, 0)


def test_an_unknown_alias_is_named_with_those_that_exist(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(fast={"BACKEND": DUMMY})
    with pytest.raises(
        InvalidBackendError,
        match=r"^OLLAMA_OPENAI\['BACKENDS'\]\['fats'\] is missing; there are 'fast'\.$",
    ):
        backends["fats"]


def test_an_entry_that_fails_is_tried_again_and_spoils_no_other(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(
        bad={"BACKEND": f"{HERE}.Refuses", "OPTIONS": {"error": "value"}}, good={"BACKEND": DUMMY}
    )
    for _ in range(2):
        with pytest.raises(InvalidBackendError):
            backends["bad"]
        assert isinstance(backends["good"], DummyBackend)


def test_a_changed_setting_closes_what_was_made() -> None:
    entry = {"BACKEND": f"{HERE}.SlowToMake"}
    with override_settings(OLLAMA_OPENAI=table(a=entry, b=entry)):
        first = backends["a"]
        with override_settings(OLLAMA_OPENAI=table(a={"BACKEND": DUMMY})):
            assert SlowToMake.closed == ["a"]
            assert type(backends["a"]) is DummyBackend
        assert backends["a"] is not first
        assert SlowToMake.made == ["a", "a"]
    assert SlowToMake.closed == ["a", "a"]


def test_other_settings_leave_the_backends_alone(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(default={"BACKEND": DUMMY})
    before = backends["default"]
    settings.DEBUG = True
    assert backends["default"] is before


def test_a_handler_that_is_closed_makes_new_ones(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(a={"BACKEND": f"{HERE}.SlowToMake"})
    handler = BackendHandler()
    before = handler["a"]
    assert before is not backends["a"]
    handler.close()
    handler.close()
    assert SlowToMake.closed == ["a"]
    assert handler["a"] is not before


def test_the_representation_names_no_host_and_no_option(settings: Settings) -> None:
    settings.OLLAMA_OPENAI = table(
        a={"HOST": "http://user:secret@h", "OPTIONS": {"headers": {"X-Key": "secret"}}}
    )
    assert repr(backends["a"]) == "<OllamaBackend: a>"


def test_a_process_that_is_forked_off_begins_anew(settings: Settings) -> None:
    """Two processes that read from the same connection get each other's answers."""
    settings.OLLAMA_OPENAI = table(a={"BACKEND": DUMMY})
    first = backends["a"]
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads: theirs are what is being tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        with first.slots.acquire(QueueTicket()):
            child = os.fork()
    if child == 0:
        made = backends["a"]
        is_new = made is not first and (made.slots.running, made.slots.queued) == (0, 0)
        os.write(writing, b"another" if is_new else b"the same")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"another"
    assert backends["a"] is first
    os.close(reading)
    os.close(writing)
