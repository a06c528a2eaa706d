"""Tool steps, against LangGraph."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from benchmarks.comparing import compare, installed, our_steps, rate
from benchmarks.harness import Goal, Options, Row, benchmark, folder
from benchmarks.plans import said
from carstore import connect


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
                lambda: rate(steps, lambda: run(steps)),
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
