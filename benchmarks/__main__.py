"""Compare gateways from OpenAI's API to Ollama: ``python -m benchmarks``.

All of them use the same engine, on loopback, and take turns in each round.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

from .contenders import Contender, contenders
from .processes import BenchmarkError, Served, free_port, module, serving
from .report import Samples, report
from .scenarios import SCENARIOS, measure, measure_memory, warm_up

MEMORY = "memory"
# It takes a fresh process each time, and hardly varies.
MEMORY_ROUNDS = 2
ALL_SCENARIOS = [*SCENARIOS, MEMORY]


def main() -> int:
    # SIGTERM must also end the processes that were started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _arguments()
    try:
        known = contenders(arguments.litellm)
        only = _complete([known[name] for name in _chosen(arguments.only, list(known))])
        scenarios = _chosen(arguments.scenarios, ALL_SCENARIOS)
        samples = run(only, scenarios, arguments.rounds, arguments.share)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    versions = [version for contender in only if (version := contender.version())]
    print(report(samples, arguments.rounds, versions))
    return 0


def run(
    contenders: Sequence[Contender], scenarios: Sequence[str], rounds: int, share: float
) -> Samples:
    """Return the figures of ``rounds`` rounds of ``scenarios``, each with the fraction ``share`` of
    its requests.

    Raises:
        BenchmarkError: A process did not start, or a response was wrong.
    """
    samples: dict[str, dict[str, list[float]]] = {
        contender.name: defaultdict(list) for contender in contenders
    }
    with ExitStack() as stack:
        port = free_port()
        upstream = stack.enter_context(
            serving(module("benchmarks.upstream", str(port)), port, environment={})
        )
        served: dict[str, Served] = {}
        if scenarios != [MEMORY]:
            for contender in contenders:
                served[contender.name] = stack.enter_context(contender.serving(upstream))
                warm_up(contender, served[contender.name])
        for number in range(rounds):
            for name in scenarios:
                if name == MEMORY and number >= MEMORY_ROUNDS:
                    continue
                print(f"Round {number + 1} of {rounds}, {name}", file=sys.stderr)
                for contender in _in_turn(contenders, number):
                    if name != MEMORY:
                        scenario, process = SCENARIOS[name], served[contender.name]
                        figures = measure(scenario, contender, process, share)
                    elif contender.name != "direct":
                        with contender.serving(upstream) as process:
                            figures = measure_memory(contender, process)
                    else:
                        continue
                    for metric, figure in figures.items():
                        samples[contender.name][metric].append(figure)
                    said = ", ".join(f"{metric} {figure:.4g}" for metric, figure in figures.items())
                    print(f"  {contender.name:20}  {said}", file=sys.stderr)
    return samples


def _complete(contenders: Sequence[Contender]) -> list[Contender]:
    """Return the contenders without those that lack something, which is named."""
    complete = []
    for contender in contenders:
        if missing := contender.missing():
            print(f"{contender.name} is left out without {', '.join(missing)}.", file=sys.stderr)
        else:
            complete.append(contender)
    return complete


def _in_turn(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Return the contenders, starting with another one in each round."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    everybody = ", ".join(contenders(litellm=""))
    parser.add_argument("--only", metavar="A,B", help=f"contenders: {everybody}")
    parser.add_argument("--scenarios", metavar="A,B", help=f"scenarios: {', '.join(ALL_SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each of them has its turn")
    parser.add_argument(
        "--quick",
        dest="share",
        action="store_const",
        const=0.25,
        default=1,
        help="a quarter of the requests: a first look, not a measurement",
    )
    parser.add_argument("--litellm", metavar="PATH", help="LiteLLM's command, which makes it run")
    return parser.parse_args()


def _chosen(names: str | None, known: list[str]) -> list[str]:
    if names is None:
        return known
    chosen = names.split(",")
    for name in chosen:
        if name not in known:
            raise BenchmarkError(f"There is no {name!r}; there are {', '.join(known)}.")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
