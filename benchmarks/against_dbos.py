"""Tool steps, against DBOS."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.comparing import compare, installed, our_steps, rate
from benchmarks.harness import Goal, Options, Row, benchmark, folder
from benchmarks.plans import count, count_in_thread


@contextmanager
def dbos_chain(path: Path) -> Iterator[tuple[Any, Callable[[int], int]]]:
    """The library, launched, and a workflow of so many steps."""
    library = installed("dbos").DBOS
    library(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{path}",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )

    def dbos_step(n: int) -> int:
        return n + 1

    recorded = library.step()(dbos_step)

    def dbos_steps(steps: int) -> int:
        last = 0
        for number in range(steps):
            last = recorded(number)
        return last

    workflow = library.workflow()(dbos_steps)
    library.launch()
    try:
        yield library, workflow
    finally:
        library.destroy(destroy_registry=True)


@benchmark("steps-dbos")
def steps_dbos(options: Options) -> list[Row]:
    """Steps in turn, and a hundred runs at once, against DBOS."""
    steps = 200 if options.quick else 500
    with folder(options) as place, dbos_chain(place / "theirs.db") as (library, workflow):
        in_turn = [
            _in_turn(options, place, steps, tool, workflow)
            for tool in ((count,) if options.quick else (count, count_in_thread))
        ]
        at_once = [
            _at_once(options, place, steps, library, workflow)
            for steps in ((1,) if options.quick else (1, 10))
        ]
    return in_turn + at_once


def _in_turn(
    options: Options, place: Path, steps: int, tool: Any, workflow: Callable[[int], int]
) -> Row:
    ours, theirs = asyncio.run(
        compare(
            options,
            place,
            lambda: rate(steps, lambda: workflow(steps)),
            lambda store: our_steps(store, steps, name=tool.name),
        )
    )
    kind = "async" if tool is count else "in a thread"
    return Row(
        case=f"{steps} steps of one run, {kind}",
        unit="steps/s",
        measured=ours,
        against="DBOS",
        reference=theirs,
        goal=Goal(at_least=4.5) if tool is count else None,
    )


def _at_once(
    options: Options, place: Path, steps: int, library: Any, workflow: Callable[[int], int]
) -> Row:
    def theirs() -> float:
        def work() -> None:
            started = [library.start_workflow(workflow, steps) for _ in range(100)]
            for handle in started:
                handle.get_result()

        return rate(100 * steps, work)

    fewer = Options(quick=True, folder=options.folder)  # each turn of theirs takes a second or more
    ours, reference = asyncio.run(
        compare(fewer, place, theirs, lambda store: our_steps(store, steps, runs=100))
    )
    return Row(
        case=f"100 runs of {steps} step{'s' if steps > 1 else ''} at once",
        unit="steps/s",
        measured=ours,
        against="DBOS, 100 at once",
        reference=reference,
        goal=Goal(at_least=50),
    )
