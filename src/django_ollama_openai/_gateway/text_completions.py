"""``POST v1/completions``."""

from __future__ import annotations

from .._translation.text_completion import TextCompletionStream, WholeTextCompletion
from .._wire.completions import CompletionRequest
from .accounting import Account
from .admission import Admission
from .completion import Completion, text_sources
from .delivery import Reply, deliver
from .flow import Flow

__all__ = ["complete_text"]


def complete_text(admission: Admission[CompletionRequest]) -> Flow[Reply]:
    """Answer a request for text completions; raises as :func:`~.delivery.deliver` does."""
    body, route, case = admission.body, admission.engine_route, admission.mount.case
    sources = text_sources(body)
    echo = [
        str(prompt) if body.echo else "" for prompt in body.prompts() for _ in range(body.n or 1)
    ]
    writer = (
        TextCompletionStream(
            route.name,
            case,
            choices=len(sources),
            echo=echo,
            include_usage=body.include_usage,
        )
        if body.stream
        else WholeTextCompletion(route.name, case, choices=len(sources), echo=echo)
    )
    completion = Completion(
        route=route,
        request=body,
        sources=sources,
        account=Account(admission, choices=len(sources)),
        writer=writer,
        is_stream=bool(body.stream),
    )
    return (yield from deliver(admission, completion))
