"""What this process may do with a file, for errors that say why it cannot be opened."""

import os

from carstore.errors import CannotOpen, CarstoreError
from carstore.sqlite import wal


def refusal(error: CarstoreError, name: str, *, readonly: bool) -> CannotOpen | None:
    """What an error at opening `name` says of the rights of this process, if it does."""
    told = getattr(error.__cause__, "sqlite_errorname", "")
    if not told.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
        return None
    if not os.path.exists(name):
        hint = "Change that, or name a file in another place."
    elif readonly:
        hint = "Change that, or copy the file, with its -wal if it has one, to where you may."
    else:
        hint = (
            "Change that, or open it for reading only: connect(path, readonly=True), or a command "
            "that only asks."
        )
    reason = missing_right(name, readonly=readonly) or f"SQLite says: {error.__cause__}"
    return CannotOpen(name, reason, hint)


def kept(name: str) -> CannotOpen | None:
    """The refusal to write a file that is read-only for everybody, also for a user who may write
    anything: so `backup` keeps a copy, which is the same log and must not grow beside it."""
    if os.stat(name).st_mode & 0o222:
        return None
    return CannotOpen(
        name,
        "it is read-only, as a backup is",
        f"To go on from it, make a file of it: `carstore restore {name} NEW`. To read it: "
        "connect(path, readonly=True), or a command that only asks.",
    )


def missing_right(name: str, *, readonly: bool) -> str | None:
    """What this process would have to be allowed, to open `name` for reading or for writing too."""
    folder = os.path.dirname(os.path.abspath(name))
    if not os.path.exists(name):
        return None if _may(folder, os.W_OK) else f"this process may not write the folder {folder}"
    if not _may(name, os.R_OK):
        return "this process may not read it"
    if not readonly and not _may(name, os.W_OK):
        return "this process may not write it"
    if readonly and not wal.holds_something(name):
        return None
    for path in (f"{name}-wal", f"{name}-shm"):
        if os.path.exists(path) and not _may(path, os.R_OK if readonly else os.W_OK):
            return f"this process may not {'read' if readonly else 'write'} {path}"
    if _may(folder, os.W_OK):
        return None
    what = "which it must to read the WAL that is there" if readonly else "where its WAL is kept"
    return f"this process may not write the folder {folder}, {what}"


def _may(path: str, right: int) -> bool:
    return os.access(path, right, effective_ids=os.access in os.supports_effective_ids)
