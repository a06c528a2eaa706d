"""A program of the time of schema 1, as far as this one can play it: a process of its own.

    python -m tests.carstore.older_program FILE

It keeps FILE open and follows it, and does what it is told: a word on each line of its standard
input, answered by a line of JSON.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from carstore import Recorded, Store, connect
from carstore.errors import CarstoreError
from carstore.events import KINDS, SCHEMA_VERSIONS, BlobForgotten, CopyAccepted, RedactionDeclared
from projections import COSTS, RUNS, STATE, rows
from projections.memory import checksum
from tests.carstore.helpers import step

SCHEMA = 1


def forget_what_came_later() -> None:
    """Leave this process with the schema, the kinds and the shapes of the older program."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("carstore", "projections")) and hasattr(module, "SCHEMA"):
            vars(module)["SCHEMA"] = SCHEMA
    for kind in (BlobForgotten.kind, RedactionDeclared.kind, CopyAccepted.kind):
        del KINDS[kind], SCHEMA_VERSIONS[kind]


async def follow(store: Store, seen: list[Recorded]) -> None:
    async for recorded in store.log.follow():
        seen.append(recorded)  # noqa: PERF401 - read while it grows


async def obey(word: str, store: Store, seen: list[Recorded]) -> Any:
    match word:
        case "append":
            return (await store.log.append(step())).first
        case "read":
            return [recorded.position async for recorded in store.log.read()]
        case "views":
            return {v.name: checksum(v, await rows(store, v)) for v in (STATE, RUNS, COSTS)}
        case "followed":
            return [seen[-1].position, seen[-1].kind, len(seen)] if seen else [0, "", 0]
        case "event":
            return seen[-1].event.kind
    raise ValueError(word)


async def main(path: str) -> None:
    forget_what_came_later()
    seen: list[Recorded] = []
    async with connect(path, durability="crash", create=False) as store:
        following = asyncio.create_task(follow(store, seen))
        while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
            try:
                answer = {"done": await obey(word, store, seen)}
            except CarstoreError as error:
                answer = {"code": error.code, "message": error.message}
            print(json.dumps(answer), flush=True)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
