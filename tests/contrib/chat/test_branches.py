"""The tree of a session: paths, siblings, deletions, against a model in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_ollama_openai._ids import uuid7
from django_ollama_openai.contrib.chat._store.messages import answer_rows, head_of
from django_ollama_openai.contrib.chat._store.tree import (
    append,
    delete_message,
    path_to,
    set_leaf,
    siblings,
)
from django_ollama_openai.contrib.chat.models import Branch, Conversation, Item
from tests.contrib.chat.conftest import Chat


@dataclass
class Node:
    """A message of the model: its text, its parent, and the number of its rows."""

    text: str
    parent: Node | None
    rows: int
    children: list[Node] = field(default_factory=list)


class Model:
    """What the tree has to be: nodes that point at each other, and nothing else."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.leaf: Node | None = None

    def append(self, text: str, parent: Node | None, rows: int) -> Node:
        node = Node(text, parent, rows)
        self.nodes.append(node)
        self.leaf = node
        return node

    def delete(self, node: Node) -> None:
        for other in self.nodes:
            if other.parent is node:
                other.parent = node.parent
        self.nodes.remove(node)
        if self.leaf is node:
            self.leaf = node.parent

    def path(self, node: Node | None) -> list[Node]:
        found: list[Node] = []
        while node is not None:
            found.insert(0, node)
            node = node.parent
        return found

    def siblings(self, node: Node) -> list[str]:
        return [other.text for other in self.nodes if other.parent is node.parent]


class Tree:
    """The same in rows."""

    def __init__(self) -> None:
        self.conversation = Conversation.objects.create(owner="user:1")

    def row(self, node: Node | None) -> Item | None:
        return None if node is None else Item.objects.get(text=node.text, head=None)

    def append(self, text: str, parent: Node | None, rows: int) -> None:
        calls = [("function_call", {"call_id": "c", "name": "f", "arguments": "{}"})]
        made = answer_rows(
            "hm" if rows > 1 else "",
            [{"type": "output_text", "text": text}],
            calls * max(0, rows - 2),
            head=Item(id=uuid7()),
        )
        with transaction.atomic():
            append(self.conversation, made, self.row(parent))
            set_leaf(self.conversation, head_of(made))
            self.conversation.save()

    def delete(self, node: Node) -> None:
        self.conversation = Conversation.objects.select_related("leaf").get()
        with transaction.atomic():
            row = self.row(node)
            assert row is not None
            delete_message(self.conversation, row)
            self.conversation.save()
        self.conversation = Conversation.objects.select_related("leaf").get()

    def choose(self, node: Node | None) -> None:
        set_leaf(self.conversation, self.row(node))
        self.conversation.save()


def check(model: Model, tree: Tree, chooser: random.Random) -> None:
    """Compare the current branch, some paths and all siblings of ``tree`` with ``model``."""
    stored = Conversation.objects.select_related("leaf").get()
    assert stored.leaf == tree.row(model.leaf)
    assert stored.message_count == len(model.path(model.leaf))
    nodes = [model.leaf, *chooser.sample(model.nodes, min(3, len(model.nodes)))]
    for node in nodes:
        path = path_to(tree.row(node))
        expected = model.path(node)
        assert [row.text for row in path.oldest(head=None)] == [each.text for each in expected]
        assert [row.text for row in path.newest(head=None)] == [each.text for each in expected][
            ::-1
        ]
        assert path.count(head=None) == len(expected)
        assert path.count() == sum(each.rows for each in expected)
        on_path = {each.text for each in expected}
        for other in model.nodes:
            row = tree.row(other)
            assert row is not None
            assert path.has(row) == (other.text in on_path)
    heads = list(Item.objects.filter(head=None).order_by("sequence"))
    by_key = {row.pk: row.text for row in heads}
    found = siblings(heads)
    for node in model.nodes:
        row = tree.row(node)
        assert row is not None
        assert [by_key[pk] for pk in found[row.pk]] == model.siblings(node)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(8))
def test_a_tree_is_what_a_naive_model_says(seed: int) -> None:
    chooser = random.Random(seed)
    model, tree = Model(), Tree()
    for step in range(45):
        some = chooser.choice([None, *model.nodes])
        action = chooser.choices(["grow", "fork", "delete", "choose"], [6, 4, 3, 2])[0]
        text = f"{seed}.{step}"
        if action == "delete" and some is not None:
            tree.delete(some)
            model.delete(some)
        elif action == "choose":
            tree.choose(some)
            model.leaf = some
        else:
            parent = model.leaf if action == "grow" else some
            rows = chooser.choice([1, 1, 2, 3, 4])
            tree.append(text, parent, rows)
            model.append(text, parent, rows)
        if step % 5 == 4:
            check(model, tree, chooser)
    check(model, tree, chooser)


