"""Judgements about SQLite and about what it says of a file: pure functions of what `contents` has
read, one for each code of docs/operating.md."""

from collections.abc import Iterator, Sequence

from carstore.clock import Clock
from carstore.holders import Processes
from carstore.leases import GRACE_US
from carstore.sqlite.contents import Contents, HeldLease
from carstore.sqlite.findings import SENTENCES, Finding, named
from carstore.sqlite.migrations import SCHEMA

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""

WAL_RESET_BUG_FIXED = (3, 51, 3)
"""The bug is in all versions from 3.7.0, the first with a WAL, up to the one before this."""

WAL_RESET_BUG_BACKPORTS = ((3, 44, 6), (3, 50, 7))
"""Releases of older branches that have the fix as well, as have later ones of the same branch."""

_FORBIDDEN_OPTIONS = {
    "NO_SYNC": "it never waits for the disk, so a loss of power loses or damages what was written",
    "THREADSAFE=0": "it must not be used by several threads, and carstore has some",
    "OMIT_WAL": "it cannot keep a WAL",
    "OMIT_TRIGGER": "it ignores the triggers that hold the rules of the file",
}

_OTHER_SQLITE = (
    "Use a Python whose sqlite3 has another SQLite (`carstore version` tells which): a newer "
    "system, a python.org or conda build, or a newer libsqlite3 in LD_LIBRARY_PATH."
)


def judge_sqlite(version: tuple[int, ...], contents: Contents, processes: int) -> Iterator[Finding]:
    """The library itself.

    Args:
        processes: how many have the file open.
    """
    yield judge_version(version, processes)
    yield judge_options(contents)
    if contents.syncs:
        what = "each connection sets and reads back FULL (durability power) or NORMAL (crash)"
        yield Finding("synchronous", "ok", what)
    else:
        what = "SQLite does not accept the settings that durability rests on"
        yield Finding("synchronous", "fault", what, _OTHER_SQLITE)


def judge_version(version: tuple[int, ...], processes: int) -> Finding:
    name = "SQLite " + ".".join(map(str, version))
    if version < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        what = f"{name} is too old: carstore needs {oldest} or later"
        return Finding("sqlite_version", "fault", what, _OTHER_SQLITE)
    if not has_wal_reset_bug(version):
        return Finding("sqlite_version", "ok", name)
    bug = (
        f"{name} has the WAL-reset bug, fixed in 3.51.3 (and 3.44.6, 3.50.7): when two connections "
        "checkpoint and write within the same instant, the file can be damaged. Within a process "
        "carstore prevents that; between processes it cannot"
    )
    if processes > 1:
        what = f"{bug}, and {processes} have this file open now"
        return Finding("sqlite_version", "warning", what, _OTHER_SQLITE)
    do = f"Nothing while one process uses the file. Else: {_OTHER_SQLITE}"
    return Finding("sqlite_version", "note", bug, do)


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """See "The WAL-Reset Bug" in SQLite's description of its WAL."""
    backported = any(
        version[:2] == fixed[:2] and version >= fixed for fixed in WAL_RESET_BUG_BACKPORTS
    )
    return version < WAL_RESET_BUG_FIXED and not backported


def judge_options(contents: Contents) -> Finding:
    bad = [why for option, why in _FORBIDDEN_OPTIONS.items() if option in contents.options]
    if not contents.has_json:
        bad.append("it has no functions for JSON, which the rules of the file use")
    if bad:
        what = f"SQLite is compiled so that it cannot be used: {'; '.join(bad)}"
        return Finding("compile_options", "fault", what, _OTHER_SQLITE)
    if "ENABLE_FTS5" not in contents.options:
        what = "SQLite is compiled without FTS5, so there is no full-text search"
        return Finding("compile_options", "note", what, _OTHER_SQLITE)
    return Finding("compile_options", "ok", "SQLite is compiled with all that is needed")


def judge_contents(contents: Contents) -> Iterator[Finding]:
    """What SQLite says of the file."""
    yield judge_identity(contents)
    if contents.is_ours:
        yield judge_schema(contents.amiss)
        yield judge_events(contents.newest)
        yield judge_redaction(contents.redaction)
    if contents.quick_check is not None:
        yield judge_quick_check(contents.quick_check)


