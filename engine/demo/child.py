"""The process that is killed: `python -m engine.demo.child DATABASE PLAN CALLS`.

It is what any program that embeds the runtime looks like. Nothing in it knows of a kill: the same
lines begin the run and go on with it.
"""

import asyncio
import sys
from pathlib import Path

from carstore import connect
from engine.demo.calls import written_down
from engine.demo.plan import CONCURRENCY, RUN_ID
from engine.demo.tools import TOOLS
from engine.runtime import Runtime


async def run(database: Path, plan: bytes, calls: Path) -> None:
    """Begin the run or go on with it, until it ends. The log tells how."""
    tools = [written_down(tool, calls) for tool in TOOLS]
    async with connect(database, instance="carstore demo") as store:
        runtime = Runtime(store, tools, schedule="eager", concurrency=CONCURRENCY)
        await runtime.execute(plan, run_id=RUN_ID)


def main() -> None:
    database, plan, calls = map(Path, sys.argv[1:])
    asyncio.run(run(database, plan.read_bytes(), calls))


if __name__ == "__main__":
    main()
