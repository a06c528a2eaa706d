"""Facts about the log itself, and about what lies beside it."""

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
    cause: str = "created"
    """`created`, or how the copy was made: `restored`, `forked`, `imported`, `salvaged`."""
    origin: Json = None
    """For a copy: `{log_id, epoch, position, hash, path}` of what it was taken from."""


@frozen(kw_only=True)
class BlobForgotten:
    """A value that events refer to by its hash was deleted, for good; the hash stays."""

    kind: ClassVar[str] = "blob_forgotten"
    hash: str
    reason: str
    by: str


@frozen(kw_only=True)
class RedactionDeclared:
    """From here on whoever writes to the file keeps the values of these fields and keys beside the
    log. Nothing takes such a rule back."""

    kind: ClassVar[str] = "redaction_declared"
    names: tuple[str, ...]
    """Of fields of JSON objects and of state keys, lower case; a `*` at either end stands for
    anything."""
