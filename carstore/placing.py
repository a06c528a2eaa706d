"""A file that appears under its name when it is whole, or not at all.

It is made under another name in the same folder, synced, and only then given its own, which is one
step of the file system. What a killed process leaves is called `NAME.XXXXXXXX.part`.
"""

import os
import stat
import sys
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress

from attrs import define

from carstore.errors import AlreadyThere, CopyFailed, NotFound
from carstore.sqlite.locks import locks_of, processes_of

_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""

_READ = ("-wal", "-journal")
"""Those that would be taken for a part of a new database if another one has left them."""


@define
class Placed:
    """A file in the making."""

    name: str
    """What it will be called."""
    part: str
    """What it is called until it is whole."""
    force: bool
    mode: int
    """Its permissions in the end. Until then only its owner has any."""

    def finish(self) -> None:
        """Make it durable and give it its name.

        Raises:
            AlreadyThere: something has got that name meanwhile.
            OSError
        """
        _sync(self.part)
        os.chmod(self.part, self.mode)
        check_free(self.name, force=self.force)
        if self.force:
            os.replace(self.part, self.name)
        else:
            self._link()
        _sync(os.path.dirname(self.name))

    def _link(self) -> None:
        try:
            os.link(self.part, self.name)  # refuses, as a rename does not, if there is something
        except FileExistsError:
            raise AlreadyThere(self.name) from None
        except OSError:  # a file system without links
            os.rename(self.part, self.name)
        else:
            os.unlink(self.part)


@contextmanager
def placed(
    name: str | os.PathLike[str], *, force: bool = False, mode: int | None = None
) -> Generator[Placed, None, None]:
    """Make a file in the `with` block, which begins with an empty one and ends with `finish`; or
    nothing is left.

    Args:
        mode: its permissions; None: as the process makes files.

    Raises:
        AlreadyThere: there is something of that name, and it is not forced; or it is a database
            that is open.
        NotFound: there is no such folder.
        CopyFailed: the file cannot be made.
    """
    path = os.path.abspath(name)
    if not os.path.isdir(os.path.dirname(path)):
        raise NotFound("folder", os.path.dirname(path), f"Make it before making {os.fspath(name)}.")
    check_free(path, force=force)
    found = Placed(path, f"{path}.{uuid.uuid4().hex[:8]}.part", force, 0o600)
    try:
        usual = _begin(found.part)
        found.mode = usual if mode is None else mode
        yield found
    except OSError as error:
        reason = error.strerror or str(error)
        raise CopyFailed(path, reason) from error
    finally:
        for end in ("", *_BESIDE):
            with suppress(FileNotFoundError):
                os.unlink(found.part + end)


def _begin(part: str) -> int:
    """Make the file, for its owner alone, and return the permissions that it would have had."""
    opened = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        usual = stat.S_IMODE(os.fstat(opened).st_mode)
        os.fchmod(opened, 0o600)
    finally:
        os.close(opened)
    return usual


def check_free(path: str, *, force: bool) -> None:
    """Raise `AlreadyThere` unless a file can be made at `path`."""
    if os.path.isdir(path):
        raise AlreadyThere(path, "it is a folder")
    if os.path.lexists(path) and not force:
        raise AlreadyThere(path)
    for end in _READ:
        with suppress(FileNotFoundError):
            if os.stat(path + end).st_size:
                reason = "it is left from another database, and would be taken for a part of this"
                raise AlreadyThere(path + end, reason)
    _check_not_open(path, force=force)


def _check_not_open(path: str, *, force: bool) -> None:
    """Refuse to put a file in the place of a database that is open: whoever has it open would go on
    with what lies beside it, which then belongs to another file."""
    index = f"{path}-shm"
    names = [*processes_of(locks_of(index)).values()]
    if names:
        raise AlreadyThere(path, f"it is open in {', '.join(names)}")
    if force and os.path.lexists(index):  # not every system says who has it open, nor of everybody
        reason = "a database that is open has one; if nobody has this one open, delete it"
        raise AlreadyThere(index, reason)


def _sync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
        if sys.platform == "darwin":  # where that leaves it in the cache of the disk
            import fcntl

            fcntl.fcntl(opened, fcntl.F_FULLFSYNC)
    finally:
        os.close(opened)


__all__ = ["Placed", "check_free", "placed"]
