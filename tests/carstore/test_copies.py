"""Copies of a log: what they hold, what they refuse, and that there is a whole one or none."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carstore import Entry, Expect, Fence, Recorded, canonical, connect, copies, placing
from carstore.blobs import Blob, hash_of, make_blob
from carstore.chain import GENESIS, frame, link
from carstore.errors import (
    AlreadyThere,
    CannotOpen,
    CopyFailed,
    InvalidExport,
    NotADatabase,
    NotFound,
    SchemaTooNew,
    StaleFence,
    UnknownEvent,
)
from carstore.events import ActionLogged, LogEpochStarted
from carstore.jsonl import Header, Writer
from carstore.names import Micros, Position, RunId, StreamName, Version, run_lease
from carstore.origin import Copied, OpenRun
from carstore.redaction import Redaction
from carstore.sqlite import copies as sqlite_copies
from carstore.sqlite import exchange
from carstore.sqlite.verify import verify_file
from tests.carstore.attack import insert, next_event
from tests.carstore.helpers import (
    FakeProcesses,
    change,
    copy_file,
    in_loop,
    key,
    new_file,
    open_store,
    step,
    stock,
)

ROOT = Path(__file__).resolve().parents[2]


def nothing_open(_run: RunId, _history: Sequence[Recorded]) -> None:
    return None


def all_open(_run: RunId, _history: Sequence[Recorded]) -> OpenRun:
    return OpenRun()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of six events, in which somebody holds a lease."""
    made = new_file(tmp_path / "a.db")

    async def fill() -> None:
        async with open_store(made, processes=FakeProcesses()) as store:
            await store.log.append(change("k", 1), change("k", 2), step())
            held = await store.leases.acquire(run_lease(RunId("x")))
            fence = Fence(held.name, held.token)
            await store.log.append(step("run/x", run="x"), expect=Expect(fence=fence))

    asyncio.run(fill())
    return made


def events_of(path: Path) -> list[tuple[Any, ...]]:
    """All columns of the chain."""
    connection = stock(path)
    try:
        return connection.execute(
            "SELECT position, stream, version, kind, schema_version, recorded_at, run_id, scope,"
            " key, fence, fence_token, data, prev_hash, hash FROM log ORDER BY position"
        ).fetchall()
    finally:
        connection.close()


def left_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()} - {"a.db"}


def epoch_event(path: Path) -> dict[str, Any]:
    kinds = [row for row in events_of(path) if row[3] == LogEpochStarted.kind]
    found: dict[str, Any] = json.loads(kinds[-1][11])
    return found


# --- what they hold ---


@in_loop
async def test_a_backup_is_the_same_log_and_read_only(path: Path) -> None:
    made = await copies.backup(path, path.with_name("b.db"))
    copy = Path(made.path)
    assert events_of(copy) == events_of(path)
    assert (made.head.position, made.head.hash) == (events_of(path)[-1][0], events_of(path)[-1][13])
    assert made.bytes == copy.stat().st_size
    assert stat.S_IMODE(copy.stat().st_mode) == 0o444
    assert verify_file(copy, head=made.head).ok
    assert left_in(path.parent) == {"b.db"}


@in_loop
async def test_a_backup_opens_for_reading_only(path: Path) -> None:
    copy = Path((await copies.backup(path, path.with_name("b.db"))).path)
    with pytest.raises(
        CannotOpen, match=r"read-only, as a backup is.*carstore restore .*b\.db NEW"
    ):
        await connect(copy)
    async with connect(copy, readonly=True) as store:
        assert (await store.log.state(key("k")[0], [key("k")[1]]))[key("k")[1]].value == 2
    assert left_in(path.parent) == {"b.db"}


@in_loop
async def test_nobody_may_read_a_copy_who_may_not_read_its_origin(path: Path) -> None:
    path.chmod(0o640)
    for make in (restored, forked, imported):
        await make(path, path.with_name(f"{make.__name__}.db"))
    modes = {
        name: stat.S_IMODE(path.with_name(name).stat().st_mode) for name in left_in(path.parent)
    }
    assert modes == {
        "b.db": 0o440,
        "x.jsonl": 0o640,
        "restored.db": 0o640,
        "forked.db": 0o640,
        "imported.db": 0o640,
    }


async def restored(path: Path, new: Path) -> Copied:
    await copies.backup(path, path.with_name("b.db"))
    return await copies.restore(path.with_name("b.db"), new, open_runs=nothing_open)


async def forked(path: Path, new: Path) -> Copied:
    return await copies.fork(path, new, at=6, open_runs=nothing_open)


