from __future__ import annotations

import copy
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model

from django_ollama_openai._translation.model_cards import (
    CONTEXT_LENGTH,
    METADATA,
    ModelCard,
    Tag,
    model_card,
    needs_details,
    tags,
    with_details,
)
from django_ollama_openai.exceptions import UpstreamError
from tests.recordings import load

TAGS: Any = load("tags").json()["models"]
SHOWN = {"smollm2:135m": load("show").json(), "all-minilm:22m": load("show_embed").json()}


def tag(name: str) -> Any:
    (found,) = (tag for tag in TAGS if tag["name"] == name)
    return copy.deepcopy(found)


def listed(answer: Any) -> list[Tag]:
    return tags(json.dumps(answer).encode())


def completed(tag: Any, show: Any) -> Any:
    return with_details(tag, json.dumps(show).encode())


def older(tag: Any) -> Any:
    """What a server before 0.33 says of the same model."""
    tag = copy.deepcopy(tag)
    del tag["capabilities"], tag["details"]["context_length"], tag["details"]["embedding_length"]
    return tag


# Recorded models


def test_a_recorded_model() -> None:
    assert model_card(tag("all-minilm:22m")) == ModelCard(
        id="all-minilm:22m",
        created=int(datetime(2026, 11, 22, 10, 3, 41, tzinfo=UTC).timestamp()),
        owned_by="library",
        metadata={
            "family": "bert",
            "parameter_size": "22.57M",
            "quantization_level": "F16",
            "format": "gguf",
            "size": 45949364,
            "digest": "a5ed3015b5058f40b8fa8eb6cb44c05a70aa3ce9fef72fc2044b4e5cf69a7db8",
            "context_length": 512,
            "embedding_length": 384,
            "capabilities": ["embedding"],
            "modified_at": "2026-11-22T10:03:41.458485667Z",
        },
    )


def test_every_recorded_model_has_all_metadata_from_one_request() -> None:
    for each, recorded in zip(tags(load("tags").body), TAGS, strict=True):
        assert not needs_details(each)
        card = model_card(each)
        assert card.id == recorded["name"]
        assert tuple(card.metadata) == METADATA
        assert None not in card.metadata.values()


@pytest.mark.parametrize("name", SHOWN)
def test_an_older_servers_model_is_completed_by_its_details(name: str) -> None:
    old = older(tag(name))
    assert needs_details(old)
    assert model_card(old).metadata["context_length"] is None
    new = completed(old, SHOWN[name])
    assert model_card(new) == model_card(tag(name))
    assert not needs_details(new)
    assert old == older(tag(name))


def test_lengths_are_those_of_the_models_own_architecture() -> None:
    info = {
        "general.architecture": "gemma3",
        "gemma3.context_length": 32768,
        "gemma3.embedding_length": 640,
        "clip.context_length": 77,
        "context_length": 1,
    }
    details = completed({"model": "m"}, {"model_info": info})["details"]
    assert details == {"context_length": 32768, "embedding_length": 640}


@pytest.mark.parametrize("missing", ["capabilities", "context_length"])
def test_each_of_what_older_servers_leave_out_is_asked_for(missing: str) -> None:
    known = tag("smollm2:135m")
    known.pop(missing, None)
    known["details"].pop(missing, None)
    assert needs_details(known)


@pytest.mark.parametrize("details", [{}, {"details": None}, {"details": {}}])
def test_a_model_without_details_lacks_them(details: Any) -> None:
    (each,) = listed({"models": [{"model": "m", "capabilities": [], **details}]})
    assert needs_details(each)


def converted(tag: Any) -> Any:
    """What a server says of the same model, if it has converted the weights itself."""
    tag = copy.deepcopy(tag)
    del tag["details"]["context_length"], tag["details"]["embedding_length"]
    return {**tag, "capabilities": ["completion"]}


def test_the_details_count_more_than_the_list() -> None:
    wrong = converted(tag("all-minilm:22m"))
    assert needs_details(wrong)
    assert model_card(completed(wrong, SHOWN["all-minilm:22m"])) == model_card(
        tag("all-minilm:22m")
    )


@pytest.mark.parametrize("show", [{}, {"capabilities": None}, {"model_info": {}}])
def test_details_that_tell_nothing_take_nothing_away(show: Any) -> None:
    known = tag("smollm2:135m")
    assert completed(known, show) == known


@pytest.mark.parametrize(
    "show",
    [{}, {"model_info": None}, {"model_info": {}}, {"model_info": {"llama.context_length": 5}}],
)
def test_details_that_tell_nothing_leave_gaps(show: dict[str, Any]) -> None:
    card = model_card(completed(older(tag("smollm2:135m")), show))
    assert card.metadata["context_length"] is card.metadata["embedding_length"] is None
    assert card.metadata["capabilities"] is None
    assert card.metadata["family"] == "llama"


