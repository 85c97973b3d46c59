"""The helpers for the tests of a site."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, override_settings

from django_ollama_openai.testing import authorization, canned_replies, requests_to

SITE = {
    "HOST": "http://gpu-1:11434",
    "BACKENDS": {"large": {"HOST": "http://gpu-2:11434"}},
    "MODELS": {"big": {"BACKEND": "large"}},
}


def ask(**fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    path = "/ai/v1/chat/completions"
    response = Client().post(path, body, content_type="application/json", headers=authorization())
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


@override_settings(OLLAMA_OPENAI=SITE)
def test_replies_come_in_turn_from_every_backend_of_the_site() -> None:
    with canned_replies("Paris.", {"tool_calls": [{"name": "get_time"}]}):
        assert ask()["message"]["content"] == "Paris."
        assert ask()["finish_reason"] == "tool_calls"
        assert ask(model="big")["message"]["content"] == "Paris."
        assert [len(requests_to()), len(requests_to("large"))] == [2, 1]
    with pytest.raises(TypeError, match="canned_replies"):
        requests_to()


@canned_replies(RESPONSE_CASE="snake")
def test_it_decorates_and_changes_settings() -> None:
    assert "finishReason" not in ask()
    assert requests_to()[0].messages[0].content == "Hi"


def test_a_wrong_key() -> None:
    with canned_replies():
        response = Client().get("/ai/v1/models", headers=authorization("wrong"))
    assert response.status_code == 401
