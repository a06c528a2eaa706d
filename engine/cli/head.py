"""`carstore head`: where the log ends."""

import click

from carstore.chain import GENESIS
from carstore.log import Head
from carstore.names import Position
from engine.cli.options import at_option, check_at, database, json_option, reading
from engine.cli.screen import print_json, write
from engine.cli.stopping import run_stoppable

__all__ = ["head"]


@click.command()
@database
@at_option
@json_option
def head(database: str, at: int | None, as_json: bool) -> None:
    """Print position and hash of the newest event.

    Kept elsewhere, it lets `carstore verify --head` prove later that nothing up to it was lost.
    """
    found = run_stoppable(_head(database, at))
    if as_json:
        print_json({"position": found.position, "hash": found.hash})
    else:
        write(f"{found.position} {found.hash}")


async def _head(path: str, at: int | None) -> Head:
    async with reading(path) as store:
        await check_at(store, at)
        if at is None:
            return await store.log.head()
        async for recorded in store.log.read(after=at - 1, until=at):
            return Head(recorded.position, recorded.hash)
        return Head(Position(0), GENESIS)
