"""`carstore backup`, `restore`, `fork`, `export` and `import`: copies of a whole log."""

import io
import sys
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Literal

import click

from carstore import copies
from carstore.names import Json
from carstore.origin import Copied, Life
from engine.cli.errors import BadUsage
from engine.cli.leaving import silence
from engine.cli.meter import Meter
from engine.cli.options import command_line, database, json_option
from engine.cli.screen import print_json, say, write
from engine.cli.stopping import run_stoppable
from engine.held import open_run

__all__ = ["Steps", "backup", "export", "fork", "import_", "restore", "tell_held"]

STANDARD = "-"
"""For a file: standard output, or input."""

_POSITION = click.IntRange(1, 2**63 - 1)
"""Of an event. SQLite has no larger integers."""

_new = click.argument("new", metavar="NEW", type=click.Path())
_force = click.option("--force", is_flag=True, help="Replace a file that is there.")


@click.command()
@database
@click.argument("copy", metavar="COPY", type=click.Path())
@_force
@json_option
def backup(database: str, copy: str, force: bool, as_json: bool) -> None:
    """Copy DB to COPY while others go on writing to it, and check all of the copy.

    COPY is the same log, so it is made read-only: what would be appended to it is lost to DB. To go
    on from it, restore it.
    """
    with Steps() as steps:
        made = run_stoppable(copies.backup(database, copy, force=force, progress=steps))
    _tell(made, as_json=as_json)


@click.command()
@click.argument("copy", metavar="COPY", type=click.Path())
@_new
@json_option
def restore(copy: str, new: str, as_json: bool) -> None:
    """Make the database NEW from the backup COPY.

    NEW is a log of its own: runs that had not finished wait, as `carstore resume --accept-copy`
    tells.
    """
    with Steps() as steps:
        made = run_stoppable(copies.restore(copy, new, open_runs=open_run, progress=steps))
    _tell(made, as_json=as_json)


@click.command()
@database
@_new
@click.option(
    "--at",
    type=_POSITION,
    metavar="N",
    required=True,
    help="The last position that NEW has in common with DB.",
)
@json_option
def fork(database: str, new: str, at: int, as_json: bool) -> None:
    """Make the database NEW from what had happened in DB up to a position.

    NEW is a log of its own: runs that had not finished by then wait, as `carstore resume
    --accept-copy` tells.
    """
    with Steps() as steps:
        made = run_stoppable(copies.fork(database, new, at=at, open_runs=open_run, progress=steps))
    _tell(made, as_json=as_json)


@click.command()
@database
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--at", type=_POSITION, metavar="N", help="Only the events up to position N.")
@_force
@json_option
def export(database: str, file: str, at: int | None, force: bool, as_json: bool) -> None:
    """Write DB to FILE, or - for standard output, as lines of JSON.

    They hold everything but the views, with all that the hashes cover.
    """
    if file == STANDARD and as_json:
        raise BadUsage("--json", "standard output gets the lines; name a file")
    with Steps() as steps:
        try:
            made = run_stoppable(
                copies.export(database, _output(file), at=at, force=force, progress=steps)
            )
        except BrokenPipeError:
            silence(sys.stdout)
            return
    if file == STANDARD:
        say(_line("Written", made))
    else:
        _tell(made, as_json=as_json)


@click.command(name="import")
@click.argument("file", metavar="FILE", type=click.Path())
@_new
@json_option
def import_(file: str, new: str, as_json: bool) -> None:
    """Make the database NEW from what `carstore export` wrote to FILE, or - for standard input.

    Every line is checked; from a file that was cut or changed nothing is made. NEW is a log of its
    own, as after `carstore restore`.
    """
    with Steps() as steps:
        made = run_stoppable(copies.import_(_input(file), new, open_runs=open_run, progress=steps))
    _tell(made, as_json=as_json)


def _input(file: str) -> str | BinaryIO:
    return _unbuffered(sys.stdin.buffer, "rb") if file == STANDARD else file


def _output(file: str) -> str | BinaryIO:
    return _unbuffered(sys.stdout.buffer, "wb") if file == STANDARD else file


def _unbuffered(stream: BinaryIO, mode: Literal["rb", "wb"]) -> BinaryIO:
    """The file behind a stream of which nothing was used so far; the stream itself if there is no
    such file."""
    try:
        return open(stream.fileno(), mode, buffering=0, closefd=False)
    except io.UnsupportedOperation:
        return stream


def _tell(made: Copied, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(made))
    else:
        write(_line(f"Made {made.path}", made))
        if made.life is not None:
            write(f"It is log {made.life.log_id}, epoch {made.life.epoch}.")
    if made.life is not None:
        tell_held(made.path, made.life, say if as_json else write)


def tell_held(path: str, life: Life, tell: Callable[[str], None]) -> None:
    """Tell of the runs that wait in a log that was just made, and what to do."""
    if not life.held:
        return
    count = len(life.held)
    runs = "1 run was" if count == 1 else f"{count:,} runs were"
    tell(
        f"{runs} not finished. The origin may go on there, so here nothing is called until you "
        "accept that this copy goes on too."
    )
    tell(f"Next: {command_line('resume', path)}")


def _line(what: str, made: Copied) -> str:
    size = f", {made.bytes:,} bytes" if made.bytes else ""
    return (
        f"{what}: {made.head.position:,} events{size}, head {made.head.position} {made.head.hash}"
    )


def _json(made: Copied) -> Json:
    document: dict[str, Json] = {
        "path": made.path,
        "position": made.head.position,
        "hash": made.head.hash,
        "bytes": made.bytes,
    }
    if made.life is not None:
        document |= {
            "log_id": made.life.log_id,
            "epoch": made.life.epoch,
            "origin": made.life.origin.to_json(),
            "held": list(made.life.held),
        }
    return document


class Steps:
    """Says how far each part of the work is."""

    def __init__(self) -> None:
        self._what = ""
        self._meter: Meter | None = None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._meter is not None:
            self._meter.__exit__(kind, error, trace)

    def __call__(self, what: str, done: int, last: int) -> None:
        if what != self._what or self._meter is None:
            self.__exit__(None, None, None)
            unit, _, doing = what.partition(" ")
            self._what, self._meter = what, Meter(f"copy: {doing}", unit)
        self._meter(done, last)
