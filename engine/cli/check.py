"""`carstore verify`, `rebuild` and `head`: whether the file holds what was written to it."""

import re
import sys
import time
from collections.abc import Callable

import click
from attrs import define

from carstore import connect
from carstore.errors import CarstoreError, CorruptLog, StoreFailed, UnknownEvent
from carstore.log import Head
from carstore.names import Json, Position
from carstore.sqlite.verify import verify as verify_log
from carstore.sqlite.verify import verify_file
from carstore.store import Store
from carstore.verification import Problem, Verification
from engine.cli.errors import BadUsage
from engine.cli.exits import Exit
from engine.cli.options import database, json_option, reading
from engine.cli.screen import print_json, say, table, text, write
from engine.cli.stopping import run_stoppable
from projections import LAZY, VIEWS, Rebuilt, compare
from projections import rebuild as rebuild_view

__all__ = ["head", "rebuild", "verify"]

SAY_SECONDS = 1.0
"""How often a long check says how far it is."""

_HEAD = re.compile(r"(\d{1,19})[: ]([0-9a-f]{64})\Z")


@click.command()
@database
@click.option(
    "--head",
    "known",
    metavar="POSITION:HASH",
    help="What `carstore head` printed at some time; proves that nothing up to there is lost.",
)
@json_option
def verify(database: str, known: str | None, as_json: bool) -> int:
    """Check all of DB: the chain of hashes, gaps, triggers, SQLite's own integrity, and the views.

    Nothing is written. Exit code 1 if anything is not as it must be.
    """
    found = run_stoppable(_verify(database, None if known is None else _parsed(known)))
    if as_json:
        print_json(_json(found))
        return Exit.DONE if found.ok else Exit.FAILED
    for problem in found.problems:
        at = "file" if problem.position is None else f"position {problem.position}"
        write(f"{at}: {problem.code}: {problem.message}")
    if found.ok:
        write(f"ok: {found.head.position:,} events, head {found.head.position} {found.head.hash}")
        return Exit.DONE
    write(f"{len(found.problems):,} problems")
    return Exit.FAILED


async def _verify(path: str, known: Head | None) -> Verification:
    progress = Progress("checked")
    try:
        async with reading(path) as store:
            found = await verify_log(store, head=known, progress=progress)
            problems = [*found.problems, *await _verify_views(store)]
            return Verification(not problems, found.head, tuple(problems))
    except (CorruptLog, StoreFailed):  # too damaged to be opened as a store; say what is wrong
        return verify_file(path, head=known, progress=progress)


async def _verify_views(store: Store) -> list[Problem]:
    problems = []
    for view in VIEWS:
        try:
            differences = await compare(store, view)
        except UnknownEvent:
            break  # the check of the log has told that
        except CarstoreError as error:
            message = f"view {view.name!r} cannot be compared with the log: {error.message}"
            problems.append(Problem(None, error.code, message))
        else:
            problems += [Problem(one.position, "view", one.message) for one in differences]
    return problems


def _parsed(known: str) -> Head:
    """The head that was kept.

    Raises:
        BadUsage
    """
    found = _HEAD.match(known.strip())
    if found is None:
        raise BadUsage("--head", "write it as POSITION:HASH, with a hash of 64 hex digits")
    return Head(Position(int(found[1])), found[2])


def _json(found: Verification) -> Json:
    return {
        "ok": found.ok,
        "head": {"position": found.head.position, "hash": found.head.hash},
        "problems": [
            {"position": one.position, "code": one.code, "message": one.message}
            for one in found.problems
        ],
    }


@click.command()
@database
@json_option
def rebuild(database: str, as_json: bool) -> None:
    """Make all views of DB anew from the log, and print the checksum of each.

    The old rows stay in use until the new ones are complete.
    """
    found = run_stoppable(_rebuild(database))
    if as_json:
        print_json([_rebuilt_json(one) for one in found])
    else:
        rows = [
            [text(one.view), text(f"{one.rows:,}"), text(one.position), text(one.checksum)]
            for one in found
        ]
        table(("VIEW", ">ROWS", ">POSITION", "CHECKSUM"), rows)


async def _rebuild(path: str) -> list[Rebuilt]:
    async with connect(path, create=False, instance="carstore rebuild") as store:
        return [
            await rebuild_view(store, view, progress=Progress(f"view {view.name}: folded"))
            for view in LAZY
        ]


def _rebuilt_json(one: Rebuilt) -> Json:
    return {
        "view": one.view,
        "position": one.position,
        "rows": one.rows,
        "checksum": one.checksum,
    }


@click.command()
@database
@json_option
def head(database: str, as_json: bool) -> None:
    """Print position and hash of the newest event.

    Kept elsewhere, it lets `carstore verify --head` prove later that nothing up to it was lost.
    """
    found = run_stoppable(_head(database))
    if as_json:
        print_json({"position": found.position, "hash": found.hash})
    else:
        write(f"{found.position} {found.hash}")


async def _head(path: str) -> Head:
    async with reading(path) as store:
        return await store.log.head()


@define
class Progress:
    """Says on standard error how far something long is; on a terminal, in one line."""

    what: str
    _said_at: float | None = None
    _clock: Callable[[], float] = time.monotonic

    def __call__(self, position: int, last: int) -> None:
        now = self._clock()
        if self._said_at is None:
            self._said_at = now
        if now - self._said_at < SAY_SECONDS:
            return
        self._said_at = now
        line = f"{self.what} {position:,} of {last:,} events"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            say(line)