async def imported(path: Path, new: Path) -> Copied:
    await copies.export(path, path.with_name("x.jsonl"))
    return await copies.import_(path.with_name("x.jsonl"), new, open_runs=nothing_open)


ANOTHER = pytest.mark.parametrize(
    ("make", "cause", "taken_from"),
    [
        (restored, "restored", "b.db"),
        (forked, "forked", "a.db"),
        (imported, "imported", "x.jsonl"),
    ],
)
Make = Callable[[Path, Path], Coroutine[Any, Any, Copied]]


@ANOTHER
def test_another_log_keeps_the_chain_and_begins_an_epoch(
    path: Path, make: Make, cause: str, taken_from: str
) -> None:
    new = path.with_name("n.db")
    made = asyncio.run(make(path, new))
    before, after = events_of(path), events_of(new)
    assert after[: len(before)] == before
    assert [row[3] for row in after[len(before) :]] == ["log_epoch_started", "lease_released"]
    begun = epoch_event(new)
    assert (begun["epoch"], begun["cause"]) == (1, cause)
    assert begun["log_id"] != begun["origin"]["log_id"] == epoch_event(path)["log_id"]
    assert begun["origin"] == {
        "log_id": epoch_event(path)["log_id"],
        "epoch": 0,
        "position": before[-1][0],
        "hash": before[-1][13],
        "path": str(path.with_name(taken_from)),
    }
    assert made.life is not None
    assert made.life.head == made.head
    assert tuple(made.head) == (after[-1][0], after[-1][13])
    assert verify_file(new, head=made.head).ok


@ANOTHER
def test_who_held_a_lease_in_the_origin_holds_none_in_the_copy(
    path: Path, make: Make, cause: str, taken_from: str
) -> None:
    asyncio.run(make(path, path.with_name("n.db")))

    async def look() -> None:
        async with open_store(path, processes=FakeProcesses()) as origin:
            row = await origin.leases.row(run_lease(RunId("x")))
            assert row is not None
            assert row.token is not None
        async with open_store(path.with_name("n.db"), processes=FakeProcesses()) as store:
            assert await store.leases.rows() == []
            stale = Expect(fence=Fence(row.name, row.token))
            with pytest.raises(StaleFence):
                await store.log.append(step("run/x", run="x"), expect=stale)
            held = await store.leases.acquire(row.name)
            assert held.token > row.token
            assert held.token > 1 << 40
            with pytest.raises(StaleFence):
                await store.log.append(step("run/x", run="x"), expect=stale)
            fence = Fence(held.name, held.token)
            await store.log.append(step("run/x", run="x"), expect=Expect(fence=fence))

    asyncio.run(look())


@in_loop
async def test_a_copy_of_a_copy_has_the_next_epoch(path: Path) -> None:
    await forked(path, path.with_name("n.db"))
    made = await copies.fork(
        path.with_name("n.db"), path.with_name("m.db"), at=7, open_runs=nothing_open
    )
    assert made.life is not None
    assert made.life.epoch == 2
    assert made.life.origin.log_id == epoch_event(path.with_name("n.db"))["log_id"]
    assert verify_file(path.with_name("m.db")).ok


@in_loop
async def test_an_unfinished_run_is_paused_under_a_grant_that_ends_at_once(path: Path) -> None:
    new = path.with_name("n.db")
    made = await copies.fork(path, new, at=6, open_runs=all_open)
    assert made.life is not None
    assert made.life.held == ("x",)
    last = events_of(new)[-3:]
    assert [(row[1], row[3]) for row in last] == [
        ("lease/run/x", "lease_granted"),
        ("run/x", "run_paused"),
        ("lease/run/x", "lease_released"),
    ]
    token = (1 << 40) + last[0][0]
    assert last[1][9:11] == ("run/x", token)
    assert json.loads(last[1][11]) == {"reason": "copied", "waiting_for": []}
    async with open_store(new, processes=FakeProcesses()) as store:
        assert await store.leases.rows() == []


@in_loop
async def test_a_file_of_an_older_schema_is_backed_up_and_restored(tmp_path: Path) -> None:
    old = copy_file(ROOT / "tests" / "golden" / "schema_1.db", tmp_path / "a.db")
    made = await copies.backup(old, tmp_path / "b.db")
    assert stock(tmp_path / "b.db").execute("PRAGMA user_version").fetchone() == (1,)
    for new in (
        await copies.restore(tmp_path / "b.db", tmp_path / "c.db", open_runs=nothing_open),
        await copies.fork(old, tmp_path / "f.db", at=made.head.position, open_runs=nothing_open),
    ):
        assert events_of(Path(new.path))[: made.head.position] == events_of(old)
        assert stock(Path(new.path)).execute("PRAGMA user_version").fetchone() == (2,)
        assert verify_file(new.path).ok


