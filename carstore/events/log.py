"""Facts about the log itself."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class LogEpochStarted:
    """The log began (position 1), or a copy of it began a life of its own."""

    kind: ClassVar[str] = "log_epoch_started"
    log_id: str
    """Random, 32 hex characters; tokens are unique within it."""
    epoch: int
    """0 for a new log, one more for each copy of a copy; the high part of fencing tokens."""
    origin: Json = None
    """For a copy: the log_id, position and hash it was taken from."""