@pytest.mark.parametrize("show", [None, [], "text", 5])
def test_invalid_details_are_ignored(show: Any) -> None:
    assert completed(tag("smollm2:135m"), show) == tag("smollm2:135m")


# The list


@pytest.mark.parametrize("answer", [{"models": None}, {"models": []}])
def test_a_server_without_models(answer: dict[str, Any]) -> None:
    assert listed(answer) == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "models",
        5,
        {"models": 5},
        {"models": {}},
        {"models": "text"},
        {"models": [None]},
        {"models": ["smollm2"]},
        {},
        {"error": "x"},
        {"models": [{}]},
        {"models": [{"model": None}]},
        {"models": [{"model": 5, "name": "m"}]},
        {"models": [{"model": "m"}, {"digest": "abc"}]},
    ],
    ids=repr,
)
def test_an_invalid_list_is_an_upstream_error(answer: Any) -> None:
    with pytest.raises(UpstreamError):
        listed(answer)


@pytest.mark.parametrize(
    ("names", "id"),
    [
        ({"model": "a", "name": "b"}, "a"),
        ({"name": "b"}, "b"),
        ({"model": "", "name": "b"}, "b"),
    ],
)
def test_the_name_of_a_model(names: dict[str, Any], id: str) -> None:
    (each,) = listed({"models": [names]})
    assert model_card(each).id == id


@pytest.mark.compat("models.response.data[].owned_by")
@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("llama3.2", "library"),
        ("llama3.2:latest", "library"),
        ("mario/mega:7b", "mario"),
        ("hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M", "hf.co/bartowski"),
        ("/odd", "library"),
    ],
)
def test_the_owner_is_the_namespace(name: str, owner: str) -> None:
    assert model_card({"model": name}).owned_by == owner


@pytest.mark.compat("models.response.data[].created")
@pytest.mark.parametrize(
    ("timestamp", "created"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T00:01:00.999999999Z", 60),
        ("1970-01-01T02:01:00.5+02:00", 60),
        ("", 0),
        ("yesterday", 0),
        ("2026-13-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        (1700000000, 0),
        (None, 0),
        ([], 0),
    ],
)
def test_when_a_model_was_made(timestamp: Any, created: int) -> None:
    card = model_card({"model": "m", "modified_at": timestamp})
    assert card.created == created
    assert card.metadata["modified_at"] == timestamp


# As OpenAI's


@pytest.mark.compat("models.response.data[].metadata", "models.response.data[].context_length")
@pytest.mark.parametrize("card", [model_card(TAGS[0]), ModelCard("m"), model_card({"name": "m"})])
def test_openais_fields_and_all_metadata_always(card: ModelCard) -> None:
    model = card.as_openai(name="public/name:x", backend="cluster")
    lengths = CONTEXT_LENGTH if card.metadata.get("context_length") else ()
    assert list(model) == ["id", "object", "created", "owned_by", *lengths, "metadata"]
    assert {model[name] for name in lengths} <= {8192}
    assert tuple(model["metadata"]) == (*METADATA, "backend")
    assert model["metadata"]["backend"] == "cluster"
    parsed = Model.model_validate(model, strict=True)
    assert (parsed.id, parsed.object, parsed.owned_by) == ("public/name:x", "model", card.owned_by)
    assert set(parsed.model_extra or ()) == {"metadata", *lengths}
    assert json.loads(json.dumps(model)) == model


def test_metadata_has_the_documented_keys_only() -> None:
    card = ModelCard("m", metadata={"size": 5, "path": "secret", "backend": "forged"})
    metadata = card.as_openai(name="m", backend="default")["metadata"]
    assert metadata == {**dict.fromkeys(METADATA), "size": 5, "backend": "default"}


# Nonsense

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["models", *TAGS[0], "model_info", "general.architecture"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(any_json | st.builds(lambda models: {"models": models}, st.lists(any_json)))
def test_any_list_at_all_is_read_or_an_upstream_error(answer: Any) -> None:
    with suppress(UpstreamError):
        assert all(isinstance(each, dict) for each in listed(answer))


@given(any_json | st.datetimes().map(str))
def test_any_time_at_all_is_read_or_zero(timestamp: Any) -> None:
    assert type(model_card({"model": "m", "modified_at": timestamp}).created) is int


@given(any_json, any_json)
def test_any_details_at_all_are_read_or_an_upstream_error(details: Any, info: Any) -> None:
    with suppress(UpstreamError):
        (each,) = listed({"models": [{"model": "m", "details": details}]})
        needs_details(each)
        model_card(completed(each, {"model_info": info}))
        model_card(each)
