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

The two that end a completion also have ``answered_by``, the public name of the model that was
asked last, another one than ``model`` where a model has fallen back on it; and ``failures``, what
was asked before: for each the alias of the backend, and the
:class:`~django_ollama_openai.exceptions.GatewayError` that it has failed with.

Receivers are called with ``send_robust``: one that raises is logged and disturbs nothing. Under
ASGI, asynchronous receivers are awaited and synchronous ones run in a thread, other than those of
``completion_ended``. Context variables are those of the request, also at the end of a stream, which
comes when the request has left its middleware.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.dispatch import Signal

__all__ = [
    "completion_ended",
    "completion_failed",
    "completion_finished",
    "completion_started",
]


class _PromptSignal(Signal):
    """Its receivers are called where the completion ends, which may be in an event loop."""

    def connect(self, receiver: Any, *args: Any, **kwargs: Any) -> None:
        """Call ``receiver``, as with any signal.

        Raises:
            TypeError: ``receiver`` would have to be awaited.
        """
        if iscoroutinefunction(receiver):
            raise TypeError(
                f"{receiver!r} is asynchronous, and would have to be awaited. Receivers of "
                "completion_ended are synchronous; completion_finished and completion_failed take "
                "both."
            )
        super().connect(receiver, *args, **kwargs)


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

completion_ended: Signal = _PromptSignal()
"""The completion has finished or failed: what is to be measured of it, without its text.

It is sent before the other two, at once, and in the event loop under ASGI. Its receivers are
synchronous and must not block: they are for counters, and for what hands on to a thread of its own.
Unlike the receivers of the other two, they do not make the app keep the text of every answer.

Further arguments: ``usage`` and ``timings`` as above, ``finish_reason`` (``None`` of a failure),
``error`` (``None`` unless it has failed), and ``choices``, how many the answer has (0 for
embeddings).
"""
