"""`carstore doctor`: what the file and its surroundings are like, and what to do about it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from carstore import Store
from carstore.errors import CarstoreError
from carstore.names import Json, RunId
from carstore.sqlite.doctor import examine
from carstore.sqlite.findings import MAX_NAMED, Finding, named
from engine.cli.exits import Exit
from engine.cli.options import command_line, database, json_option, reading
from engine.cli.runs import driver_of
from engine.cli.screen import print_json, show, text, write
from engine.cli.stopping import run_stoppable
from engine.held import is_held
from projections import RUNS, Standing, rows, standings
from projections.kept import table_names

__all__ = ["doctor", "judge_runs", "judge_tables", "judge_views"]

FAR_BEHIND = 100_000
"""Events a view is behind that take a while, about two seconds, when somebody asks for it."""

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "fault": "bold red"}
_BAD = ("warning", "fault")
_LEFT_OVER = re.compile(r"view_.+_v\d+_new_[0-9a-f]{8}\Z")


@click.command()
@database
@click.option(
    "--deep", is_flag=True, help="Also let SQLite go through the whole file; takes its time."
)
@json_option
def doctor(database: str, deep: bool, as_json: bool) -> int:
    """Look at DB, its WAL, its place and whoever uses it, and say what to do.

    It works on damaged and on foreign files too, and changes nothing. Exit code 1 if there is a
    warning or a fault. Whether the events are what was written is told by `carstore verify`.
    """
    found = [*examine(database, deep=deep), *run_stoppable(_inside(database))]
    if as_json:
        print_json([_json(one) for one in found])
    else:
        for one in found:
            show(text(f"{one.level:<8}", _STYLES[one.level]) + text(f"{one.code}: {one.what}"))
            if one.do:
                write(f"          do: {one.do}")
        write(_summary(found))
    return Exit.FAILED if any(one.level in _BAD for one in found) else Exit.DONE


def _json(one: Finding) -> Json:
    return {"code": one.code, "level": one.level, "what": one.what, "do": one.do}


def _summary(found: Sequence[Finding]) -> str:
    counts = Counter(one.level for one in found)
    parts = [
        f"{counts[level]} {level}{'s' if counts[level] != 1 else ''}"
        for level in ("fault", "warning", "note")
        if counts[level]
    ]
    return ", ".join(parts) if parts else "all is well"


async def _inside(path: str) -> list[Finding]:
    """What the events and the views say; needs a file that can be opened as a store."""
    try:
        async with reading(path) as store:
            found = [judge_runs(path, await _unfinished(store))]
            found.append(judge_views(path, await standings(store)))
            found.append(judge_tables(path, await store.database.read(table_names)))
            return found
    except CarstoreError as error:
        what = f"what is in the file cannot be told: {error.message}"
        return [Finding("runs", "note", what, "See the faults above.")]


async def _unfinished(store: Store) -> dict[str, list[str]]:
    """The runs that have not ended: `driven` by a process, `stopped`, `waiting`, `held`."""
    found: dict[str, list[str]] = {"driven": [], "stopped": [], "waiting": [], "held": []}
    for run in (await rows(store, RUNS)).values():
        if run.status == "running":
            driver = await driver_of(store, run.run_id, run.status)
            found["stopped" if driver is None else "driven"].append(run.run_id)
        elif run.status == "waiting":
            is_copy = await is_held(store, RunId(run.run_id))
            found["held" if is_copy else "waiting"].append(run.run_id)
    return found


def judge_runs(path: str, unfinished: dict[str, list[str]]) -> Finding:
    """What is to be done so that all runs come to an end."""
    driven, stopped, waiting, held = (
        unfinished[name] for name in ("driven", "stopped", "waiting", "held")
    )
    parts, todo = [], []
    if stopped:
        parts.append(f"stopped in the middle: {named(stopped)}")
        todo.append(command_line("resume", path, "--tools", "FILE_OR_MODULE"))
    if waiting:
        parts.append(f"waiting for a person: {named(waiting)}")
        todo.append(command_line("doubts", path))
    if held:
        parts.append(f"held, since the file is a copy: {named(held)}")
        runs = held if len(held) <= MAX_NAMED else []  # none named: all that have not finished
        todo.append(
            command_line("resume", path, *runs, "--tools", "FILE_OR_MODULE", "--accept-copy")
        )
    if not parts:
        return Finding("runs", "ok", f"{len(driven)} under way, none stopped or waiting")
    return Finding("runs", "note", "; ".join(parts), "; ".join(todo))


def judge_views(path: str, found: Sequence[Standing]) -> Finding:
    """Whether the stored rows of the views can be used, and how far they are."""
    known = [one for one in found if one.known]
    damaged = [one.name for one in known if one.status == "damaged"]
    if damaged:
        todo = [command_line("rebuild", path, "--view", name) for name in damaged[:MAX_NAMED]]
        what = f"the stored rows cannot be used of: {named(damaged)}"
        return Finding("views", "warning", what, "; ".join(todo))
    stopped = {one.name: one.stopped_by for one in known if one.stopped_by is not None}
    if stopped:
        what = f"they cannot go on: {named(list(stopped))}"
        event = next(iter(stopped.values()))
        return Finding("views", "warning", what, event.message)
    behind = [
        f"{one.name} by {one.behind:,}"
        for one in known
        if one.status in ("complete", "building") and (one.behind or 0) > FAR_BEHIND
    ]
    if behind:
        what = f"far behind, so that the next who asks for them waits: {named(behind)}"
        return Finding("views", "note", what, command_line("rebuild", path))
    stored = sum(one.status != "not stored" for one in known)
    return Finding("views", "ok", f"{stored} of {len(known)} are stored, none is far behind")


def judge_tables(path: str, names: Sequence[str]) -> Finding:
    """Whether a rebuild that was killed has left a table."""
    left = list(_left_over(names))
    if not left:
        return Finding("tables", "ok", "no rebuild has left anything")
    what = f"left of a rebuild that is under way, or was killed: {named(left)}"
    return Finding("tables", "note", what, f"{command_line('rebuild', path)} removes them.")


def _left_over(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if _LEFT_OVER.match(name):
            yield name
