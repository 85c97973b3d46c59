"""The least that does the work: an ASGI application without a framework."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson

__all__ = ["application"]

# As in ollama.AsyncClient there is no time limit, and as in the site's view there are connections
# enough to hold 500 streams open.
_TIMEOUT = httpx.Timeout(None)
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=20)
client = httpx.AsyncClient(
    base_url=os.environ["BENCHMARK_UPSTREAM"], timeout=_TIMEOUT, limits=_LIMITS, trust_env=False
)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    body = orjson.loads(await _read(receive))
    model = body["model"]
    stream = body.get("stream", False)
    content = orjson.dumps({"model": model, "messages": body["messages"], "stream": stream})
    completion_id, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if not stream:
        response = await client.post("/api/chat", content=content)
        answer = orjson.loads(response.content)
        whole = _completion(completion_id, created, model, answer)
        await _start(send, response.status_code, b"application/json")
        await send({"type": "http.response.body", "body": orjson.dumps(whole)})
        return
    async with client.stream("POST", "/api/chat", content=content) as response:
        await _start(send, response.status_code, b"text/event-stream")
        async for line in response.aiter_lines():
            event = orjson.dumps(_chunk(completion_id, created, model, orjson.loads(line)))
            await _send_event(send, event)
    await _send_event(send, b"[DONE]")
    await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _start(send: Send, status: int, content_type: bytes) -> None:
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_event(send: Send, data: bytes) -> None:
    event = b"data: %b\n\n" % data
    await send({"type": "http.response.body", "body": event, "more_body": True})


def _chunk(completion_id: str, created: int, model: str, part: dict[str, Any]) -> dict[str, Any]:
    delta = {"content": part["message"]["content"]}
    return {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": part.get("done_reason")}],
    }


def _completion(
    completion_id: str, created: int, model: str, answer: dict[str, Any]
) -> dict[str, Any]:
    prompt, completion = answer["prompt_eval_count"], answer["eval_count"]
    message = {"role": "assistant", "content": answer["message"]["content"]}
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer["done_reason"]}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }
