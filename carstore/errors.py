"""What can go wrong, as values that say what happened and what to do now.

Every error of the three packages derives from `CarstoreError` and has a `code` from a closed,
documented list (`docs/errors.md`), the message a person reads, and for bad input the `path` of
the offending value. Programs match on the class or the code, never on the message.
"""

from typing import ClassVar, Self

from attrs import define, evolve, field

from carstore.names import FencingToken, LeaseName, Position, RunId, Scope, StateKey, StreamName

__all__ = [
    "AlreadyThere",
    "Busy",
    "CannotOpen",
    "CarstoreError",
    "Closed",
    "CopyFailed",
    "CorruptLog",
    "CursorRefused",
    "DiskFull",
    "InvalidEvent",
    "InvalidExport",
    "InvalidJson",
    "LeaseHeld",
    "LeaseLost",
    "NotADatabase",
    "NotFound",
    "ReadOnly",
    "SchemaTooNew",
    "StaleFence",
    "StateConflict",
    "StoreFailed",
    "TransactionEnded",
    "UnknownEvent",
    "VersionConflict",
]


@define(slots=False, eq=False)
class CarstoreError(Exception):
    """Base of all errors raised by `carstore`, `projections` and `engine`."""

    code: ClassVar[str] = "error"

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """One or two sentences for the person who meets this error."""
        return self.code

    @property
    def where(self) -> str | None:
        """The path into the input that is at fault, if it is the input."""
        return None

    def again(self) -> Self:
        """The same for another caller, with a traceback and notes of its own."""
        same = evolve(self)
        same.__cause__ = self.__cause__
        return same


@define(slots=False, eq=False)
class InvalidJson(CarstoreError):
    """A value that canonical JSON cannot hold, or a text that is not strict JSON."""

    code: ClassVar[str] = "invalid_json"
    path: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.path}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class InvalidEvent(CarstoreError):
    """An event, or its envelope, has a field that its class does not allow. Nothing is appended."""

    code: ClassVar[str] = "invalid_event"
    kind: str
    path: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.kind} event, {self.path}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class UnknownEvent(CarstoreError):
    """The log holds a kind, or a schema version of it, that this program does not know."""

    code: ClassVar[str] = "unknown_event"
    kind: str
    schema_version: int
    position: Position

    @property
    def message(self) -> str:
        return (
            f"event {self.position} is a {self.kind!r:.200} of schema version "
            f"{self.schema_version}, which this carstore does not know. "
            "Read the file with the newer carstore that wrote it; nothing was changed."
        )


@define(slots=False, eq=False)
class VersionConflict(CarstoreError):
    """Somebody else appended to the stream since it was read. Nothing was appended."""

    code: ClassVar[str] = "version_conflict"
    stream: StreamName
    expected: int
    actual: int

    @property
    def message(self) -> str:
        return (
            f"stream {self.stream!r} is at version {self.actual}, not at {self.expected}. "
            "Read it again and decide again."
        )


@define(slots=False, eq=False)
class StateConflict(CarstoreError):
    """A state key changed since the decision that was based on it. Nothing was appended."""

    code: ClassVar[str] = "state_conflict"
    scope: Scope
    key: StateKey
    read_at: Position
    now: Position

    @property
    def message(self) -> str:
        return (
            f"state key {self.key!r} was read at position {self.read_at} and has changed at "
            f"position {self.now}"
        )


@define(slots=False, eq=False)
class StaleFence(CarstoreError):
    """An append under a fencing token that is no longer the lease's. Nothing was appended."""

    code: ClassVar[str] = "stale_fence"
    lease: LeaseName
    presented: FencingToken | None
    current: FencingToken | None

    @property
    def message(self) -> str:
        return (
            f"lease {self.lease!r}: token {self.presented} is not the current one "
            f"({self.current}). Another holder may have taken over; stop acting for it."
        )


@define(slots=False, eq=False)
class LeaseHeld(CarstoreError):
    """Somebody else, alive or not provably gone, holds the lease."""

    code: ClassVar[str] = "lease_held"
    lease: LeaseName
    holder: str
    expires_in_us: int

    @property
    def message(self) -> str:
        return (
            f"lease {self.lease!r} is held by {self.holder}. It can be taken over as soon as that "
            f"process is gone, or in {max(0, self.expires_in_us) / 1e6:.0f} s if it stays silent."
        )


@define(slots=False, eq=False)
class LeaseLost(CarstoreError):
    """The lease expired, was released, or was granted to another holder."""

    code: ClassVar[str] = "lease_lost"
    lease: LeaseName

    @property
    def message(self) -> str:
        return f"lease {self.lease!r} is no longer ours; stop acting for it."


@define(slots=False, eq=False)
class Busy(CarstoreError):
    """Another process kept the write lock for longer than the busy timeout. May be retried."""

    code: ClassVar[str] = "busy"
    path: str
    timeout_ms: int

    @property
    def message(self) -> str:
        return (
            f"{self.path} was locked by another writer for {self.timeout_ms} ms. Try again; if it "
            "stays so, look for a program that keeps a transaction open."
        )


@define(slots=False, eq=False)
class DiskFull(CarstoreError):
    """There is no room for the append. Nothing of it was written; the store goes on."""

    code: ClassVar[str] = "disk_full"
    path: str

    @property
    def message(self) -> str:
        return f"no room to append to {self.path}. Free some space and try again; nothing is lost."


