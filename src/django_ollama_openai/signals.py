"""Signals for every request to a backend, with its usage and timings.

Every signal is sent with the backend's class as ``sender`` and these arguments:

``request``
    The :class:`~django.http.HttpRequest`.
``request_id``
    The value of the response's ``x-request-id`` header.
``caller``
    The :class:`~django_ollama_openai.auth.Caller`.
``endpoint``
    ``"chat.completions"``, ``"completions"``, ``"embeddings"`` or ``"responses"``.
``body``
    The validated request of that endpoint, such as
    :class:`~django_ollama_openai.types.ChatCompletionRequest`.
``model``
    The public name of the model.
``backend``
    The alias of the backend in ``BACKENDS``; after fallbacks, of the last one.

The signals at the end of a completion also have ``answered_by``, the public name of the last model,
which differs from ``model`` after a fallback; and ``failures``, a list of the earlier attempts: for
each the alias of the backend, and its :class:`~django_ollama_openai.exceptions.GatewayError`.

Receivers are called with ``send_robust``: exceptions are logged and do not affect the answer. Under
ASGI, asynchronous receivers are awaited and synchronous ones run in a thread, except those of
``completion_recorded``. Context variables are those of the request, even at the end of a stream,
when the request has left the middleware.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.dispatch import Signal

__all__ = [
    "completion_failed",
    "completion_finished",
    "completion_recorded",
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
                "completion_recorded are synchronous; completion_finished and completion_failed "
                "take both."
            )
        super().connect(receiver, *args, **kwargs)


#: The request was accepted and goes to the backend.
#:
#: Further argument: ``queued``, the number of other answers that wait for the backend in this
#: process; 0 without ``MAX_CONCURRENCY``.
completion_started = Signal(use_caching=True)

#: The completion has ended, by itself or because the client disconnected.
#:
#: Further arguments: ``finish_reason`` (``"stop"``, ``"length"``, ``"tool_calls"``,
#: ``"content_filter"`` or another word of the engine's, of the first choice; ``"cancelled"`` if the
#: client disconnected; ``None`` for embeddings), ``usage``
#: (:class:`~django_ollama_openai.types.Usage` of all choices; of a cancelled completion the tokens
#: counted until then, with ``estimated`` set), ``timings``
#: (:class:`~django_ollama_openai.types.Timings`, in seconds) and ``messages`` (for each choice the
#: assistant message in OpenAI's format, as far as it was produced).
completion_finished = Signal(use_caching=True)

#: The completion has failed.
#:
#: Further arguments: ``error`` (a :class:`~django_ollama_openai.exceptions.GatewayError`), and
#: ``usage``, ``timings`` and ``messages`` up to the failure.
completion_failed = Signal(use_caching=True)

#: The completion has finished or failed. For metrics: without text.
#:
#: It is sent before the other two, and in the event loop under ASGI. Receivers are synchronous and
#: must not block. Unlike receivers of the other two, they do not make the app keep the text of
#: answers.
#:
#: Further arguments: ``usage`` and ``timings`` as above, ``finish_reason`` (``None`` for a
#: failure), ``error`` (``None`` unless it failed), and ``choices``, the number of choices (0 for
#: embeddings).
completion_recorded: Signal = _PromptSignal(use_caching=True)
