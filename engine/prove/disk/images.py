"""What a disk may hold after power was lost.

What was synced is there. Of the rest, a disk promises nothing, and neither do file systems in
general (POSIX): so an image takes a choice for each thing that was not synced.

* A write is cut at multiples of 512 bytes, and each piece is there or not. A piece that is there
  is there as a whole: SQLite relies on that ("powersafe overwrite"), and no disk of today breaks
  it. Pieces that are there are applied in their order; where a file was made longer and nothing is
  there, it reads zeros.
* A truncation is there or not.
* That a name appears, changes or goes is there or not until its folder is synced: of the changes to
  one name the first so many. What is under a name that is not there is gone; syncing a file says
  nothing about its name.

Within a program the order of these matters no more than on a disk: only syncs order anything.
"""

import random
from collections.abc import Callable

from attrs import define, field

from engine.prove.disk.trace import Operation

__all__ = ["SECTOR", "VanishingDisk"]

SECTOR = 512
"""Bytes that are written whole or not at all."""

Keep = Callable[[], bool]
"""Decides of one thing that was not synced whether it is there."""


@define(eq=False)
class _File:
    """What is behind a name: content that is there for sure, and what was done since."""

    synced: bytearray = field(factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(factory=list)
    """(offset, piece) of a write, (length, None) of a truncation."""

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            size = min(SECTOR - (offset + done) % SECTOR, len(data) - done)
            self.pending.append((offset + done, data[done : done + size]))
            done += size

    def sync(self) -> None:
        self.synced = self.image(lambda: True)
        self.pending.clear()

    def image(self, keep: Keep) -> bytearray:
        """Its content if of what is pending only that is there which `keep` says."""
        content = bytearray(self.synced)
        for at, piece in self.pending:
            if not keep():
                continue
            end = at if piece is None else at + len(piece)
            if len(content) < end:
                content.extend(bytes(end - len(content)))
            if piece is None:
                del content[at:]
            else:
                content[at:end] = piece
        return content


@define
class VanishingDisk:
    """One folder on a disk that keeps only what it must. Feed it the operations in their order."""

    names: dict[str, _File] = field(factory=dict)
    """What a running program sees."""
    synced_names: dict[str, _File] = field(factory=dict)
    pending: dict[str, list[_File | None]] = field(factory=dict)
    """What each name has become since the folder was synced, in order; `None`: it went."""

    def do(self, one: Operation) -> None:
        match one.op:
            case "C":
                self._rename(one.name, _File())
            case "W":
                self.names[one.name].write(one.offset, one.data)
            case "T":
                self.names[one.name].pending.append((one.offset, None))
            case "U":
                self._rename(one.name, None)
            case "S" if one.name == ".":
                self.synced_names = dict(self.names)
                self.pending.clear()
            case "S":
                self.names[one.name].sync()
            case _:
                raise ValueError(f"a trace holds no {one.op!r}")

    def _rename(self, name: str, file: _File | None) -> None:
        self.pending.setdefault(name, []).append(file)
        if file is None:
            del self.names[name]
        else:
            self.names[name] = file

    def image(self, source: random.Random) -> dict[str, bytes]:
        """Files that may be there after power was lost at this moment, by name."""
        # Now and then all, or nothing: chance alone hardly ever makes these.
        likely = source.choice((0.0, 0.05, 0.5, 0.95, 1.0))
        found = dict(self.synced_names)
        for name, changes in self.pending.items():
            known = source.choice((0, len(changes), source.randint(0, len(changes))))
            for file in changes[:known]:
                if file is None:
                    found.pop(name, None)
                else:
                    found[name] = file
        return {
            name: bytes(file.image(lambda: source.random() < likely))
            for name, file in found.items()
        }
