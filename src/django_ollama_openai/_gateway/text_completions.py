"""``POST v1/completions``. The gates before it stand in :func:`~.exchange.admit`."""

from __future__ import annotations

from .._translation.text_completion import TextCompletionStream, WholeTextCompletion
from .._wire.completions import CompletionRequest
from .completion import Completion, text_sources
from .exchange import Exchange, Reply, admit, check_choices, settle_parameters
from .flow import Flow

__all__ = ["complete_text"]


def complete_text(exchange: Exchange) -> Flow[Reply]:
    """Answer a request for text completions; raises as :meth:`Exchange.reply` does."""
    admitted = yield from admit(exchange, CompletionRequest, "chat")
    body, route, case = admitted.body, admitted.route, admitted.mount.case
    body, ignored = settle_parameters(body, route.backend.unsupported_parameters(body), route)
    prompts, n = body.prompts(), body.n or 1
    check_choices(len(prompts) * n, "n" if n > 1 else "prompt")
    sources = text_sources(body)
    echo = [str(prompt) if body.echo else "" for prompt in prompts for _ in range(n)]
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
        account=exchange.account(
            admitted.caller, route, endpoint="completions", body=body, choices=len(sources)
        ),
        writer=writer,
        is_stream=bool(body.stream),
    )
    return (yield from exchange.reply(completion, ignored))
