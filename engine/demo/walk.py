"""What a folder holds, as far as the demonstration looks: bounded, by name, links left out."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

from engine.demo.languages import is_left_out

__all__ = ["FoundFile", "LeftOut", "Listing", "list_folder"]

MAX_FILES = 400
"""Files that are looked into: some seconds of work, and a plan that can still be read."""

MAX_ENTRIES = 20_000
"""Names that are looked at to count files: under a second, also at the root of a machine."""

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Bytes of a file that is read; a tool holds it whole."""

MAX_TOTAL_BYTES = 128 * 1024 * 1024
"""Bytes of all files together: a second of hashing."""

MAX_LEFT_OUT = 50
"""Files left out that are named; further ones are only counted."""


@frozen
class FoundFile:
    """A file to look into."""

    path: str
    """Relative to the folder, with slashes."""
    bytes: int


@frozen
class LeftOut:
    """Something that is not looked into, and why."""

    path: str
    reason: str


@define(kw_only=True)
class Listing:
    """What was found in a folder."""

    root: str
    """The folder, absolute."""
    files: list[FoundFile] = field(factory=list)
    left_out: list[LeftOut] = field(factory=list)
    left_out_count: int = 0
    seen: int = 0
    """All files met, looked into or not."""
    is_cut: bool = False
    """Whether the folder holds more names than were looked at."""
    total_bytes: int = 0

    def leave_out(self, path: str, reason: str) -> None:
        """Note that a file is not looked into."""
        self.left_out_count += 1
        if len(self.left_out) < MAX_LEFT_OUT:
            shown = path.encode("utf-8", "backslashreplace").decode()
            self.left_out.append(LeftOut(shown, reason))

    @property
    def beyond(self) -> int:
        """Files met beyond the `MAX_FILES` that are looked into."""
        return self.seen - len(self.files) - self.left_out_count


def list_folder(root: Path, *, without: Path | None = None) -> Listing:
    """What `root` holds, by name, folders after the files next to them.

    Args:
        without: a folder that is passed over, with all in it.

    Raises:
        OSError: `root` itself cannot be read.
    """
    listing = Listing(root=str(root.resolve()))
    avoided = None if without is None else str(without.resolve())
    folders = [listing.root]
    looked_at = 0
    while folders:
        folder = folders.pop()
        below: list[str] = []
        for entry in _entries(folder, listing):
            if looked_at == MAX_ENTRIES:
                listing.is_cut = True
                return listing
            looked_at += 1
            if not entry.is_dir(follow_symlinks=False):
                _look_at(entry, listing)
            elif not is_left_out(entry.name) and entry.path != avoided:
                below.append(entry.path)
        folders.extend(reversed(below))
    return listing


def _entries(folder: str, listing: Listing) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            # No more than may be looked at: a folder can hold millions.
            entries = [entry for entry, _ in zip(found, range(MAX_ENTRIES + 1), strict=False)]
    except OSError as error:
        if folder == listing.root:
            raise
        listing.seen += 1
        listing.leave_out(_relative(folder, listing), f"folder: {error.strerror}")
        return
    yield from sorted(entries, key=lambda entry: entry.name)


def _look_at(entry: "os.DirEntry[str]", listing: Listing) -> None:
    path = _relative(entry.path, listing)
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        listing.seen += 1
        listing.leave_out(path, str(error.strerror))
        return
    if stat.S_ISLNK(status.st_mode):
        return
    listing.seen += 1
    if not stat.S_ISREG(status.st_mode):
        listing.leave_out(path, "no regular file")
    elif not _is_unicode(path):
        listing.leave_out(path, "its name is not Unicode")
    elif status.st_size > MAX_FILE_BYTES:
        listing.leave_out(path, f"{status.st_size:,} bytes")
    elif len(listing.files) >= MAX_FILES:
        pass
    elif listing.total_bytes + status.st_size > MAX_TOTAL_BYTES:
        listing.leave_out(path, f"all files together have over {MAX_TOTAL_BYTES:,} bytes")
    else:
        listing.total_bytes += status.st_size
        listing.files.append(FoundFile(path, status.st_size))


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _relative(path: str, listing: Listing) -> str:
    return os.path.relpath(path, listing.root).replace(os.sep, "/")
