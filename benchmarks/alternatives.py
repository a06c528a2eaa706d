"""Tool steps, against what users would pick instead, each on SQLite with the same trivial step.

The steps of one run follow each other. Ours must not be repeated, so each has its intent and its
outcome recorded; one that another library records with less is taken as it is. What is not
installed is skipped; the extra `bench` of this package has it.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from importlib import import_module
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from benchmarks.harness import Goal, Options, Row, Skipped, benchmark, folder, interleaved
from benchmarks.plans import chain, count, count_in_thread, said, say
from carstore import Store, connect
from carstore.sqlite.database import Durability
from engine import Runtime
from engine.ir import RunStatus

Rate = Callable[[], Awaitable[float]]
"""Does its work once; operations per second."""


def installed(name: str) -> Any:
    """The module of a library that may be missing."""
    try:
        return import_module(name)
    except ImportError:
        library = name.partition(".")[0]
        raise Skipped(f"{library} is not installed (the extra `bench` has it)") from None


# --- ours -----------------------------------------------------------------------------------------


async def our_steps(store: Store, steps: int, *, runs: int = 1, name: str = "count") -> float:
    """So many runs at once of so many steps; steps per second."""
    runtime = Runtime(store, tools=[count, count_in_thread, say])
    plan = chain(steps, name)
    began = time.perf_counter()
    results = await asyncio.gather(*[runtime.execute(plan) for _ in range(runs)])
    elapsed = time.perf_counter() - began
    assert all(result.status is RunStatus.SUCCEEDED for result in results)
    return steps * runs / elapsed


async def compare(
    options: Options,
    place: Path,
    theirs: Callable[[], float],
    ours: Callable[[Store], Awaitable[float]],
    durability: Durability = "power",
) -> tuple[float, float]:
    """Median rates of ours and of theirs, in turn. Theirs has a thread without an event loop."""
    async with connect(place / "ours.db", durability=durability) as store:
        sides: list[Rate] = [lambda: ours(store), lambda: asyncio.to_thread(theirs)]
        measured, reference = await interleaved(options.repetitions, *sides)
    return statistics.median(measured), statistics.median(reference)


def _rate(operations: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return operations / (time.perf_counter() - began)


# --- DBOS -----------------------------------------------------------------------------------------


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
            lambda: _rate(steps, lambda: workflow(steps)),
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

        return _rate(100 * steps, work)

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


# --- LangGraph ------------------------------------------------------------------------------------


class _Last(TypedDict):
    n: int
    goal: int
    output: str


class _Every(TypedDict):
    n: int
    goal: int
    outputs: Annotated[list[str], add]


def _step(state: dict[str, Any]) -> dict[str, Any]:
    return {"n": state["n"] + 1, "output": said(state["n"])}


def _step_kept(state: dict[str, Any]) -> dict[str, Any]:
    return {"n": state["n"] + 1, "outputs": [said(state["n"])]}


@contextmanager
def langgraph_chain(path: Path, *, keep_outputs: bool = False) -> Iterator[Callable[[int], Any]]:
    """A graph of one node that is run so many times; it can keep every step's output, as our runs
    do, or only the last."""
    graph = installed("langgraph.graph")
    saver = installed("langgraph.checkpoint.sqlite").SqliteSaver
    built = graph.StateGraph(_Every if keep_outputs else _Last)
    built.add_node("step", _step_kept if keep_outputs else _step)
    built.add_edge(graph.START, "step")
    built.add_conditional_edges(
        "step", lambda state: "step" if state["n"] < state["goal"] else graph.END
    )
    with saver.from_conn_string(str(path)) as checkpoints:
        compiled = built.compile(checkpointer=checkpoints)

        def run(steps: int) -> Any:
            empty: dict[str, Any] = {"outputs": []} if keep_outputs else {"output": ""}
            settings = {
                "configurable": {"thread_id": os.urandom(8).hex()},
                "recursion_limit": steps + 10,
            }
            return compiled.invoke({"n": 0, "goal": steps, **empty}, settings, durability="sync")

        yield run


@benchmark("steps-langgraph")
def steps_langgraph(options: Options) -> list[Row]:
    """Steps in turn, and the bytes they leave, against LangGraph's SqliteSaver."""
    steps = 200 if options.quick else 500
    with folder(options) as place, langgraph_chain(place / "theirs.db") as run:
        ours, theirs = asyncio.run(
            compare(
                options,
                place,
                lambda: _rate(steps, lambda: run(steps)),
                lambda store: our_steps(store, steps),
            )
        )
    return [
        Row(
            case=f"{steps} steps of one run",
            unit="steps/s",
            measured=ours,
            against="LangGraph, node steps, durability=sync",
            reference=theirs,
            goal=Goal(at_least=3.5),
        ),
        *bytes_per_step(options, 200 if options.quick else 1_000),
    ]


