"""`carstore salvage`: what can be trusted of a damaged file, in a new one."""

import json
import os
from types import TracebackType
from typing import TextIO

import click
from attrs import define

from carstore.names import Json
from carstore.placing import check_free
from carstore.sqlite.salvage import Salvaged
from carstore.sqlite.salvage import salvage as salvage_file
from engine.cli.copies import Steps
from engine.cli.errors import BadUsage
from engine.cli.options import command_line, database, json_option
from engine.cli.screen import print_json, print_json_line, say, write
from engine.held import open_run

__all__ = ["salvage"]

_WAYS = {
    "without_wal": "The WAL is left out: more can be proven without it.",
    "pages": "SQLite does not find all of it: its pages were searched one by one.",
}

STANDARD = "-"
"""For a file: standard output."""


@click.command()
@database
@click.argument("new", metavar="NEW", type=click.Path())
@click.option(
    "--list",
    "listed",
    metavar="FILE",
    help="Write the events that are not trusted to FILE, or - for standard output, as JSON lines.",
)
@json_option
def salvage(database: str, new: str, listed: str | None, as_json: bool) -> None:
    """Copy the beginning of a damaged DB, as far as it is proven, to a new file NEW.

    Events up to the first that is missing, unreadable or changed are copied as they are. NEW is a
    log of its own: runs that had not finished wait, as `carstore resume --accept-copy` tells. DB is
    not changed.
    """
    if listed == STANDARD and as_json:
        raise BadUsage("--list", "- and --json both want standard output; name a file")
    if listed is not None and listed != STANDARD:
        _check_place(listed)
    with Steps() as steps, _Lines(listed) as lines:
        found = salvage_file(
            database,
            new,
            open_runs=open_run,
            leftover=None if listed is None else lines.write,
            progress=steps,
        )
    if as_json:
        print_json(_json(found))
    else:
        _tell(found, listed)


def _check_place(listed: str) -> None:
    """Refuse a file that cannot be made, before anything else is."""
    folder = os.path.dirname(os.path.abspath(listed))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise BadUsage("--list", f"no file can be made in {folder}")
    check_free(os.path.abspath(listed), force=False)


@define
class _Lines:
    """Where events are listed; a file is made when there is one to list."""

    path: str | None
    _file: TextIO | None = None

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, event: dict[str, Json]) -> None:
        if self.path is None or self.path == STANDARD:
            print_json_line(event)
            return
        if self._file is None:
            self._file = open(self.path, "x", encoding="ascii")  # noqa: SIM115 - see __exit__
        self._file.write(json.dumps(event) + "\n")


def _tell(found: Salvaged, listed: str | None) -> None:
    tell = say if listed == STANDARD else write
    head = found.head
    tell(f"Made {found.path}: {head.position:,} events, the last {head.position} {head.hash}")
    tell(f"It is log {found.life.log_id}, epoch {found.life.epoch}.")
    if found.way != "whole":
        tell(_WAYS[found.way])
    if found.problem is None:
        tell(
            "All events of the log are in it. Whether some were lost from its end, a head that was"
        )
        tell("kept elsewhere would tell.")
    else:
        tell(f"It ends before the first that is not proven: {found.problem.message}.")
        place = f"; they are in {listed}" if listed not in (None, STANDARD) else ""
        hint = "" if listed is not None else "; --list writes them down"
        tell(f"{found.untrusted:,} later events can be read, and are not trusted{place}{hint}.")
    if found.values_lost:
        tell(
            f"{found.values_lost:,} values beside the log are lost; each is recorded as forgotten."
        )
    if found.life.held:
        tell(
            f"{len(found.life.held):,} runs were not finished. They wait until you accept that "
            "they go on in the new file."
        )
        tell(f"Next: {command_line('resume', found.path)}")


def _json(found: Salvaged) -> Json:
    problem = found.problem
    return {
        "path": found.path,
        "position": found.head.position,
        "hash": found.head.hash,
        "problem": None
        if problem is None
        else {"position": problem.position, "code": problem.code, "message": problem.message},
        "untrusted": found.untrusted,
        "way": found.way,
        "values": found.values,
        "values_lost": found.values_lost,
        "log_id": found.life.log_id,
        "epoch": found.life.epoch,
        "held": list(found.life.held),
    }
