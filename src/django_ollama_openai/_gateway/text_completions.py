"""``POST v1/completions``. The gates before it stand in :mod:`~.admission`."""

from __future__ import annotations

from functools import partial

from .._translation.text_completion import TextCompletionStream, WholeTextCompletion
from .._translation.tool_choice import Answering
from .._wire.completions import CompletionRequest
from .admission import Admission
from .completion import Asking, Choice, Completion, whole
from .exchange import Reply, check_choices, settle_parameters
from .flow import Flow
from .routing import Route

__all__ = ["complete_text"]


def complete_text(admission: Admission[CompletionRequest]) -> Flow[Reply]:
    """Answer a request for text completions; raises as :meth:`Exchange.reply` does."""
    exchange = admission.exchange
    body, route, case = admission.body, admission.route, admission.mount.case
    body, ignored = settle_parameters(body, route.backend.unsupported_parameters(body), route)
    prompts, n = body.prompts(), body.n or 1
    check_choices(len(prompts) * n, "n" if n > 1 else "prompt")
    choices = _choices(body)
    echo = [str(prompt) if body.echo else "" for prompt in prompts for _ in range(n)]
    writer = (
        TextCompletionStream(
            route.name,
            case,
            choices=len(choices),
            echo=echo,
            include_usage=body.include_usage,
        )
        if body.stream
        else WholeTextCompletion(route.name, case, choices=len(choices), echo=echo)
    )
    completion = Completion(
        route=route,
        request=body,
        choices=choices,
        account=exchange.account(
            admission.caller, route, endpoint="completions", body=body, choices=len(choices)
        ),
        writer=writer,
        is_stream=bool(body.stream),
    )
    return (yield from exchange.reply(completion, ignored))


def _choices(body: CompletionRequest) -> list[Choice[CompletionRequest]]:
    """``n`` requests for each prompt, in OpenAI's order: all choices of a prompt together."""
    pairs = [(prompt, number) for prompt in body.prompts() for number in range(body.n or 1)]
    return [
        Choice(index, partial(_asking, body, prompt, number))
        for index, (prompt, number) in enumerate(pairs)
    ]


def _asking(
    body: CompletionRequest, prompt: str | list[int], number: int, route: Route
) -> Asking[CompletionRequest]:
    backend = route.backend
    request = body.routed_to(route.model, route.options).for_prompt(prompt, number)
    methods = (
        (backend.stream_complete, backend.astream_complete)
        if body.stream
        else whole(backend.complete, backend.acomplete)
    )
    return Asking(Answering(request), *methods)
