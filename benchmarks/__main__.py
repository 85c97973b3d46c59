"""Ways from OpenAI's API to Ollama, side by side: ``python -m benchmarks``.

All of them serve in front of the same engine, on loopback, and take turns in each round.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack

from .contenders import CONTENDERS, Contender
from .processes import Served, free_port, module, serving
from .report import report
from .scenarios import SCENARIOS, measure, measure_memory, warm_up

MEMORY = "memory"


def main() -> int:
    arguments = _arguments()
    contenders = [CONTENDERS[name] for name in arguments.only]
    samples: dict[str, dict[str, list[float]]] = {
        contender.name: defaultdict(list) for contender in contenders
    }

    def note(contender: Contender, figures: dict[str, float]) -> None:
        for metric, figure in figures.items():
            samples[contender.name][metric].append(figure)
        said = ", ".join(f"{metric} {figure:.4g}" for metric, figure in figures.items())
        print(f"  {contender.name:12}  {said}", file=sys.stderr)

    with ExitStack() as stack:
        port = free_port()
        upstream = stack.enter_context(
            serving(module("benchmarks.upstream", str(port)), port, environment={})
        )
        served: dict[str, Served] = {}
        for contender in contenders:
            served[contender.name] = stack.enter_context(contender.serving(upstream))
            warm_up(contender, served[contender.name])
        for number in range(arguments.rounds):
            for name in arguments.scenarios:
                print(f"Round {number + 1} of {arguments.rounds}, {name}", file=sys.stderr)
                for contender in _in_turn(contenders, number):
                    if name != MEMORY:
                        process = served[contender.name]
                        note(
                            contender,
                            measure(SCENARIOS[name], contender, process, arguments.share),
                        )
                    elif contender.name != "direct":
                        with contender.serving(upstream) as process:
                            note(contender, measure_memory(contender, process))
    print(report(samples, arguments.rounds))
    return 0


def _in_turn(contenders: list[Contender], number: int) -> Iterable[Contender]:
    """The contenders, of whom another one begins in each round."""
    first = number % len(contenders)
    return contenders[first:] + contenders[:first]


def _arguments() -> argparse.Namespace:
    names = [*SCENARIOS, MEMORY]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: _chosen(text, CONTENDERS),
        default=list(CONTENDERS),
        metavar="A,B",
        help=f"contenders: {', '.join(CONTENDERS)}",
    )
    parser.add_argument(
        "--scenarios",
        type=lambda text: _chosen(text, names),
        default=names,
        metavar="A,B",
        help=f"scenarios: {', '.join(names)}",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each of them has its turn")
    parser.add_argument(
        "--quick",
        dest="share",
        action="store_const",
        const=0.25,
        default=1,
        help="a quarter of the requests: a first look, not a measurement",
    )
    return parser.parse_args()


def _chosen(text: str, known: Iterable[str]) -> list[str]:
    names, known = text.split(","), list(known)
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no {name!r} but {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
