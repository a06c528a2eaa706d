"""Copies of a log: a backup of it, or another log that begins with its history.

`backup` and `export` make the same log once more, to be kept. `restore`, `fork` and `import_` make
another log out of it, which keeps the chain as it is and then goes its own way: it has an id of its
own, nobody holds a lease in it, and every run that was not finished waits until somebody accepts
that it goes on there (`carstore.sqlite.life`), since the origin may go on with it too.

All of them check what they have made, and make it under another name, so that a file is whole as
soon as it is there. None ever changes what it copies from.
"""

import io
import os
import sqlite3
import stat
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import BinaryIO, TypeAlias

from carstore.beside import Steps, beside_the_loop
from carstore.clock import Clock, SystemClock
from carstore.connect import connect
from carstore.errors import AlreadyThere, CopyFailed, NotFound
from carstore.holders import Processes, SystemProcesses
from carstore.jsonl import Reader
from carstore.log import Head
from carstore.origin import Cause, Copied, Life, OpenRun, OpenRuns, Origin, Progress
from carstore.pipes import Outflow, ahead, without_waiting
from carstore.placing import Placed, placed
from carstore.sqlite.copies import Tell, check, copy_events, copy_pages, opened, up_to_date
from carstore.sqlite.exchange import read_import, write_export
from carstore.sqlite.life import begin_life

PathLike: TypeAlias = str | os.PathLike[str]

_READ_ONLY, _WRITABLE = 0o444, 0o200

_LAST = 2**63 - 1
"""No position is larger: SQLite has no larger integers."""


async def backup(
    path: PathLike, copy: PathLike, *, force: bool = False, progress: Progress | None = None
) -> Copied:
    """Copy a log as it is at this moment, while others go on with it.

    The copy is the same log, so nobody may append to it: it is made read-only. To go on from it,
    `restore` it.

    Args:
        force: whether to replace a file that is there.

    Raises:
        AlreadyThere: there is a file `copy`.
        CopyFailed: it could not be made, or what was copied is damaged.
        NotFound, NotADatabase, SchemaTooNew, CorruptLog: of `path`.
    """

    def work(origin: str, tell: Tell) -> Copied:
        _check_differs(origin, copy)
        with _making(copy, force=force, mode=_mode_of(origin) & _READ_ONLY) as made:
            head = copy_pages(origin, made.part, tell)
            check(made.part, made.name, origin, head, tell)
            made.finish()
            return _copied(made.name, head)

    async with _origin(path) as origin:
        return await beside_the_loop(partial(work, origin), progress)


async def restore(
    copy: PathLike,
    new: PathLike,
    *,
    open_runs: OpenRuns,
    progress: Progress | None = None,
    clock: Clock | None = None,
    processes: Processes | None = None,
) -> Copied:
    """Make a log of its own from a backup, or from any log as it is at this moment.

    Args:
        open_runs: says what is open about an unfinished run: `engine.held.open_run`.

    Raises:
        AlreadyThere: there is a file `new`.
        CopyFailed, NotFound, NotADatabase, SchemaTooNew, CorruptLog
    """

    def make(origin: str, made: Placed, tell: Tell) -> Head:
        head = copy_pages(origin, made.part, tell)
        up_to_date(made.part)
        return head

    async with _origin(copy) as origin:
        begin = _Begin("restored", origin, open_runs, clock, processes)
        return await beside_the_loop(partial(_another, new, partial(make, origin), begin), progress)


async def fork(
    path: PathLike,
    new: PathLike,
    *,
    at: int,
    open_runs: OpenRuns,
    progress: Progress | None = None,
    clock: Clock | None = None,
    processes: Processes | None = None,
) -> Copied:
    """Make a log of its own from the events up to position `at`.

    Raises:
        NotFound: there is no such position.
        AlreadyThere, CopyFailed, NotADatabase, SchemaTooNew, CorruptLog
    """
    _check_position(at)

    def make(origin: str, made: Placed, tell: Tell) -> Head:
        return copy_events(origin, made.part, at, tell)

    async with _origin(path) as origin:
        begin = _Begin("forked", origin, open_runs, clock, processes)
        return await beside_the_loop(partial(_another, new, partial(make, origin), begin), progress)


