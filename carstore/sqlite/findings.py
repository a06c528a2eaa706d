"""What a look at a file found, as values."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import frozen

Level: TypeAlias = Literal["ok", "note", "warning", "fault"]

MAX_NAMED = 5
"""Things of a kind that are named; the others are counted."""

NAMES, SENTENCES = ", ", "; "
"""What stands between things that are named."""


@frozen
class Finding:
    """One thing that was looked at."""

    code: str
    """What was looked at; all codes are listed in docs/operating.md."""
    level: Level
    """`ok`; `note`: good to know; `warning`: may become trouble; `fault`: is trouble."""
    what: str
    """What was found, in a sentence for people."""
    do: str = ""
    """What to do about it, if there is something."""


def named(things: Sequence[str], joint: str = NAMES) -> str:
    """The first of some things, and how many more there are."""
    more = f"{joint.rstrip(', ')} and {len(things) - MAX_NAMED} more"
    return joint.join(things[:MAX_NAMED]) + (more if len(things) > MAX_NAMED else "")