def bytes_per_step(options: Options, steps: int) -> list[Row]:
    """What a run of so many steps, each with 200 characters to say, adds to the file, once closed.

    Any step of ours can refer to the output of any before it, so LangGraph's state holds them too;
    beside it, how it is if the state holds only the last one.
    """
    with folder(options) as place:
        mine = _growth(place / "ours.db", partial(_leave_ours, steps=steps), steps)
        theirs = {
            keep: _growth(
                place / f"theirs-{keep}.db",
                partial(_leave_theirs, steps=steps, keep_outputs=keep),
                steps,
            )
            for keep in (True, False)
        }
    return [
        Row(
            case=f"{steps} steps of one run",
            unit="bytes/step",
            measured=mine,
            against="LangGraph, every output kept" if keep else "LangGraph, last output kept",
            reference=reference,
            goal=Goal(at_most=0.1) if keep else None,
        )
        for keep, reference in theirs.items()
    ]


def _growth(path: Path, leave: Callable[[Path], None], steps: int) -> float:
    """Bytes that a run adds to a file that holds one already."""
    leave(path)
    before = path.stat().st_size
    leave(path)
    return (path.stat().st_size - before) / steps


def _leave_ours(path: Path, steps: int) -> None:
    async def work() -> None:
        async with connect(path) as store:
            await our_steps(store, steps, name="say")

    asyncio.run(work())


def _leave_theirs(path: Path, steps: int, keep_outputs: bool) -> None:
    with langgraph_chain(path, keep_outputs=keep_outputs) as run:
        run(steps)


# --- eventsourcing --------------------------------------------------------------------------------


@cache
def _aggregate() -> Any:
    """A class with one kind of event; the library finds it by name, so there can be only one."""
    domain = installed("eventsourcing.domain")

    class Steps(domain.Aggregate):  # type: ignore[misc,name-defined]
        @domain.event("Stepped")  # type: ignore[untyped-decorator]
        def step(self, n: int) -> None:
            self.n = n

    return Steps


class Eventsourcing:
    """Its application on SQLite; a context."""

    def __init__(self, path: Path) -> None:
        self._new = _aggregate()
        self._application = installed("eventsourcing.application").Application(
            env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
        )

    def __enter__(self) -> "Eventsourcing":
        return self

    def __exit__(self, *_: object) -> None:
        self._application.close()

    def steps(self, steps: int) -> None:
        """A new aggregate, saved after each of its events."""
        aggregate = self._new()
        for number in range(steps):
            aggregate.step(number)
            self._application.save(aggregate)

    def saved(self, events: int) -> Any:
        """The id of a new aggregate with so many events, saved at once."""
        aggregate = self._new()
        for number in range(events - 1):
            aggregate.step(number)
        self._application.save(aggregate)
        return aggregate.id

    def load(self, aggregate_id: Any) -> Any:
        """The aggregate, replayed."""
        return self._application.repository.get(aggregate_id)


@benchmark("steps-eventsourcing")
def steps_eventsourcing(options: Options) -> list[Row]:
    """Steps in turn, against saves of one event each."""
    steps = 200 if options.quick else 1_000
    with folder(options) as place, Eventsourcing(place / "theirs.db") as theirs:
        ours, reference = asyncio.run(
            compare(
                options,
                place,
                lambda: _rate(steps, lambda: theirs.steps(steps)),
                lambda store: our_steps(store, steps),
            )
        )
    return [
        Row(
            case=f"{steps} steps of one run",
            unit="steps/s",
            measured=ours,
            against="eventsourcing, saves of one event",
            reference=reference,
        )
    ]


# --- durabl ---------------------------------------------------------------------------------------


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
            return _rate(steps, lambda: runtime.start(workflow))

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
