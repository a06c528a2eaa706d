"""A report of the steps that were done, kept beside the log: each step once, whatever dies."""

import asyncio
import sqlite3
from contextlib import suppress

from carstore import Recorded, connect
from carstore.consumer import consumer
from carstore.events import ActionSucceeded
from engine import Action, Proposal, Runtime, tool


@tool(idempotent=True)
async def step(n: int) -> int:
    await asyncio.sleep(0.1)
    print("step", n, flush=True)
    return n


def report(rows: sqlite3.Connection, recorded: Recorded) -> None:
    """Called in the transaction that also moves the cursor. It need not look for what is there."""
    event = recorded.event
    assert isinstance(event, ActionSucceeded)
    rows.execute("CREATE TABLE IF NOT EXISTS done (step INTEGER, position INTEGER)")
    rows.execute("INSERT INTO done VALUES (?, ?)", (event.output, recorded.position))


async def main() -> None:
    plan = Proposal(actions=[Action(tool="step", parameters={"n": n}) for n in range(1, 9)])
    kinds = [ActionSucceeded.kind]
    async with (
        connect("consumer.db") as store,
        consumer(store, "report.db", "report", kinds=kinds) as reporter,
    ):
        following = asyncio.create_task(reporter.run(report))  # in a program of its own as well
        await Runtime(store, tools=[step]).execute(plan, run_id="reported")
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await reporter.catch_up(report)
        print("reported up to position", reporter.position)


asyncio.run(main())