# --- values beside the log ---


async def with_values(path: Path) -> list[str]:
    """Three values: the second is forgotten at once, the others stay. Returns their hashes."""
    async with open_store(path, redaction=Redaction(names=("token",))) as store:
        for number in range(3):
            event = ActionLogged(
                action_id="a", attempt=1, message="m", data={"token": f"hush {number}"}
            )
            await store.log.append(Entry(StreamName("notes"), event))
        found = [
            json.loads(one.data)["data"]["token"]["$blob"] async for one in store.log.read(after=2)
        ]
        await store.blobs.forget(found[1], reason="asked", by="me")
        return found


def values_of(path: Path) -> set[str]:
    connection = stock(path)
    try:
        return {name for (name,) in connection.execute("SELECT hash FROM blobs")}
    finally:
        connection.close()


@in_loop
async def test_the_values_that_kept_events_refer_to_come_along(tmp_path: Path) -> None:
    path = new_file(tmp_path / "a.db")
    first, second, third = await with_values(path)
    await copies.backup(path, tmp_path / "b.db")
    await copies.restore(tmp_path / "b.db", tmp_path / "c.db", open_runs=nothing_open)
    await copies.export(path, tmp_path / "x.jsonl")
    await copies.import_(tmp_path / "x.jsonl", tmp_path / "i.db", open_runs=nothing_open)
    await copies.fork(path, tmp_path / "f.db", at=6, open_runs=nothing_open)
    for name in ("b", "c", "i", "f"):
        assert values_of(tmp_path / f"{name}.db") == {first, third}
        assert verify_file(tmp_path / f"{name}.db").ok
    await copies.fork(path, tmp_path / "g.db", at=3, open_runs=nothing_open)
    assert values_of(tmp_path / "g.db") == {first}
    assert second not in (tmp_path / "x.jsonl").read_text().splitlines()[1]


@in_loop
async def test_values_that_only_other_values_refer_to_come_along(tmp_path: Path) -> None:
    path = new_file(tmp_path / "a.db")
    inner = make_blob("hush", sensitive=True)
    outer = make_blob({"text": "t" * 100, "token": inner.reference}, sensitive=False)
    async with open_store(path) as store:
        event = ActionLogged(action_id="a", attempt=1, message="m", data=outer.reference)
        await store.log.append(Entry(StreamName("notes"), event, blobs=(inner, outer)))
    await copies.fork(path, tmp_path / "f.db", at=2, open_runs=nothing_open)
    await copies.export(path, tmp_path / "x.jsonl")
    await copies.import_(tmp_path / "x.jsonl", tmp_path / "i.db", open_runs=nothing_open)
    for name in ("f.db", "i.db"):
        assert values_of(tmp_path / name) == {inner.hash, outer.hash}
        assert len(events_of(tmp_path / name)) == 3, "a value was taken for a lost one"
        assert verify_file(tmp_path / name).ok


@pytest.mark.parametrize("make", ["fork", "import"])
def test_a_value_that_was_forgotten_later_is_recorded_as_forgotten(
    tmp_path: Path, make: str
) -> None:
    path, new = new_file(tmp_path / "a.db"), tmp_path / "n.db"

    async def go() -> None:
        _, second, _ = await with_values(path)
        if make == "fork":
            await copies.fork(path, new, at=4, open_runs=nothing_open)
        else:
            await copies.export(path, tmp_path / "x.jsonl", at=4)
            await copies.import_(tmp_path / "x.jsonl", new, open_runs=nothing_open)
        assert second not in values_of(new)
        [forgotten] = [row for row in events_of(new) if row[3] == "blob_forgotten"]
        assert json.loads(forgotten[11])["hash"] == second
        assert forgotten[0] > 4
        assert verify_file(new).ok

    asyncio.run(go())


# --- export ---


@in_loop
async def test_an_export_says_all_that_the_hashes_cover(path: Path) -> None:
    made = await copies.export(path, path.with_name("x.jsonl"))
    header, *events, trailer = map(json.loads, Path(made.path).read_text().splitlines())
    assert header == {
        "carstore": 1,
        "schema": 2,
        "log_id": epoch_event(path)["log_id"],
        "epoch": 0,
        "position": 6,
        "hash": events_of(path)[-1][13],
    }
    assert [tuple(event.values()) for event in events] == events_of(path)
    assert (trailer["events"], trailer["blobs"]) == (6, 0)


