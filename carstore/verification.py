"""What a check of a log found: values, for whoever checks and whoever reads the answer."""

from attrs import frozen

from carstore.log import Head


@frozen
class Problem:
    """One thing that is not as it must be."""

    position: int | None
    """The first event concerned; None if it is about the file as a whole."""
    code: str
    """One of the list in `carstore.sqlite.verify`, or one of whoever else checks."""
    message: str
    """What was found, in a sentence for people."""


@frozen
class Verification:
    """The outcome of a check."""

    ok: bool
    head: Head
    """The last event that could be read, with the hash that is stored for it."""
    problems: tuple[Problem, ...]
    """In the order in which they were found, within the log by position; bounded."""
