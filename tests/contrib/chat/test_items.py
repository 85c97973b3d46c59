"""OpenAI's items become rows and JSON again."""

from __future__ import annotations

import base64
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from openai.types.conversations.conversation_item import ConversationItem
from openai.types.responses.response_input_item import ResponseInputItem
from openai.types.responses.response_item import ResponseItem
from pydantic import BaseModel

from django_ollama_openai.contrib.chat._store.files import Media, stored
from django_ollama_openai.contrib.chat._store.items import as_openai, inlined, new_rows
from django_ollama_openai.contrib.chat._store.messages import chat_message, group, message_rows
from django_ollama_openai.contrib.chat._store.text import storable
from django_ollama_openai.contrib.chat._store.tree import append
from django_ollama_openai.contrib.chat.models import Attachment, Conversation, Item
from django_ollama_openai.exceptions import InvalidRequest
from tests.contrib.chat.common import (
    AUDIO,
    PNG,
    WAV,
    files_in_storage,
    media_site,
    raw_rows,
    uri,
)

__all__ = ["media_site"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.any_database]


def sample(kind: Any) -> Any:
    """Return JSON of ``kind``, a type of openai-python, with all of its fields."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return sample(arguments[0])
    if origin in (Union, types.UnionType):
        return sample(next(each for each in arguments if each is not type(None)))
    if origin is Literal:
        return arguments[0]
    if origin is list:
        return [sample(arguments[0])]
    if origin is dict:
        return {"key": sample(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {
            field.alias or name: "https://example/"
            if name == "image_url"
            else sample(field.annotation)
            for name, field in kind.model_fields.items()
        }
    return {str: "some text", int: 3, float: 0.5, bool: True}.get(kind, "anything")


def members(union: Any) -> list[Any]:
    if get_origin(union) is Annotated:
        return members(get_args(union)[0])
    if get_origin(union) in (Union, types.UnionType):
        return [each for member in get_args(union) for each in members(member)]
    return [union]


TYPES = {
    f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}": kind
    for union in (ResponseInputItem, ConversationItem, ResponseItem)
    for kind in members(union)
}


def kept(items: list[dict[str, Any]], locate: Any = None) -> list[dict[str, Any]]:
    """Return ``items`` as they are after they have been in the database."""
    media = Media()
    rows = new_rows(items, media)
    conversation = Conversation(owner="user:1")
    with stored(media):
        conversation.save()
        append(conversation, rows, None)
    found = list(Item.objects.filter(conversation=conversation).order_by("sequence"))
    attachments = {each.id.hex: each for each in Attachment.objects.all()}
    return [as_openai(row, locate or inlined(attachments)) for row in found]


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_type_of_item_is_kept(name: str) -> None:
    item = {"type": "message", **sample(TYPES[name])}
    if item["type"] == "image_generation_call":
        item["result"] = base64.b64encode(PNG).decode()
    for each in item.get("content") or () if isinstance(item.get("content"), list) else ():
        # Of the status and the role "unknown" the types know nothing else.
        each.pop("audio", None)
    (made,) = kept([item])
    expected = {**item, "id": made["id"]}
    if item["type"] == "message" and isinstance(item["content"], str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        (part,) = made["content"]
        assert (part["type"], part["text"]) == (kind, item["content"])
        expected["content"] = made["content"]
    expected.setdefault("status", made.get("status"))
    if expected["status"] is None and "status" not in made:
        expected.pop("status")
    assert made == expected
    assert made["id"] != item.get("id")


@pytest.mark.parametrize(
    ("item", "prefix"),
    [
        ({"role": "user", "content": "Hi"}, "msg_"),
        ({"type": "reasoning", "summary": []}, "rs_"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, "fc_"),
        ({"type": "function_call_output", "call_id": "c", "output": "1"}, "fco_"),
        ({"type": "invented_tomorrow", "status": "pondering", "x": {"y": [1, None]}}, "item_"),
    ],
)
def test_items_get_ids_of_their_types(item: dict[str, Any], prefix: str) -> None:
    (made,) = kept([item])
    assert made["id"].startswith(prefix)
    if prefix == "item_":
        assert made == {**item, "id": made["id"]}
    else:
        assert made["status"] == "completed"


IMAGE = uri(PNG)
FILE = base64.b64encode(b"%PDF-1.7 a document").decode()


@pytest.mark.parametrize(
    ("item", "file"),
    [
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]},
            "image/png",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": IMAGE, "detail": "low"}],
            },
            "image/png",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": AUDIO}]},
            "audio/wav",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_file", "filename": "a.pdf", "file_data": FILE}],
            },
            "application/octet-stream",
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_file", "file_data": f"data:application/pdf;base64,{FILE}"}
                ],
            },
            "application/octet-stream",
        ),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_image", "image_url": IMAGE}],
            },
            "image/png",
        ),
        (
            {
                "type": "computer_call_output",
                "call_id": "c",
                "output": {"type": "computer_screenshot", "image_url": IMAGE},
            },
            "image/png",
        ),
        (
            {
                "type": "code_interpreter_call",
                "code": "plot()",
                "outputs": [{"type": "image", "url": IMAGE}],
            },
            "image/png",
        ),
        (
            {"type": "image_generation_call", "result": base64.b64encode(PNG).decode()},
            "image/png",
        ),
    ],
)
def test_files_of_items_are_in_the_storage(item: dict[str, Any], file: str) -> None:
    (made,) = kept([item])
    for name in ("content", "output", "outputs", "result"):
        assert made.get(name) == item.get(name)
    rows = raw_rows()
    for data in (PNG, WAV, b"%PDF-1.7 a document"):
        assert base64.b64encode(data).decode()[4:20] not in rows
    assert Attachment.objects.get().content_type == file
    assert len(files_in_storage()) == 1
    (shown,) = [as_openai(row, lambda digits: f"/files/{digits}") for row in Item.objects.all()]
    assert f"/files/{Attachment.objects.get().id.hex}" in str(shown)


def test_clients_cannot_refer_to_files_by_their_keys() -> None:
    (mine,) = kept([{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}])
    assert mine["content"][0]["image_url"] == IMAGE
    digits = Attachment.objects.get().id.hex
    parts: list[Any] = [
        {"type": kind, "file": digits, "format": "wav"}
        for kind in ("input_image", "input_audio", "input_file", "computer_screenshot", "image")
    ]
    items: list[dict[str, Any]] = [
        {"role": "user", "content": parts},
        {"type": "function_call_output", "call_id": "c", "output": parts},
        {"type": "computer_call_output", "call_id": "c", "output": parts[3]},
        {"type": "image_generation_call", "result": parts[2]},
    ]
    assert digits not in str(kept(items))


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (
            {"content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]},
            "items[0].content[0].image_url",
        ),
        (
            {"content": [{"type": "input_file", "file_data": "no base64!"}]},
            "items[0].content[0].file_data",
        ),
        (
            {"content": [{"type": "input_image", "image_url": "javascript:alert(1)"}]},
            "items[0].content[0].image_url",
        ),
        ({"type": "image_generation_call", "result": "?"}, "items[0].result"),
        ({"type": "x" * 41}, "items[0].type"),
    ],
)
def test_what_is_no_image_is_named(item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        new_rows([item], Media())
    assert caught.value.param == field


def reasoning(text: str = "") -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


def said(text: str, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": text}


def called(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}


def output(id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": "1"}


USER = said("Hi", "user")


@pytest.mark.parametrize(
    ("items", "sizes"),
    [
        (
            [USER, reasoning(), said("a"), called("1"), called("2"), output("1"), output("2")],
            "1411",
        ),
        ([USER, said("a"), USER, said("b")], "1111"),
        ([USER, called("1"), called("2"), output("1"), output("2"), said("b")], "12111"),
        ([USER, reasoning(), called("1"), output("1"), reasoning(), said("b")], "1212"),
        # Without an output between them.
        ([said("a"), called("1"), reasoning(), said("b")], "22"),
        ([called("1"), said("b")], "11"),
        ([reasoning(), reasoning(), said("a")], "3"),
        ([reasoning()], "1"),
        ([said("a"), {"type": "web_search_call", "status": "completed"}, said("b")], "111"),
    ],
)
def test_items_join_into_messages(items: list[dict[str, Any]], sizes: str) -> None:
    rows = new_rows(items, Media())
    groups = group(rows)
    assert [len(each) for each in groups] == [int(size) for size in sizes]
    for each in groups:
        (head,) = [row for row in each if row.head_id is None]
        messages = [row for row in each if row.type == "message"]
        assert head is (messages or each)[0]
        assert {row.head for row in each if row is not head} <= {head}
        chat_message(each, lambda digits: digits)


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_that_no_database_stores_is_replaced(text: str) -> None:
    shown = "a\ufffdb"
    items: list[dict[str, Any]] = [
        {"role": "user", "content": text},
        {"role": "user", "content": [{"type": "input_text", "text": text}]},
        {"type": "function_call", "call_id": text, "name": text, "arguments": text},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]},
        {"type": text, text: [{text: text}, 1, None]},
    ]
    made = kept(items)
    assert text not in str(made) and made[4]["type"] == shown
    assert made[0]["content"][0]["text"] == made[2]["arguments"] == shown
    assert made[4][shown] == [{shown: shown}, 1, None]
    rows = message_rows({"role": "assistant", "content": text, "reasoning_content": text}, Media())
    append(Conversation.objects.create(), rows, None)
    assert {str(row.data.get("content")[0]["text"]) for row in rows} == {shown}
    big = {"a": ["x" * 10]}
    assert storable(big) == big
