"""A process that consumes a log, to be killed: `python -m tests.carstore.consuming LOG ROWS NAME`.

Each event becomes a row, without any check whether it is there already.
"""

import asyncio
import random
import sqlite3
import sys
import time

from carstore import Recorded, connect
from carstore.consumer import consumer

ROWS = "CREATE TABLE IF NOT EXISTS applied (position INTEGER, pid INTEGER)"


def apply(connection: sqlite3.Connection, recorded: Recorded) -> None:
    import os

    connection.execute(ROWS)
    connection.execute("INSERT INTO applied VALUES (?, ?)", (recorded.position, os.getpid()))
    if random.random() < 0.02:
        time.sleep(0.001)


async def main(log: str, rows: str, name: str) -> None:
    async with (
        connect(log, readonly=True) as store,
        consumer(store, rows, name, kinds=["action_validated"]) as made,
    ):
        print("ready", flush=True)
        await made.run(apply)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
