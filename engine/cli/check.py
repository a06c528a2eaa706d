"""`carstore verify`: whether the file holds what was written to it."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import click
from attrs import evolve

from carstore.errors import CarstoreError, CorruptLog, NotADatabase, StoreFailed, UnknownEvent
from carstore.log import Head
from carstore.names import Json, Position
from carstore.origin import Progress
from carstore.sqlite.proven import best_proof
from carstore.sqlite.verify import verify as verify_log
from carstore.sqlite.verify import verify_file
from carstore.store import Store
from carstore.verification import Problem, Verification
from engine.cli.errors import BadUsage
from engine.cli.exits import Exit
from engine.cli.meter import Meter
from engine.cli.options import all_views, database, json_option, reading, views_option
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.screen import print_json, write
from engine.cli.stopping import run_stoppable
from projections import View, compare
from projections.search_index import NAME as SEARCH
from projections.search_rebuild import compare_search

__all__ = ["verify"]

_HEAD = re.compile(r"(\d{1,19})[: ]([0-9a-f]{64})\Z")


@click.command()
@database
@click.option(
    "--head",
    "known",
    metavar="POSITION:HASH",
    help="What `carstore head` printed at some time; proves that nothing up to there is lost.",
)
@views_option
@json_option
def verify(database: str, known: str | None, views_file: str | None, as_json: bool) -> int:
    """Check all of DB: the chain of hashes, gaps, triggers, SQLite's own integrity, and the views.

    Nothing is written. Exit code 1 if anything is not as it must be.
    """
    kept = None if known is None else _parsed(known)
    with tools_print_to_stderr():
        found = run_stoppable(_verify(database, kept, all_views(views_file)))
    if as_json:
        print_json(_json(found))
        return Exit.DONE if found.ok else Exit.FAILED
    for problem in found.problems:
        at = "file" if problem.position is None else f"position {problem.position}"
        write(f"{at}: {problem.code}: {problem.message}")
    if found.ok:
        write(f"ok: {found.head.position:,} events, head {found.head.position} {found.head.hash}")
        return Exit.DONE
    count = len(found.problems)
    write(f"{count:,} problem{'' if count == 1 else 's'}")
    return Exit.FAILED


async def _verify(path: str, known: Head | None, views: Sequence[View[Any, Any]]) -> Verification:
    with Meter("checked") as progress:
        try:
            async with reading(path) as store:
                found = await verify_log(store, head=known, progress=progress)
                problems = [*found.problems, *await _verify_views(store, views)]
                return Verification(not problems, found.head, tuple(problems))
        except (CorruptLog, StoreFailed):  # too damaged to be opened; say what is wrong
            return verify_file(path, head=known, progress=progress)
        except NotADatabase:
            found = verify_file(path, head=known, progress=progress)
            if found.head.position > 0:
                return found  # it is one, but for its mark
            count = _events_in_pages(path, lambda _, at, last: progress(at, last))
            if count == 0:
                raise
            message = (
                f"its pages hold {count:,} events, proven from the first on; `carstore salvage` "
                "looks through them and copies what it finds"
            )
            return evolve(found, problems=(*found.problems, Problem(None, "unreadable", message)))


def _events_in_pages(path: str, progress: Progress) -> int:
    """How many events stand, proven, in the pages of a file that SQLite takes for none of its own.

    Raises:
        SchemaTooNew, UnknownEvent: a newer carstore wrote it.
    """
    try:
        with best_proof(path, progress) as proof:
            return proof.count
    except OSError:
        return 0


async def _verify_views(store: Store, views: Sequence[View[Any, Any]]) -> list[Problem]:
    checks = [(view.name, partial(compare, store, view)) for view in views]
    checks.append((SEARCH, partial(compare_search, store)))
    problems = []
    for name, check in checks:
        try:
            with Meter(f"view {name}: compared") as meter:
                differences = await check(progress=meter)
        except UnknownEvent:
            continue  # the check of the log has told that
        except CarstoreError as error:
            message = f"view {name!r} cannot be compared with the log: {error.message}"
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