@define(slots=False, eq=False)
class StoreFailed(CarstoreError):
    """A read, write or sync failed; what is durable is unknown until the file is opened again."""

    code: ClassVar[str] = "io_error"
    path: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"{self.path}: {self.reason}. The store has stopped, because nothing written since the "
            "last success is known to be safe. Check the disk, then open the file again."
        )


@define(slots=False, eq=False)
class CannotOpen(CarstoreError):
    """The file is there, or could be made, but this process is not allowed to open it so."""

    code: ClassVar[str] = "cannot_open"
    path: str
    reason: str
    hint: str

    @property
    def message(self) -> str:
        return f"{self.path} cannot be opened: {self.reason}. {self.hint}"

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class CursorRefused(CarstoreError):
    """A consumer's place is one in another log, or in one that was cut or replaced."""

    code: ClassVar[str] = "cursor_refused"
    consumer: str
    position: int
    path: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"consumer {self.consumer!r} has applied events up to position {self.position}, and "
            f"{self.path} is not the log they came from: {self.reason}. Nothing was applied."
        )


@define(slots=False, eq=False)
class TransactionEnded(CarstoreError):
    """A statement of a consumer's function ended the transaction it was called in."""

    code: ClassVar[str] = "transaction_ended"
    cause: ClassVar[str] = (
        "a statement has ended the transaction, as INSERT OR ROLLBACK and RAISE(ROLLBACK, ...) do "
        "when they fail, or SQLite has, as when the disk is full"
    )
    consumer: str
    position: int
    kind: str

    @property
    def message(self) -> str:
        return (
            f"consumer {self.consumer!r} cannot go on: at event {self.position}, of kind "
            f"{self.kind}, {self.cause}. Nothing of that transaction was kept, and the cursor is "
            "where it was. Use OR ABORT or OR IGNORE in its place."
        )


@define(slots=False, eq=False)
class CorruptLog(CarstoreError):
    """The file, or the history in it, is not what was written."""

    code: ClassVar[str] = "corrupt"
    path: str
    reason: str
    position: Position | None = None

    @property
    def message(self) -> str:
        at = "" if self.position is None else f" at position {self.position}"
        return f"{self.path} is damaged{at}: {self.reason}. Run `carstore verify` on it."


@define(slots=False, eq=False)
class NotADatabase(CarstoreError):
    """The file exists but is not a carstore database."""

    code: ClassVar[str] = "not_a_database"
    path: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.path} is not a carstore database: {self.reason}"


@define(slots=False, eq=False)
class SchemaTooNew(CarstoreError):
    """A newer carstore has migrated the file. Nothing was changed."""

    code: ClassVar[str] = "schema_too_new"
    path: str
    found: int
    known: int

    @property
    def message(self) -> str:
        return (
            f"{self.path} has schema {self.found}, which a newer carstore has given it; this one "
            f"knows schemas up to {self.known}. Upgrade carstore to go on; nothing was changed."
        )


@define(slots=False, eq=False)
class NotFound(CarstoreError):
    """Something named in the input does not exist."""

    code: ClassVar[str] = "not_found"
    what: str
    name: str
    hint: str = ""

    @property
    def message(self) -> str:
        return f"there is no {self.what} {self.name!r}" + (f". {self.hint}" if self.hint else "")

    @property
    def where(self) -> str | None:
        return self.name


@define(slots=False, eq=False)
class ReadOnly(CarstoreError):
    """A write was asked of a store that was opened, or can only be opened, for reading."""

    code: ClassVar[str] = "read_only"
    path: str

    @property
    def message(self) -> str:
        return f"{self.path} is open for reading only."


@define(slots=False, eq=False)
class AlreadyThere(CarstoreError):
    """A file was to be made where there is one. Nothing was written."""

    code: ClassVar[str] = "already_there"
    path: str
    reason: str = "it would be overwritten"

    @property
    def message(self) -> str:
        return f"there is a file {self.path} already: {self.reason}. Choose another name."

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class CopyFailed(CarstoreError):
    """A copy could not be made, or what was copied is damaged. There is no file of that name."""

    code: ClassVar[str] = "copy_failed"
    path: str
    reason: str
    hint: str = "Nothing was left of it."

    @property
    def message(self) -> str:
        return f"{self.path} was not made: {self.reason}. {self.hint}"

    @property
    def where(self) -> str | None:
        return self.path


@define(slots=False, eq=False)
class InvalidExport(CarstoreError):
    """An exported file is not what an export wrote: it was cut or changed. Nothing was made."""

    code: ClassVar[str] = "invalid_export"
    path: str
    line: int
    reason: str

    @property
    def message(self) -> str:
        return (
            f"{self.path}, line {self.line}: {self.reason}. Nothing was imported; export it again."
        )

    @property
    def where(self) -> str | None:
        return f"{self.path}:{self.line}"


@define(slots=False, eq=False)
class Closed(CarstoreError):
    """The store was closed, or is closing."""

    code: ClassVar[str] = "closed"
    path: str = field(default="the store")

    @property
    def message(self) -> str:
        return f"{self.path} is closed. Open it again with connect()."


def run_id_of(lease: LeaseName) -> RunId | None:
    """The run whose ownership `lease` is, if it is a run's."""
    head, _, run_id = lease.partition("/")
    return RunId(run_id) if head == "run" and run_id else None