@in_loop
async def test_an_export_up_to_a_position_has_the_head_of_then(path: Path) -> None:
    made = await copies.export(path, path.with_name("x.jsonl"), at=3)
    assert made.head == (3, events_of(path)[2][13])
    new = await copies.import_(made.path, path.with_name("i.db"), open_runs=nothing_open)
    assert events_of(Path(new.path))[:3] == events_of(path)[:3]


@in_loop
async def test_export_and_import_take_what_is_open(path: Path) -> None:
    with open(path.with_name("x.jsonl"), "w+b") as file:
        await copies.export(path, file)
        file.seek(0)
        made = await copies.import_(file, path.with_name("i.db"), open_runs=nothing_open)
    assert made.life is not None
    assert made.life.origin.path is None
    assert events_of(Path(made.path))[:6] == events_of(path)


@in_loop
async def test_names_and_values_of_any_size_go_through_an_export(tmp_path: Path) -> None:
    path = new_file(tmp_path / "a.db")
    odd = 'ключ "\\\u2028\x7f\n'
    async with open_store(path, redaction=Redaction(inline_bytes=10**9)) as store:
        await store.log.append(
            change(odd, [odd, 1e300, -0.0, 2**63 - 1], stream=odd, scope=odd),
            change("large", "\\" * 5_000_000),
        )
        await store.log.append(change("beside", {"k": ["\0", odd]}))
        blob = make_blob(["a", odd, "\ud7ff"], sensitive=True)
        await store.log.append(change("b", 1)._replace(blobs=(blob,)))
    await copies.export(path, tmp_path / "x.jsonl")
    new = tmp_path / "i.db"
    await copies.import_(tmp_path / "x.jsonl", new, open_runs=nothing_open)
    assert events_of(new)[:-1] == events_of(path)


_small: list[bytes] = []


def small_export() -> bytes:
    """An export with a value and some events."""
    if not _small:
        with tempfile.TemporaryDirectory() as folder:
            path = new_file(Path(folder) / "a.db")
            asyncio.run(with_values(path))
            asyncio.run(copies.export(path, Path(folder) / "x.jsonl"))
            _small.append((Path(folder) / "x.jsonl").read_bytes())
    return _small[0]


