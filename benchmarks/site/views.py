"""What a site writes without the app: no authentication, no validation, no errors, no signals."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import ollama
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

# More connections than the default of 100, or 500 streams could not be held open; as many that
# are kept alive.
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=20)
client = ollama.AsyncClient(host=os.environ["BENCHMARK_UPSTREAM"], limits=_LIMITS)


@csrf_exempt
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    body = json.loads(request.body)
    model, messages = body["model"], body["messages"]
    if body.get("stream"):
        parts = await client.chat(model=model, messages=messages, stream=True)
        return StreamingHttpResponse(_events(model, parts), content_type="text/event-stream")
    answer = await client.chat(model=model, messages=messages)
    return JsonResponse(
        {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer.message.content},
                    "finish_reason": answer.done_reason,
                }
            ],
            "usage": {
                "prompt_tokens": answer.prompt_eval_count,
                "completion_tokens": answer.eval_count,
                "total_tokens": (answer.prompt_eval_count or 0) + (answer.eval_count or 0),
            },
        }
    )


async def _events(model: str, parts: AsyncIterator[ollama.ChatResponse]) -> AsyncIterator[str]:
    completion_id, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    async for part in parts:
        chunk: Mapping[str, Any] = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": part.message.content},
                    "finish_reason": part.done_reason,
                }
            ],
        }
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"
