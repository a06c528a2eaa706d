"""What a look at a file found, as values."""

from typing import Literal, TypeAlias

from attrs import frozen

Level: TypeAlias = Literal["ok", "note", "warning", "fault"]


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