async def export(
    path: PathLike,
    file: PathLike | BinaryIO,
    *,
    at: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Write a log, up to position `at` if that is given, as lines of JSON (`carstore.jsonl`).

    Args:
        file: where to; or something open, which is written to and not closed. If it is a pipe,
            opened without a buffer, the work ends also while nobody reads from it.
        force: whether to replace a file that is there.

    Raises:
        NotFound: there is no such position, or no file `path`.
        AlreadyThere, CopyFailed, NotADatabase, SchemaTooNew, CorruptLog
    """
    if at is not None:
        _check_position(at)

    def work(origin: str, tell: Steps) -> Copied:
        if not isinstance(file, str | os.PathLike):
            out = Outflow(file.fileno(), tell.check) if isinstance(file, io.RawIOBase) else file
            head = write_export(origin, out, at, tell)
            out.flush()
            return Copied(path="-", head=head, bytes=0)
        _check_differs(origin, file)
        with _making(file, force=force, mode=_mode_of(origin) | _WRITABLE) as made:
            with open(made.part, "wb") as opened_file:
                head = write_export(origin, opened_file, at, tell)
            made.finish()
            return _copied(made.name, head)

    async with _origin(path) as origin:
        return await beside_the_loop(partial(work, origin), progress)


async def import_(
    file: PathLike | BinaryIO,
    new: PathLike,
    *,
    open_runs: OpenRuns,
    progress: Progress | None = None,
    clock: Clock | None = None,
    processes: Processes | None = None,
) -> Copied:
    """Make a log of its own from lines of JSON, each of which is checked.

    Args:
        file: where from; or something open, which is read to its end and not closed. If it is a
            pipe, opened without a buffer, the work ends also while nobody writes to it.

    Raises:
        InvalidExport: with the first line that is not what was written; nothing is made then.
        NotFound: there is no such file.
        AlreadyThere, CopyFailed
    """
    source = _file_to_read(file)

    def make(made: Placed, tell: Steps) -> Head:
        if isinstance(file, str | os.PathLike):
            with open(file, "rb", buffering=0, opener=without_waiting) as opened_file:
                return read_import(
                    Reader(os.fspath(file), ahead(opened_file, tell.check)), made.part, tell
                )
        return read_import(Reader("standard input", ahead(file, tell.check)), made.part, tell)

    begin = _Begin("imported", source, open_runs, clock, processes)
    return await beside_the_loop(partial(_another, new, make, begin), progress)


# --- parts ---


class _Begin:
    """How the copy that is being made begins a life of its own."""

    def __init__(
        self,
        cause: Cause,
        origin: str | None,
        open_runs: OpenRuns,
        clock: Clock | None,
        processes: Processes | None,
    ) -> None:
        self.cause: Cause = cause
        self.origin = origin
        self._open_runs = open_runs
        self._clock = clock or SystemClock()
        self._processes = processes or SystemProcesses()

    @property
    def database(self) -> str | None:
        """What was copied, if it is a database."""
        return None if self.cause == "imported" else self.origin

    def life(self, made: Placed) -> Life:
        with opened(made.part) as connection:
            return begin_life(
                connection,
                made.name,
                cause=self.cause,
                origin_path=self.origin,
                open_runs=self._open_runs,
                clock=self._clock,
                holder=self._processes.current(f"carstore ({self.cause})"),
            )


def _another(
    new: PathLike, make: Callable[[Placed, Steps], Head], begin: _Begin, tell: Steps
) -> Copied:
    with _making(new) as made:
        if begin.origin is not None:
            made.mode = _mode_to_write(begin.origin, made.mode)
        head = make(made, tell)
        life = begin.life(made)
        check(made.part, made.name, begin.database, head, tell)
        made.finish()
        return _copied(made.name, life.head, life)


def _copied(name: str, head: Head, life: Life | None = None) -> Copied:
    return Copied(path=name, head=head, bytes=os.path.getsize(name), life=life)


@asynccontextmanager
async def _origin(path: PathLike) -> AsyncGenerator[str, None]:
    """The whole name of a file that can be read as a log; open, so that nothing that reading makes
    beside it is left there.

    Raises:
        NotFound, NotADatabase, SchemaTooNew, CorruptLog, ...: as `connect`.
    """
    _check_there(path)
    async with connect(path, create=False, readonly=True):
        yield _absolute(path)


def _check_there(path: PathLike) -> None:
    if not os.path.exists(path):
        raise NotFound("database", os.fspath(path), "Name the one that is to be copied.")


def _absolute(path: PathLike) -> str:
    return os.path.abspath(path)


def _mode_of(path: str) -> int:
    """Who may do what with a file: nobody may read a copy who may not read what it is made from."""
    return stat.S_IMODE(os.stat(path).st_mode) & 0o666


def _mode_to_write(origin: str, usual: int) -> int:
    """Who may do what with another log made from `origin`. From a file that is read-only for all,
    as a backup is, nobody learns who may write: those who may read it, as far as this process gives
    that to files.

    Args:
        usual: the permissions that this process gives to files.
    """
    mode = _mode_of(origin)
    if not mode & 0o222:
        mode = (mode | (mode & 0o444) >> 1) & usual
    return mode | _WRITABLE


def _check_position(at: int) -> None:
    if at < 1:
        raise NotFound("position", str(at), "The first one is 1.")
    if at > _LAST:
        raise NotFound("position", str(at), f"There is none after {_LAST}.")


def _file_to_read(file: PathLike | BinaryIO) -> str | None:
    """Its whole name; None: what is read has none that would say later where it came from."""
    if not isinstance(file, str | os.PathLike):
        return None
    if os.path.isdir(file):
        raise NotFound("file", os.fspath(file), "It is a folder.")
    if not os.path.exists(file):
        raise NotFound("file", os.fspath(file), "`carstore export` makes one.")
    return os.path.abspath(file) if os.path.isfile(file) else None


def _check_differs(origin: str, name: PathLike) -> None:
    """Refuse, also when forced, to replace what is copied."""
    if os.path.exists(name) and os.path.samefile(origin, name):
        raise AlreadyThere(os.fspath(name), "it is what was to be copied")


@contextmanager
def _making(
    name: PathLike, *, force: bool = False, mode: int | None = None
) -> Generator[Placed, None, None]:
    try:
        with placed(name, force=force, mode=mode) as made:
            yield made
    except sqlite3.Error as error:
        raise CopyFailed(os.fspath(name), f"SQLite: {error}") from error
    except UnicodeDecodeError as error:
        raise CopyFailed(os.fspath(name), f"a text is none: {error}") from error


__all__ = [
    "Cause",
    "Copied",
    "Life",
    "OpenRun",
    "OpenRuns",
    "Origin",
    "Progress",
    "backup",
    "export",
    "fork",
    "import_",
    "restore",
]