@pytest.mark.django_db
def test_a_path_through_1500_forks() -> None:
    """Each message is the second after its parent, so that each begins a branch."""
    row = Conversation.objects.create(owner="user:1")
    parent: Item | None = None
    branches: list[Branch] = []
    items: list[Item] = []
    for number in range(1_500):
        branch = row.id if parent is None else uuid7()
        if parent is not None:
            branches.append(
                Branch(id=branch, conversation=row, parent=parent.branch, fork=parent.sequence)
            )
        common: dict[str, Any] = {"conversation": row, "type": "message", "role": "user"}
        item = Item(
            branch=branch, sequence=2 * number + 1, parent=parent, text=str(number), **common
        )
        items += [
            item,
            Item(branch=branch, sequence=2 * number + 2, parent=item, text="-", **common),
        ]
        parent = item
    Branch.objects.bulk_create(branches, batch_size=500)
    Item.objects.bulk_create(items, batch_size=500)
    row.sequence = 3_000
    with CaptureQueriesContext(connection) as queries:
        path = path_to(parent)
        assert path.count(head=None) == 1_500
        found = path.oldest(head=None)
        assert [item.text for item in path.newest(20)] == [str(n) for n in range(1_499, 1_479, -1)]
    assert [item.text for item in found] == list(map(str, range(1_500)))
    assert len(queries) < 40
    set_leaf(row, parent)
    assert row.message_count == 1_500
    append(row, [Item(type="message", role="user", text="new")], parent)
    assert path_to(Item.objects.get(text="new")).count(head=None) == 1_501
    delete_message(row, items[0])
    row.save()
    row.refresh_from_db()
    assert row.message_count == 1_499
    assert path_to(Item.objects.get(text="new")).count(head=None) == 1_500


def by_id(chat: Chat) -> dict[str, Any]:
    return {each["id"]: each for each in chat("GET", "messages/?all=true&limit=100").body["data"]}


def test_edits_and_regenerations_lose_nothing(chat: Chat) -> None:
    first = chat.post("A").body
    chat.post("B")
    seen = by_id(chat)
    again = chat("POST", f"messages/{first['message_id']}/regenerate/", {}).body
    assert again["user_message_id"] == first["user_message_id"]
    edited = chat("PATCH", f"messages/{first['user_message_id']}/", {"content": "A2"}).body
    answer = chat("POST", f"messages/{edited['id']}/regenerate/", {}).body
    after = by_id(chat)
    assert len(after) == len(seen) + 3
    for key, before in seen.items():
        assert after[key] | {"sibling_ids": 0} == before | {"sibling_ids": 0}
    assert after[first["message_id"]]["sibling_ids"] == [first["message_id"], again["message_id"]]
    assert after[edited["id"]]["sibling_ids"] == [first["user_message_id"], edited["id"]]
    assert chat.shown["current_message_id"] == answer["message_id"]
    assert chat.texts()[0] == "A2"
    # The first branch is there still.
    leaf = list(seen)[-1]
    assert chat("PATCH", "", {"current_message_id": leaf}).body["message_count"] == 4
    assert chat("GET", "messages/").body["data"][0]["content"] == "A"


def test_two_roots(chat: Chat) -> None:
    chat.post("first root")
    chat.post("more")
    second = chat.post("second root", parent_id=None).body
    assert chat.shown["message_count"] == 2
    assert chat.texts()[0] == "second root"
    kept = chat.keep("third root", parent_id=None)
    assert chat.shown["message_count"] == 1
    roots = [key for key, each in by_id(chat).items() if each["parent_id"] is None]
    assert roots[1:] == [second["user_message_id"], kept]
    assert by_id(chat)[kept]["sibling_ids"] == roots
    # A message of no parent and one of the leaf count alike.
    chat.keep("x", parent_id=second["message_id"])
    assert chat.shown["message_count"] == 3


def walked(chat: Chat) -> Iterator[Any]:
    for each in chat("GET", "messages/?all=true&limit=100").body["data"]:
        parent = by_id(chat).get(each["parent_id"])
        yield each["content"], None if parent is None else parent["content"]


def test_what_followed_a_deleted_message_moves_up(chat: Chat) -> None:
    a = chat.keep("a")
    b = chat.keep("b")
    c = chat.keep("c")
    chat.keep("b2", parent_id=b)
    chat("PATCH", "", {"current_message_id": c})
    deleted = chat("DELETE", f"messages/{b}/")
    assert deleted.body == {"id": b, "object": "chat.message.deleted", "deleted": True}
    assert dict(walked(chat)) == {"a": None, "c": "a", "b2": "a"}
    assert (chat.texts(), chat.shown["message_count"]) == (["a", "c"], 2)
    chat("DELETE", f"messages/{a}/")
    assert dict(walked(chat)) == {"c": None, "b2": None}
    assert by_id(chat)[c]["sibling_ids"] == list(by_id(chat))
    chat("DELETE", f"messages/{c}/")
    assert (chat.shown["current_message_id"], chat.shown["message_count"]) == (None, 0)
    assert chat.texts("all=true") == ["b2"]
    chat.keep("new")
    assert chat.texts() == ["new"]
    assert chat("DELETE", f"messages/{c}/").status == 404


def test_the_leaf_of_a_deleted_message_is_its_parent(chat: Chat) -> None:
    chat.post("A")
    last = chat.post("B").body
    before = last["user_message_id"]
    chat("DELETE", f"messages/{last['message_id']}/")
    assert (chat.shown["current_message_id"], chat.shown["message_count"]) == (before, 3)
    # Of another branch than the current one nothing is counted.
    other = chat.keep("C", parent_id=None)
    chat("DELETE", f"messages/{before}/")
    assert (chat.shown["current_message_id"], chat.shown["message_count"]) == (other, 1)
