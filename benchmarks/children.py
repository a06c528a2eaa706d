"""What runs in a process of its own, to be killed, traced or followed.

`python -m benchmarks.children chain|resume|append|fold DB ...`
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from carstore import connect
from engine import Runtime, tool

_quiet = False


@tool(name="count")
async def count(n: int) -> int:
    """Says that it began, for whoever waits for that."""
    if not _quiet:
        print(n, flush=True)
    return n + 1


async def chain(path: str, steps: str, run_id: str = "run") -> None:
    """Run a chain of tool calls, saying before each one its number."""
    from benchmarks.plans import chain as plan

    async with connect(path) as store:
        await Runtime(store, tools=[count], on_doubt="retry").execute(
            plan(int(steps)), run_id=run_id
        )


async def quiet_chain(path: str, steps: str) -> None:
    """The same, saying nothing."""
    global _quiet
    _quiet = True
    await chain(path, steps)


async def resume(path: str) -> None:
    """Go on with it."""
    async with connect(path) as store:
        await Runtime(store, tools=[count], on_doubt="retry").resume("run")


async def append(path: str, events: str, pause_seconds: str) -> None:
    """Append one event after the other, and say when each was acknowledged (monotonic ns)."""
    from benchmarks.append import appender

    said = []
    async with connect(path) as store:
        append_one = appender(store.log)
        for number in range(int(events)):
            await asyncio.sleep(float(pause_seconds))
            done = await append_one(0, number)
            said.append(f"{done.last} {time.monotonic_ns()}")
    print("\n".join(said))


async def fold(path: str) -> None:
    """Fold the whole log into the costs, and say by how many bytes the process grew for it."""
    from projections import COSTS, rows

    async with connect(path, readonly=True) as store:
        await rows(store, COSTS, at=1)
        before = _peak_bytes()
        await rows(store, COSTS, at=(await store.log.head()).position)
        print(_peak_bytes() - before)


def _peak_bytes() -> int:
    """The most memory that this process had. What `getrusage` says begins with that of whoever
    started the process, so it is asked only where there is nothing else."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (each for each in status.read_text().splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_COMMANDS: dict[str, Callable[..., Coroutine[object, object, None]]] = {
    "chain": chain,
    "quiet-chain": quiet_chain,
    "resume": resume,
    "append": append,
    "fold": fold,
}

if __name__ == "__main__":
    asyncio.run(_COMMANDS[sys.argv[1]](*sys.argv[2:]))