def judge_identity(contents: Contents) -> Finding:
    found = contents.user_version
    if contents.error is not None or found is None:
        what = f"SQLite cannot read the file: {contents.error}"
        do = "Copy the file away. Then `carstore verify`, `carstore salvage`, or restore a backup."
        return Finding("identity", "fault", what, do)
    if not contents.is_ours:
        what = (
            "the file holds tables of another program"
            if contents.tables
            else "the file is an empty database"
        )
        return Finding("identity", "fault", what, "Name another file.")
    if found > SCHEMA:
        what = f"the file has schema {found}; this carstore knows schemas up to {SCHEMA}"
        return Finding("identity", "fault", what, "Upgrade carstore.")
    if found < SCHEMA:
        what = f"the file has schema {found}, and gets {SCHEMA} when it is opened for writing"
        do = "Nothing; but after that, carstores that do not know the new one refuse the file."
        return Finding("identity", "note", what, do)
    return Finding("identity", "ok", f"a carstore database of schema {found}")


def judge_schema(amiss: Sequence[str] | None) -> Finding:
    if amiss is None:
        what = "the tables and triggers of the file cannot be read"
        return Finding("schema", "fault", what, "Run `carstore verify`, then `carstore salvage`.")
    if amiss:
        do = (
            "Run `carstore verify`, to see whether the events are what they were. Then make a file "
            "with the right triggers: `carstore salvage`."
        )
        return Finding("schema", "fault", named(amiss, SENTENCES), do)
    return Finding("schema", "ok", "tables, indexes and triggers are those of schema.sql")


def judge_events(newest: int | None) -> Finding:
    if newest is None:
        what = "the events cannot be read, or there are none"
        return Finding("events", "fault", what, "Run `carstore verify`, then `carstore salvage`.")
    return Finding("events", "ok", f"the log ends at position {newest:,}")


def judge_redaction(names: Sequence[str] | None) -> Finding:
    if names is None:
        what = "the rules for sensitive values cannot be read"
        return Finding(
            "redaction", "fault", what, "Run `carstore verify`, then `carstore salvage`."
        )
    if not names:
        return Finding("redaction", "ok", "no names of sensitive values are declared")
    return Finding("redaction", "ok", f"kept beside the log: values of {named(names)}")


def judge_forgotten(forgotten: int | None, wal_bytes: int) -> Finding:
    """Whether values that were forgotten may still stand in the WAL: somebody who reads keeps it
    from being emptied then, and nothing in the file tells whether anybody did."""
    if forgotten is None:
        what = "what was forgotten cannot be read"
        return Finding(
            "forgotten", "fault", what, "Run `carstore verify`, then `carstore salvage`."
        )
    told = f"{forgotten:,} values beside the log were forgotten"
    if not forgotten or not wal_bytes:
        return Finding("forgotten", "ok", f"{told}, and none is in the WAL")
    what = f"{told}; what the WAL held of them is still there if `carstore forget` said so"
    return Finding("forgotten", "note", what, "`carstore forget DB --scrub` empties the WAL.")


def judge_quick_check(said: Sequence[str]) -> Finding:
    if said:
        do = "Copy the file away. Then `carstore verify`, `carstore salvage`, or restore a backup."
        return Finding("quick_check", "fault", f"SQLite: {named(said, SENTENCES)}", do)
    return Finding("quick_check", "ok", "SQLite finds nothing wrong")


def judge_leases(leases: Sequence[HeldLease] | None, clock: Clock, processes: Processes) -> Finding:
    """Who holds what, and whether that is still so."""
    if leases is None:
        what = "the leases cannot be read"
        return Finding("leases", "fault", what, "Run `carstore verify`.")
    gone, silent = [], []
    for lease in leases:
        told = f"{lease.name!r:.100} by {lease.holder or 'nobody knows whom'}"
        if lease.holder is not None and processes.is_gone(lease.holder):
            gone.append(told)
        elif lease.expires_at + GRACE_US <= clock.now():
            silent.append(told)
    if not gone and not silent:
        return Finding("leases", "ok", f"{len(leases):,} held, by processes that may be alive")
    parts = [f"held by processes that are gone: {named(gone, SENTENCES)}"] if gone else []
    parts += [f"expired, their holders being silent: {named(silent, SENTENCES)}"] if silent else []
    do = "They can be taken over at once: `carstore resume` does so for unfinished runs."
    return Finding("leases", "note", "; ".join(parts), do)
