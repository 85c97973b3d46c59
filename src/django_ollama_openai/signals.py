"""Signals around everything that a backend is asked for, with its usage and timings.

Every signal is sent with the backend's class as ``sender`` and these arguments:

``request``
    The :class:`~django.http.HttpRequest`.
``request_id``
    The value of the response's ``x-request-id`` header.
``caller``
    The :class:`~django_ollama_openai.auth.Caller`.
``endpoint``
    What was asked for: ``"chat.completions"``, ``"completions"``, ``"embeddings"`` or
    ``"responses"``.
``body``
    The validated request of that endpoint, such as
    :class:`~django_ollama_openai.wire.chat.ChatCompletionRequest`.
``model``
    The public name of the model.
``backend``
    The alias of the backend in ``BACKENDS``: of the two that end a completion, the one that was
    asked last.

The two that end a completion also have ``answered_by``, the public name of the model that was asked
last: another one than ``model`` where a model has fallen back on it.

Receivers are called with ``send_robust``: one that raises is logged and disturbs nothing. Under
ASGI, asynchronous receivers are awaited and synchronous ones run in a thread.
"""

from __future__ import annotations

from django.dispatch import Signal

__all__ = ["completion_failed", "completion_finished", "completion_started"]

completion_started = Signal()
"""The request has passed every gate and goes to the backend.

A further argument: ``queued``, how many answers wait for that backend in this process, without this
one; 0 as long as it has no ``MAX_CONCURRENCY``.
"""

completion_finished = Signal()
"""The completion has ended, also because the client hung up.

Further arguments: ``finish_reason`` (of the first choice: ``"stop"``, ``"length"``,
``"tool_calls"`` or, for a client that hung up, ``"cancelled"``; of embeddings ``None``), ``usage``
(:class:`~django_ollama_openai.wire.delta.Usage`, of all choices; of a cancelled completion it holds
the tokens counted until then, with ``estimated`` set), ``timings``
(:class:`~django_ollama_openai.gateway.accounting.Timings`, in seconds) and ``messages`` (for each
choice the assistant message in OpenAI's format, as far as it was produced).
"""

completion_failed = Signal()
"""The completion has failed.

Further arguments: ``error`` (a :class:`~django_ollama_openai.exceptions.GatewayError`), and
``usage``, ``timings`` and ``messages`` as far as they got.
"""
