"""What SQLite tells of a file, as far as it can be read, and of itself."""

import json
import sqlite3
from importlib import resources
from typing import Any, Literal, TypeAlias

from attrs import frozen

from carstore.errors import CarstoreError
from carstore.holders import Holder
from carstore.sqlite.migrations import APPLICATION_ID
from carstore.sqlite.objects import objects_amiss
from carstore.sqlite.readonly import READ_ERRORS, open_readonly
from carstore.sqlite.statements import SQL, parse_named

_SQL = parse_named((resources.files("carstore.sqlite") / "doctor.sql").read_text(encoding="utf-8"))


_Part: TypeAlias = Literal["newest", "amiss", "leases", "redaction", "forgotten", "quick_check"]


@frozen
class HeldLease:
    """A lease that somebody was granted and has not given back."""

    name: str
    holder: Holder | None
    """None if that cannot be read."""
    expires_at: int
    """Microseconds UTC."""


@frozen(kw_only=True)
class Contents:
    """Each part is None if it could not be read or was not asked for."""

    error: str | None
    """Why the file cannot be read at all."""
    options: frozenset[str]
    """With which SQLite was compiled."""
    has_json: bool
    syncs: bool
    """Whether SQLite accepts both settings of durability."""
    tables: int | None = None
    application_id: int | None = None
    user_version: int | None = None
    newest: int | None = None
    """The last position."""
    amiss: tuple[str, ...] | None = None
    """What is not as in schema.sql."""
    leases: tuple[HeldLease, ...] | None = None
    redaction: tuple[str, ...] | None = None
    """The names whose values go beside the log."""
    forgotten: int | None = None
    """How many values were forgotten."""
    quick_check: tuple[str, ...] | None = None

    @property
    def is_ours(self) -> bool:
        return self.application_id == APPLICATION_ID


def read_contents(path: str, *, deep: bool) -> Contents:
    """Ask SQLite; never fails."""
    about_sqlite = _about_sqlite()
    try:
        connection = open_readonly(path)
    except READ_ERRORS as error:
        return Contents(error=str(error), **about_sqlite)
    try:
        found = _read(connection, deep=deep)
    except READ_ERRORS as error:
        return Contents(error=str(error), **about_sqlite)
    finally:
        connection.close()
    return Contents(error=None, **about_sqlite, **found)


def _about_sqlite() -> dict[str, Any]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        options = frozenset(option for (option,) in connection.execute(_SQL["compile_options"]))
        try:
            has_json = connection.execute(_SQL["json"]).fetchone() == (1,)
        except sqlite3.OperationalError:
            has_json = False
        return {"options": options, "has_json": has_json, "syncs": _syncs(connection)}
    finally:
        connection.close()


def _syncs(connection: sqlite3.Connection) -> bool:
    for value in (1, 2):
        connection.execute(f"PRAGMA synchronous = {value}")
        if connection.execute("PRAGMA synchronous").fetchone() != (value,):
            return False
    return True


def _read(connection: sqlite3.Connection, *, deep: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: connection.execute(_SQL[name]).fetchone()[0]
        for name in ("tables", "application_id", "user_version")
    }
    parts: tuple[tuple[_Part, Any], ...] = (
        ("newest", lambda: connection.execute(_SQL["newest"]).fetchone()[0]),
        ("amiss", lambda: tuple(objects_amiss(connection))),
        ("leases", lambda: _leases(connection)),
        ("redaction", lambda: _redaction(connection)),
        ("forgotten", lambda: connection.execute(_SQL["forgotten"]).fetchone()[0]),
    )
    if found["application_id"] != APPLICATION_ID:
        parts = ()
    if deep:
        parts += (("quick_check", lambda: _quick_check(connection)),)
    for name, read in parts:
        try:
            found[name] = read()
        except READ_ERRORS:
            pass  # stays None, which the judgements tell
    return found


def _leases(connection: sqlite3.Connection) -> tuple[HeldLease, ...]:
    return tuple(
        HeldLease(str(name), _holder(holder), expires_at if isinstance(expires_at, int) else 0)
        for name, holder, expires_at in connection.execute(_SQL["held_leases"])
    )


def _redaction(connection: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys([str(name) for (name,) in connection.execute(SQL["redaction_names"])])
    )


def _holder(text: object) -> Holder | None:
    try:
        return Holder.from_json(json.loads(str(text)))
    except (ValueError, RecursionError, CarstoreError):
        return None


def _quick_check(connection: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(str(said) for (said,) in connection.execute(_SQL["quick_check"]) if said != "ok")