def refused(content: bytes) -> InvalidExport:
    """The error that an import of `content` ends with; nothing is left of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.jsonl").write_bytes(content)
        with pytest.raises(InvalidExport) as caught:
            asyncio.run(copies.import_(folder / "x.jsonl", folder / "n.db", open_runs=nothing_open))
        assert [one.name for one in folder.iterdir()] == ["x.jsonl"]
        return caught.value


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_export_with_one_other_byte_is_refused(data: st.DataObject) -> None:
    content = bytearray(small_export())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    if content[:24].startswith(b'{"carstore":1,"schema":') and content[23] in b"3456789":
        return  # which is another refusal
    line = 1 + small_export().count(b"\n", 0, place)
    error = refused(bytes(content))
    assert 1 <= error.line <= max(line, 1 + small_export().count(b"\n"))


@settings(max_examples=30, deadline=None)
@given(st.data())
@example(None)
def test_an_export_with_lines_lost_doubled_or_moved_is_refused(data: st.DataObject | None) -> None:
    lines = small_export().splitlines(keepends=True)
    if data is None:
        refused(b"".join(lines[:-1]))
        return
    place = st.integers(0, len(lines) - 1)
    first, second = data.draw(place), data.draw(place)
    match data.draw(st.sampled_from(["lost", "doubled", "moved"])):
        case "lost":
            del lines[first]
        case "doubled":
            lines.insert(second, lines[first])
        case _ if lines[first] != lines[second]:
            lines[first], lines[second] = lines[second], lines[first]
        case _:
            return
    refused(b"".join(lines))


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -2, -200])
def test_an_export_that_was_cut_is_refused(cut: int) -> None:
    assert "cut" in refused(small_export()[:cut]).reason


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"hello\n", 1, "not JSON"),
        (b"{}\n", 1, "no export"),
        (b"[" * 100_000 + b"\n", 1, "nested deeper"),
        (b'{"carstore":2}\n', 1, "Import it with the carstore that wrote it"),
        (b'{"carstore":1,"schema":2}\n', 1, "its fields are not"),
        (b"x" * 40_000_000, 1, "longer than"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_export_is_refused_before_it_is_parsed(
    content: bytes, line: int, reason: str
) -> None:
    error = refused(content)
    assert error.line == line
    assert reason in error.reason
    assert f"x.jsonl, line {line}: " in error.message


def test_what_no_hash_of_an_event_covers_is_covered_by_the_last_line() -> None:
    changed = small_export().replace(b'"schema":2', b'"schema":1')
    assert changed != small_export()
    assert "not those that were written" in refused(changed).reason


def test_an_export_of_a_newer_carstore_is_refused_as_that(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(small_export().replace(b'"schema":2', b'"schema":3'))
    with pytest.raises(SchemaTooNew, match="has schema 3"):
        asyncio.run(copies.import_(tmp_path / "x.jsonl", tmp_path / "n.db", open_runs=nothing_open))


def test_a_log_with_right_hashes_that_breaks_the_law_is_not_imported(tmp_path: Path) -> None:
    """The triggers see no JSON, and whoever makes a file can make its hashes fit."""
    data = '{"cause":"created","epoch":0,"log_id":"l","origin":null, "space":1}'
    content = forged(data, kind="log_epoch_started", schema_version=2)
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(CopyFailed, match=r"what was read is damaged at position 1.* Nothing was"):
        asyncio.run(copies.import_(tmp_path / "x.jsonl", tmp_path / "n.db", open_runs=nothing_open))
    assert left_in(tmp_path) == {"x.jsonl"}


def test_the_data_of_an_event_is_bounded_before_it_is_parsed() -> None:
    """Whoever makes a file can make its hashes fit too."""
    assert "nested deeper" in refused(forged('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")).reason
    assert "not JSON" in refused(forged("{")).reason
    assert "stands twice" in refused(forged('{"a":1,"a":2}')).reason


def forged(data: str, version: int = 1, kind: str = "k", schema_version: int = 1) -> bytes:
    """An export whose only event says `data`, with all hashes right."""
    covered = frame("s", kind, schema_version, None, None, None, data)
    digest = link(GENESIS, 1, version, 0, None, None, covered)
    event = Recorded(
        Position(1), StreamName("s"), Version(version), kind, schema_version, Micros(0), None, None,
        None, None, None, data, GENESIS, digest,
    )  # fmt: skip
    file = BytesIO()
    writer = Writer(file)
    writer.header(Header(carstore=1, schema=2, log_id="l", epoch=0, position=1, hash=digest))
    writer.event(event)
    writer.end()
    return file.getvalue()


def test_events_that_no_log_can_hold_are_refused_by_the_triggers() -> None:
    error = refused(forged("{}", version=2))
    assert error.line == 2
    assert "version is not the next one of its stream" in error.reason


def test_a_header_that_names_another_log_is_refused() -> None:
    error = refused(forged("{}"))
    assert error.line == 1
    assert "another log than the events" in error.reason


# --- what they refuse ---


@in_loop
async def test_no_file_is_overwritten(path: Path) -> None:
    there = path.with_name("there")
    there.write_text("mine")
    export = path.with_name("x.jsonl")
    await copies.export(path, export)
    backup = path.with_name("b.db")
    await copies.backup(path, backup)
    for attempt in (
        copies.backup(path, there),
        copies.export(path, there),
        copies.fork(path, there, at=1, open_runs=nothing_open),
        copies.restore(backup, there, open_runs=nothing_open),
        copies.import_(export, there, open_runs=nothing_open),
    ):
        with pytest.raises(AlreadyThere, match="Choose another name"):
            await attempt
    assert there.read_text() == "mine"
    assert left_in(path.parent) == {"there", "x.jsonl", "b.db"}


@in_loop
async def test_a_name_that_was_taken_meanwhile_is_left_alone(path: Path) -> None:
    new = path.with_name("n.db")

    def take(what: str, done: int, last: int) -> None:
        new.write_text("mine")

    with pytest.raises(AlreadyThere):
        await copies.backup(path, new, progress=take)
    assert new.read_text() == "mine"
    assert left_in(path.parent) == {"n.db"}


@in_loop
async def test_force_replaces_a_backup_but_never_what_is_copied(path: Path) -> None:
    copy = path.with_name("b.db")
    await copies.backup(path, copy)
    async with open_store(path) as store:
        await store.log.append(step())
    again = await copies.backup(path, copy, force=True)
    assert again.head.position == 7
    assert events_of(copy) == events_of(path)
    path.with_name("same.db").symlink_to(path)
    for name in (path, path.with_name("same.db")):
        with pytest.raises(AlreadyThere, match="it is what was to be copied"):
            await copies.backup(path, name, force=True)
    assert verify_file(path).ok


@in_loop
async def test_what_another_database_has_left_is_no_part_of_a_new_one(path: Path) -> None:
    wal = path.with_name("n.db-wal")
    wal.write_bytes(b"left")
    for force in (False, True):
        with pytest.raises(AlreadyThere, match="left from another database"):
            await copies.backup(path, path.with_name("n.db"), force=force)
    assert wal.read_bytes() == b"left"


@in_loop
async def test_a_database_that_is_open_is_not_replaced(path: Path) -> None:
    there = new_file(path.with_name("n.db"))
    async with open_store(there) as store:
        before = store.log_id
        for attempt in (
            copies.backup(path, there, force=True),
            copies.export(path, there, force=True),
        ):
            with pytest.raises(AlreadyThere, match=r"it is open in .*process \d+|open has one"):
                await attempt
        await store.log.append(step())
    assert epoch_event(there)["log_id"] == before
    await copies.backup(path, there, force=True)
    assert events_of(there) == events_of(path)


@in_loop
async def test_a_database_that_is_opened_meanwhile_is_not_replaced(path: Path) -> None:
    there = new_file(path.with_name("n.db"))
    opened = stock(there)

    def open_it(what: str, done: int, last: int) -> None:
        opened.execute("SELECT count(*) FROM events").fetchone()  # which opens the WAL

    with pytest.raises(AlreadyThere, match=r"it is open in |open has one"):
        await copies.backup(path, there, force=True, progress=open_it)
    opened.close()
    assert left_in(path.parent) == {"n.db"}
    assert verify_file(there).ok


@in_loop
async def test_where_the_system_does_not_say_who_has_it_open_its_index_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "locks_of", lambda _path: [])
    there = new_file(path.with_name("n.db"))
    async with open_store(there):
        with pytest.raises(AlreadyThere, match="-shm already: a database that is open has one"):
            await copies.backup(path, there, force=True)


@in_loop
async def test_who_may_read_a_backup_may_write_what_is_restored_as_far_as_is_usual(
    path: Path,
) -> None:
    copy, new = path.with_name("b.db"), path.with_name("n.db")
    for umask, mode, expected in (
        (0o002, 0o664, 0o664),
        (0o022, 0o664, 0o644),
        (0o002, 0o640, 0o660),
        (0o077, 0o644, 0o600),
    ):
        path.chmod(mode)
        await copies.backup(path, copy, force=True)
        before = os.umask(umask)
        try:
            await copies.restore(copy, new, open_runs=nothing_open)
        finally:
            os.umask(before)
        assert oct(stat.S_IMODE(new.stat().st_mode)) == oct(expected)
        new.unlink()


@in_loop
async def test_a_position_that_no_integer_holds_is_not_there(path: Path) -> None:
    for at in (2**63, 10**30):
        with pytest.raises(NotFound, match="there is no position"):
            await copies.fork(path, path.with_name("n.db"), at=at, open_runs=nothing_open)
        with pytest.raises(NotFound, match="there is no position"):
            await copies.export(path, path.with_name("n.db"), at=at)


# --- pipes ---


def test_a_log_goes_through_a_pipe_that_is_slow(path: Path) -> None:
    """Both ends are waited for."""
    reading, writing = os.pipe()
    new = path.with_name("n.db")

    async def go() -> None:
        with open(writing, "wb", buffering=0) as into, open(reading, "rb", buffering=0) as out:

            async def give() -> None:
                await asyncio.sleep(0.3)
                await copies.export(path, into)
                into.close()

            await asyncio.gather(give(), copies.import_(out, new, open_runs=nothing_open))
            assert not out.closed

    asyncio.run(go())
    assert events_of(new)[:6] == events_of(path)


def test_a_named_pipe_can_be_imported(path: Path) -> None:
    asyncio.run(copies.export(path, path.with_name("x.jsonl")))
    os.mkfifo(path.with_name("fifo"))
    content = path.with_name("x.jsonl").read_bytes()
    writer = threading.Thread(target=lambda: path.with_name("fifo").write_bytes(content))
    writer.start()
    new = path.with_name("n.db")
    asyncio.run(copies.import_(path.with_name("fifo"), new, open_runs=nothing_open))
    writer.join()
    assert events_of(new)[:6] == events_of(path)
    assert epoch_event(new)["origin"]["path"] is None


@pytest.mark.parametrize("work", ["export", "import"])
def test_waiting_for_a_pipe_ends_when_nobody_waits_for_it(path: Path, work: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:  # until there is no room
        try:
            os.write(writing, b" " * 4096)
        except BlockingIOError:
            break
    if work == "import":
        os.read(reading, 1 << 20)
    os.set_blocking(writing, True)

    async def go() -> None:
        with open(writing, "wb", buffering=0) as into, open(reading, "rb", buffering=0) as out:
            task = asyncio.create_task(
                copies.export(path, into)
                if work == "export"
                else copies.import_(out, path.with_name("n.db"), open_runs=nothing_open)
            )
            await asyncio.sleep(0.3)
            assert not task.done()
            task.cancel()
            async with asyncio.timeout(10):
                with pytest.raises(asyncio.CancelledError):
                    await task

    asyncio.run(go())
    assert left_in(path.parent) == set()


# --- what only a program can have written ---


def export_of(*values: Blob, data: str = "{}", **header: int) -> bytes:
    """An export with these values, and one event."""
    covered = frame("s", "k", 1, None, None, None, data)
    digest = link(GENESIS, 1, 1, 0, None, None, covered)
    event = Recorded(
        Position(1), StreamName("s"), Version(1), "k", 1, Micros(0), None, None,
        None, None, None, data, GENESIS, digest,
    )  # fmt: skip
    file = BytesIO()
    writer = Writer(file)
    first = Header(carstore=1, schema=2, log_id="l", epoch=0, position=1, hash=digest)
    writer.header(evolve(first, **header))
    for value in values:
        writer.blob(value)
    writer.event(event)
    writer.end()
    return file.getvalue()


def test_values_that_no_export_has_are_refused() -> None:
    blob = make_blob("hush", sensitive=True)
    outer = make_blob({"token": blob.reference}, sensitive=False)
    short = Blob(hash_of(b"abc", blob.body), b"abc", blob.body)
    refers = canonical.dumps({"a": outer.reference})
    assert refused(export_of(blob, outer, data=refers)).line == 1  # of another log: all is read
    assert refused(export_of(blob)).reason == f"no event refers to the value {blob.hash}"
    inner = canonical.dumps({"a": blob.reference})
    assert f"the value {outer.hash}" in refused(export_of(blob, outer, data=inner)).reason
    twice = refused(export_of(blob, blob, data=inner))
    assert (twice.line, twice.reason) == (3, "the value stands there twice")
    data = canonical.dumps({"a": short.reference})
    assert refused(export_of(short, data=data)).reason == "the nonce has 3 bytes, not 16 or none"


def test_a_header_that_no_export_has_is_refused() -> None:
    for header in ({"schema": 0}, {"schema": -3}, {"epoch": -1}):
        error = refused(export_of(**header))
        assert error.line == 1
        assert "there is no schema" in error.reason


@in_loop
async def test_wrong_input_is_told_and_makes_nothing(path: Path) -> None:
    new, text = path.with_name("n.db"), path.with_name("text")
    text.write_text("hello " * 1000)
    here = left_in(path.parent)
    with pytest.raises(NotFound, match=r"there is no position '7'.* ends at 6"):
        await copies.fork(path, new, at=7, open_runs=nothing_open)
    with pytest.raises(NotFound, match="there is no position '0'"):
        await copies.fork(path, new, at=0, open_runs=nothing_open)
    with pytest.raises(NotFound, match=r"there is no position '7'.* ends at 6"):
        await copies.export(path, new, at=7)
    with pytest.raises(NotADatabase):
        await copies.backup(text, new)
    with pytest.raises(NotFound, match=r"there is no database .*the one that is to be copied"):
        await copies.restore(path.with_name("none.db"), new, open_runs=nothing_open)
    with pytest.raises(NotFound, match="there is no file"):
        await copies.import_(path.with_name("none"), new, open_runs=nothing_open)
    with pytest.raises(NotFound, match="there is no folder"):
        await copies.backup(path, path.parent / "no" / "n.db")
    with pytest.raises(AlreadyThere, match="it is a folder"):
        await copies.backup(path, path.parent, force=True)
    assert left_in(path.parent) == here


@in_loop
async def test_what_is_damaged_is_not_taken_for_a_copy(path: Path) -> None:
    connection = stock(path)
    connection.executescript(
        "DROP TRIGGER events_update; UPDATE events SET data = '{\"a\":1}' WHERE position = 4"
    )
    connection.close()
    new = path.with_name("n.db")
    with pytest.raises(CopyFailed, match=r"damaged.*Run `carstore verify` on .*a\.db"):
        await copies.backup(path, new)
    with pytest.raises(CopyFailed, match="damaged at position 4"):
        await copies.fork(path, new, at=6, open_runs=nothing_open)
    with pytest.raises(Exception, match="damaged at position 4: the chain of hashes is broken"):
        await copies.export(path, new)
    assert left_in(path.parent) == set()
    await copies.fork(path, new, at=3, open_runs=nothing_open)  # what is before is whole


@in_loop
async def test_events_of_a_newer_carstore_are_not_called_damaged(path: Path) -> None:
    connection = stock(path)
    insert(connection, next_event(connection, kind="of_the_future", data="{}"))
    connection.close()
    with pytest.raises(UnknownEvent, match=r"event 7 is a 'of_the_future'.*newer carstore"):
        await copies.backup(path, path.with_name("n.db"))
    assert left_in(path.parent) == set()


@in_loop
async def test_a_full_disk_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CopyFailed, match=r"was not made: No space left on device\. Nothing"):
            await copies.fork(path, path.with_name("n.db"), at=6, open_runs=nothing_open)
    assert left_in(path.parent) == set()


# --- while others write, and when it ends in the middle ---

WRITER = """
import asyncio, sys
from carstore import Entry, connect
from carstore.events import StateChanged
from carstore.names import StreamName

