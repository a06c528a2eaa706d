"""`carstore salvage`: what can be trusted of a damaged file, in a new one."""

import json
import os
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TextIO

import click
from attrs import define, field

from carstore.errors import CarstoreError, CopyFailed
from carstore.names import Json
from carstore.placing import Placed, check_free, placed
from carstore.sqlite.salvage import Salvaged
from carstore.sqlite.salvage import salvage as salvage_file
from engine.cli.copies import Steps, tell_held
from engine.cli.errors import BadUsage
from engine.cli.options import database, json_option
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
        _check_place(listed, new)
    lines = _Lines(listed, database)
    with Steps() as steps, lines:
        found = salvage_file(
            database,
            new,
            open_runs=open_run,
            leftover=None if listed is None else lines.write,
            progress=steps,
        )
    if lines.failed is not None:
        kept = f"The new file {found.path} is made, up to position {found.head.position}."
        raise CopyFailed(lines.failed.path, lines.failed.reason, kept)
    if as_json:
        print_json(_json(found))
    else:
        _tell(found, listed)


def _check_place(listed: str, new: str) -> None:
    """Refuse a file that cannot be made, before anything else is."""
    if os.path.realpath(listed) == os.path.realpath(new):
        raise BadUsage("--list", f"{listed} is where the new file goes; name another one")
    folder = os.path.dirname(os.path.abspath(listed))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise BadUsage("--list", f"no file can be made in {folder}")
    check_free(os.path.abspath(listed), force=False)


@define
class _Lines:
    """Where events are listed; a file is made when there is one to list, and has its name when all
    of them are in it."""

    path: str | None
    database: str
    """Who may not read that, may not read the list."""
    failed: CopyFailed | None = None
    """Why there is no list, although there is a new file."""
    _open: ExitStack = field(factory=ExitStack, init=False)
    _made: Placed | None = field(default=None, init=False)
    _file: TextIO | None = field(default=None, init=False)

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._failing(), self._open:
            whole = kind is None and self.failed is None
            if whole and self._made is not None and self._file is not None:
                self._file.close()
                self._made.finish()

    def write(self, event: dict[str, Json]) -> None:
        """Add an event. If that fails, the others are not added any more."""
        if self.path is None or self.path == STANDARD:
            print_json_line(event)
        elif self.failed is None:
            with self._failing():
                self._to_write(self.path).write(json.dumps(event) + "\n")

    @contextmanager
    def _failing(self) -> Generator[None, None, None]:
        """Note what goes wrong: the new file is made all the same."""
        try:
            yield
        except (CarstoreError, OSError) as error:
            reason = error.message if isinstance(error, CarstoreError) else error.strerror
            self.failed = CopyFailed(self.path or STANDARD, reason or str(error))

    def _to_write(self, path: str) -> TextIO:
        if self._file is None:
            mode = stat.S_IMODE(os.stat(self.database).st_mode) & 0o666 | 0o200
            self._made = self._open.enter_context(placed(path, mode=mode))
            file = open(self._made.part, "w", encoding="ascii")  # noqa: SIM115 - see __exit__
            self._file = self._open.enter_context(file)
        return self._file


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
    tell_held(found.path, found.life, tell)


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
