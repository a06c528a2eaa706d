"""Tool steps, against durabl."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.comparing import compare, installed, our_steps, rate
from benchmarks.harness import Goal, Options, Row, benchmark, folder


@benchmark("steps-durabl")
def steps_durabl(options: Options) -> list[Row]:
    """Durability `crash`, against durabl, which has no other."""
    library = installed("durabl")
    steps = 200 if options.quick else 1_000
    with folder(options) as place:
        return [
            _against_durabl(options, place, library, steps, runs, kind)
            for runs, kind in ((1, "two events a step"), (10, "two events a step"), (1, "tool"))
        ]


def _against_durabl(
    options: Options, place: Path, library: Any, steps: int, runs: int, kind: str
) -> Row:
    def steps_in_turn(ctx: Any) -> Iterator[Any]:  # noqa: ARG001 - it has to take one
        for number in range(steps):
            if kind == "tool":
                yield library.ToolCall("count", {"n": number})
            else:
                yield library.ModelCall("count", params={"n": number})

    workflow = library.define(f"{kind}-{runs}", steps_in_turn)

    def theirs() -> float:
        with closing(
            library.Runtime(
                db=str(place / f"theirs-{kind}-{runs}.db"),
                llm=lambda _, n: n + 1,
                tools=[library.Tool("count", lambda n: n + 1)],
            )
        ) as runtime:
            return rate(steps, lambda: runtime.start(workflow))

    ours, reference = asyncio.run(
        compare(
            options,
            place,
            theirs,
            lambda store: our_steps(store, steps // runs, runs=runs),
            durability="crash",
        )
    )
    goal = Goal(at_least=0.45 if runs == 1 else 1) if kind != "tool" else None
    return Row(
        case=f"{runs} run{'s at once' if runs > 1 else ''} of {steps // runs} steps",
        unit="steps/s",
        measured=ours,
        against=f"durabl, one run, {kind}",
        reference=reference,
        goal=goal,
    )