async def main(path, name):
    async with connect(path, durability="crash") as store:
        print("ready", flush=True)
        for number in range(100_000):
            event = StateChanged(scope="main", key=name, value=number)
            await store.log.append(Entry(StreamName(name), event))

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_backup_is_whole_while_three_processes_append(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_copies, "STEP_PAGES", 2)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"w{number}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(3)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        steps: list[tuple[str, int]] = []

        def progress(what: str, done: int, last: int) -> None:
            steps.append((what, done))

        heads = []
        for number in range(3):
            copy = path.with_name(f"b{number}.db")
            made = asyncio.run(copies.backup(path, copy, progress=progress))
            assert verify_file(copy, head=made.head).ok
            heads.append(made.head.position)
        assert heads == sorted(set(heads)), "nobody wrote meanwhile"
        assert len([what for what, _ in steps if what == "pages copied"]) > 30
        assert all(writer.poll() is None for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert events_of(path)[: heads[-1]] == events_of(path.with_name("b2.db"))


@in_loop
async def test_a_copy_that_nobody_waits_for_ends_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = asyncio.Event()

    def progress(what: str, done: int, last: int) -> None:
        began.set()

    task = asyncio.create_task(copies.backup(path, path.with_name("n.db"), progress=progress))
    gate = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        gate.wait(10)
        return verify_file(*args, **kwargs)

    monkeypatch.setattr(sqlite_copies, "verify_file", slow)
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_in(path.parent) == set()


KILLED = """
import asyncio, os, signal, sys
import sqlite_utils  # once, not in each child
from carstore import copies, placing
from carstore.sqlite import copies as sqlite_copies, exchange

folder, base = sys.argv[1], os.path.join(sys.argv[1], "a.db")
sqlite_copies.STEP_PAGES, sqlite_copies.STEP_EVENTS, exchange.STEP_EVENTS = 2, 2, 2
made = os.path.join(folder, "b.db"), os.path.join(folder, "x.jsonl")
none = lambda run, history: None

def work(name, new, progress):
    return {
        "backup": lambda: copies.backup(base, new, progress=progress),
        "restore": lambda: copies.restore(made[0], new, open_runs=none, progress=progress),
        "fork": lambda: copies.fork(base, new, at=6, open_runs=none, progress=progress),
        "export": lambda: copies.export(base, new, progress=progress),
        "import": lambda: copies.import_(made[1], new, open_runs=none, progress=progress),
    }[name]()

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def child(name, stage, new):
    steps = 0
    def progress(what, done, last):
        nonlocal steps
        steps += 1
        if steps == stage:
            die()
    if stage == "sync":
        placing._sync = die
    elif stage == "name":
        placing.os.link = die
    asyncio.run(work(name, new, progress))

for name in ("backup", "restore", "fork", "export", "import"):
    for stage in (1, 2, "sync", "name"):
        new = os.path.join(folder, f"{name}-{stage}")
        pid = os.fork()
        if pid == 0:
            try:
                child(name, stage, new)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(name, stage, killed, os.path.exists(new), flush=True)
"""


def test_a_killed_command_leaves_nothing_under_the_new_name(path: Path) -> None:
    asyncio.run(copies.backup(path, path.with_name("b.db")))
    asyncio.run(copies.export(path, path.with_name("x.jsonl")))
    before = events_of(path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path.parent)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert len(told) == 20
    assert [line for line in told if line[2:] != ["True", "False"]] == []
    assert events_of(path) == before
    assert verify_file(path.with_name("b.db")).ok


def test_an_export_is_read_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "STEP_EVENTS", 2)
    monkeypatch.setattr(exchange, "MAX_KNOWN_STREAMS", 1)
    monkeypatch.setattr(sqlite_copies, "STEP_EVENTS", 2)
    new = path.with_name("n.db")
    asyncio.run(imported(path, new))
    assert events_of(new)[:6] == events_of(path)
    asyncio.run(copies.fork(path, path.with_name("f.db"), at=5, open_runs=nothing_open))
    assert events_of(path.with_name("f.db"))[:5] == events_of(path)[:5]
