"""`salvage` copies all that is proven of a damaged file, and nothing else."""

import asyncio
import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from carstore.blobs import references_in_text
from carstore.clock import ManualClock
from carstore.errors import (
    AlreadyThere,
    CarstoreError,
    CopyFailed,
    NotFound,
    SchemaTooNew,
    UnknownEvent,
)
from carstore.events import LogEpochStarted, RunPaused
from carstore.log import Recorded
from carstore.names import LeaseName, RunId
from carstore.origin import OpenRun
from carstore.redaction import Redaction
from carstore.sqlite.salvage import Salvaged
from carstore.sqlite.salvage import salvage as salvage_file
from carstore.sqlite.verify import verify_file
from tests.carstore.attack import hash_again, insert, lawless, next_event
from tests.carstore.helpers import (
    change,
    copy_file,
    everything,
    grant,
    open_store,
    rows_of,
    step,
    stock,
    ungrant,
)

EVENTS = 600


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 begins the log; 2 is the grant of run/a, 3 its first event, 4 the release; then changes."""
    path = tmp_path_factory.mktemp("salvage") / "whole.db"

    async def fill() -> None:
        async with open_store(path, clock=ManualClock()) as store:
            lease = LeaseName("run/a")
            token = (await store.log.append(grant(lease))).first
            held = await store.leases.row(lease)
            assert held is not None
            await store.log.append(step("notes"), ungrant(lease, token))
            await store.log.append(*[change(f"k{n % 50}", "x" * 150) for n in range(EVENTS - 4)])

    asyncio.run(fill())
    return path


@pytest.fixture
def file(whole: Path, tmp_path: Path) -> Path:
    return copy_file(whole, tmp_path / "damaged.db")


def salvage(file: Path, **options: Any) -> Salvaged:
    """Into `new.db`, which is checked: whatever comes out verifies and begins as the source did."""
    new = file.with_name("new.db")
    found = salvage_file(file, new, **{"open_runs": lambda *_: None, **options})
    assert verify_file(new, head=found.head).ok
    assert found.path == str(new)
    assert sorted(one.name for one in file.parent.glob("*.part")) == []
    return found


def same_beginning(file: Path, whole: Path, count: int) -> bool:
    """Whether the first events are the same, but for the numbers of their streams."""

    def events(path: Path) -> list[Any]:
        return [(row[0], *row[2:]) for row in rows_of(path)["events"][:count]]

    return events(file) == events(whole) and len(events(file)) == count


def new_events(file: Path) -> list[Recorded]:
    async def read() -> list[Recorded]:
        async with open_store(file.with_name("new.db"), readonly=True) as store:
            return await everything(store)

    return asyncio.run(read())


def edit(file: Path, *statements: str) -> None:
    with lawless(file) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_whole_file_is_copied_as_a_whole(file: Path) -> None:
    before = file.read_bytes()
    found = salvage(file)
    assert (found.problem, found.untrusted, found.head.position) == (None, 0, EVENTS)
    assert same_beginning(file.with_name("new.db"), file, EVENTS)
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["damaged.db", "new.db"]


def test_the_copy_is_a_log_of_its_own(file: Path) -> None:
    found = salvage(file)
    first = new_events(file)[EVENTS]
    event = first.event
    assert isinstance(event, LogEpochStarted)
    assert (event.cause, event.epoch, event.log_id) == ("salvaged", 1, found.life.log_id)
    assert event.origin["path"] == str(file)
    assert (event.origin["position"], event.origin["hash"]) == found.head


@pytest.mark.parametrize(
    ("statement", "position", "code", "untrusted"),
    [
        ("DELETE FROM events WHERE position = 300", 300, "gap", EVENTS - 300),
        ("UPDATE events SET data = '{}' WHERE position = 300", 300, "hash", EVENTS - 299),
        ("UPDATE events SET hash = 'x' WHERE position = 300", 300, "hash", EVENTS - 299),
        ("UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE position = 300", 300, "unreadable",
         EVENTS - 299),
        ("UPDATE streams SET name = 'other' WHERE stream_id = 3", 3, "hash", EVENTS - 2),
        ("DELETE FROM events WHERE position > 300", None, None, 0),
        ("DROP TABLE leases", None, None, 0),
        ("DELETE FROM leases", None, None, 0),
        ("UPDATE streams SET lease = 'run/a'", None, None, 0),
    ],
)  # fmt: skip
def test_events_up_to_the_first_bad_one_are_copied(
    file: Path, whole: Path, statement: str, position: int | None, code: str | None, untrusted: int
) -> None:
    if statement.startswith("DROP"):
        connection = stock(file)
        connection.execute(statement)
        connection.close()
    else:
        edit(file, statement)
    listed: list[dict[str, Any]] = []
    found = salvage(file, leftover=listed.append)
    assert (found.problem and found.problem.position) == position
    assert (found.problem and found.problem.code) == code
    if position is not None:
        assert found.head.position == position - 1
    assert found.untrusted == len(listed) == untrusted
    assert same_beginning(file.with_name("new.db"), whole, found.head.position)


def test_what_is_not_trusted_is_listed_as_it_stands(file: Path) -> None:
    edit(
        file,
        "UPDATE events SET data = CAST(x'7bff' AS TEXT) WHERE position = 500",
        "UPDATE events SET kind = 'someth\u00efng' WHERE position = 501",
    )
    listed: list[dict[str, Any]] = []
    salvage(file, leftover=listed.append)
    assert [one["position"] for one in listed] == list(range(500, EVENTS + 1))
    assert listed[0]["data"] == "{\\xff"
    assert listed[1]["kind"] == "someth\u00efng"
    assert listed[2]["stream"] == "notes"
    assert json.loads(json.dumps(listed)) == listed


def test_a_forged_chain_is_copied_only_as_far_as_it_keeps_the_law(file: Path) -> None:
    with lawless(file) as connection:
        connection.execute("UPDATE events SET version = 9999 WHERE position = 400")
        hash_again(connection, 400)
    found = salvage(file)
    assert found.problem is not None
    assert (found.problem.position, found.problem.code) == (400, "version")


def test_pages_that_are_gone_cost_what_is_behind_them(whole: Path, tmp_path: Path) -> None:
    file, data, chance = tmp_path / "damaged.db", whole.read_bytes(), random.Random(2)
    copied = []
    for number in range(18):
        damaged = bytearray(data)
        at = chance.randrange(1, len(data) // 4096) * 4096
        if number % 3 == 0:
            damaged[at : at + 4096] = bytes(4096)
        elif number % 3 == 1:
            damaged[at : at + 2048] = chance.randbytes(2048)
        else:
            del damaged[at:]
        file.write_bytes(damaged)
        try:
            found = salvage(file)
        except CopyFailed:
            copied.append(0)
            continue
        copied.append(found.head.position)
        assert same_beginning(tmp_path / "new.db", whole, found.head.position)
        (tmp_path / "new.db").unlink()
    assert sum(count > 0 for count in copied) > 10
    assert len(set(copied)) > 5


@pytest.mark.parametrize("name", ["events_update", "leases_delete", "log", "events_key"])
def test_a_damaged_schema_hides_nothing_that_stands_before_it(file: Path, name: str) -> None:
    connection = stock(file)
    connection.execute("PRAGMA writable_schema = 1")
    connection.execute(f"UPDATE sqlite_master SET sql = 'CREATE ?' WHERE name = '{name}'")
    connection.close()
    assert salvage(file).head.position == EVENTS


def root_of(file: Path, table: str) -> int:
    connection = stock(file)
    (page,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchone()
    connection.close()
    return int(page)


@pytest.mark.parametrize("content", ["zeros", "noise", "header only"])
@pytest.mark.parametrize("place", ["first page", "events", "streams"])
def test_events_are_found_though_no_tree_leads_to_them(
    file: Path, whole: Path, place: str, content: str
) -> None:
    """All but the streams, which are so few that their root holds them."""
    page = 1 if place == "first page" else root_of(file, place)
    data, size = bytearray(file.read_bytes()), 100 if content == "header only" else 4096
    filler = bytes(size) if content != "noise" else random.Random(1).randbytes(size)
    data[(page - 1) * 4096 : (page - 1) * 4096 + size] = filler
    file.write_bytes(data)
    if place == "streams":
        refused(file, CopyFailed)
        return
    found = salvage(file)
    assert (found.head.position, found.way, found.problem) == (EVENTS, "pages", None)
    assert same_beginning(file.with_name("new.db"), whole, EVENTS)


def test_of_pages_the_proven_beginning_is_copied_and_the_rest_listed(file: Path) -> None:
    edit(file, "UPDATE events SET recorded_at = 1 WHERE position = 400")
    data = bytearray(file.read_bytes())
    data[:4096] = bytes(4096)
    file.write_bytes(data)
    listed: list[dict[str, Any]] = []
    found = salvage(file, leftover=listed.append)
    assert (found.head.position, found.way) == (399, "pages")
    assert found.problem is not None
    assert (found.problem.position, found.problem.code) == (400, "hash")
    assert [one["position"] for one in listed] == list(range(400, EVENTS + 1))


def test_of_two_copies_of_a_row_the_proven_one_is_taken(file: Path, whole: Path) -> None:
    """A page that was given up may hold what once stood there, or worse."""
    data, root = bytearray(file.read_bytes()), root_of(file, "view_positions")
    place = data.find(b'"prev":') // 4096 * 4096  # some leaf of the events
    copy = bytes(data[place : place + 4096]).replace(b'"value":"xxx', b'"value":"yyy')
    assert copy != data[place : place + 4096]
    assert (root - 1) * 4096 < place
    data[(root - 1) * 4096 : root * 4096] = copy
    data[:4096] = bytes(4096)
    file.write_bytes(data)
    found = salvage(file)
    assert (found.head.position, found.way) == (EVENTS, "pages")
    assert same_beginning(file.with_name("new.db"), whole, EVENTS)


def test_a_gap_between_pages_ends_the_copy(file: Path) -> None:
    edit(file, "DELETE FROM events WHERE position BETWEEN 300 AND 310")
    data = bytearray(file.read_bytes())
    data[:4096] = bytes(4096)
    file.write_bytes(data)
    found = salvage(file)
    assert found.problem is not None
    assert found.head.position >= 299  # what was deleted may still stand in its page
    assert found.untrusted == EVENTS - 310 or found.head.position > 299


@pytest.fixture
def with_wal(path: Path, tmp_path: Path) -> Path:
    """A file of which a checkpoint has moved 10 events; the others are in its WAL."""
    copy = tmp_path / "damaged.db"

    async def fill() -> None:
        async with open_store(path) as store:
            for n in range(9):
                await store.log.append(change("k", n))
            await store.database.empty_wal()
            for n in range(20):
                await store.log.append(change("k", n))
            for end in ("", "-wal"):  # by another process: closing a file drops our locks
                subprocess.run(["cp", f"{path}{end}", f"{copy}{end}"], check=True)

    asyncio.run(fill())
    return copy


def test_what_is_in_a_wal_is_copied_as_far_as_it_is_whole(with_wal: Path) -> None:
    wal = Path(f"{with_wal}-wal")
    data = bytearray(wal.read_bytes())
    data[32 + 4120 * 20 + 99] ^= 1
    wal.write_bytes(data)
    found = salvage(with_wal)
    assert 10 <= found.head.position < 30
    assert found.way == "whole"
    assert wal.read_bytes() == data


@pytest.mark.parametrize("damage", ["header", "random", "none"])
def test_a_wal_that_cannot_be_used_is_left_out(with_wal: Path, damage: str) -> None:
    wal = Path(f"{with_wal}-wal")
    data = bytearray(wal.read_bytes())
    if damage == "header":
        data[20] ^= 1
    elif damage == "random":
        data = bytearray(random.Random(1).randbytes(90_000))
    wal.write_bytes(data)
    assert salvage(with_wal).head.position == (30 if damage == "none" else 10)


def test_a_wal_that_makes_it_worse_is_left_out(with_wal: Path) -> None:
    """Frames that SQLite takes for whole, and that hold something else."""
    from carstore.sqlite.wal_facts import _checksum

    wal = Path(f"{with_wal}-wal")
    data = bytearray(wal.read_bytes())
    before = _checksum("<", (0, 0), bytes(data[:24]))
    for at in range(32, len(data), 4120):
        if data[at + 8 : at + 16] != data[16:24]:
            break
        data[at + 24 + 200 : at + 24 + 4096] = bytes(3896)
        before = _checksum("<", before, bytes(data[at : at + 8] + data[at + 24 : at + 4120]))
        data[at + 16 : at + 24] = b"".join(half.to_bytes(4, "big") for half in before)
    wal.write_bytes(data)
    assert not verify_file(with_wal).ok
    found = salvage(with_wal)
    assert (found.head.position, found.way) == (10, "without_wal")


@pytest.mark.parametrize("way", ["whole", "pages"])
def test_values_beside_the_log_come_along(path: Path, way: str) -> None:
    async def fill() -> list[Recorded]:
        async with open_store(path) as store:
            for n in range(4):
                await store.log.append(change(f"k{n}", f"{n}" * 500_000))
            return await everything(store)

    blobs = [one for event in asyncio.run(fill()) for one in references_in_text(event.data)]
    assert len(blobs) == 4
    edit(
        path,
        f"DELETE FROM blobs WHERE hash = '{blobs[0]}'",
        f"UPDATE blobs SET body = x'00' WHERE hash = '{blobs[1]}'",
        "DELETE FROM events WHERE position = 5",
    )
    if way == "pages":
        path.write_bytes(bytes(100) + path.read_bytes()[100:])
    found = salvage(path)
    assert (found.head.position, found.values, found.values_lost) == (4, 1, 2)
    assert found.way == way
    forgotten = {event.event.hash for event in new_events(path) if event.kind == "blob_forgotten"}  # type: ignore[union-attr]
    assert forgotten == {blobs[0], blobs[1]}


def test_a_value_that_only_another_value_refers_to_comes_along(path: Path) -> None:
    async def fill() -> None:
        async with open_store(path, redaction=Redaction(names=["password"])) as store:
            await store.log.append(change("a", {"password": "secret", "rest": "x" * 100_000}))

    asyncio.run(fill())
    found = salvage(path)
    assert (found.values, found.values_lost) == (2, 0)
    assert not [event for event in new_events(path) if event.kind == "blob_forgotten"]


def test_a_value_that_a_bad_event_refers_to_as_well_comes_along(path: Path) -> None:
    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(change("a", "x" * 500_000))
            await store.log.append(change("b", "x" * 500_000), change("b", "x" * 500_000))

    asyncio.run(fill())
    with lawless(path) as connection:
        connection.execute(
            "UPDATE events SET data = replace(data, '\"prev\":3', '\"prev\":2') WHERE position = 4"
        )
        hash_again(connection, 4)
    found = salvage(path)
    assert (found.problem and found.problem.code, found.head.position) == ("prev", 3)
    assert (found.values, found.values_lost) == (1, 0)


def test_a_value_that_was_forgotten_and_written_again_later_stays_forgotten(path: Path) -> None:
    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(change("a", "x" * 500_000))
            [blob] = await store.blobs.infos()
            await store.blobs.forget(blob.hash, reason="asked", by="me")
            await store.log.append(change("b", "x" * 500_000))

    asyncio.run(fill())
    edit(path, "UPDATE events SET recorded_at = 1 WHERE position = 4")
    found = salvage(path)
    assert (found.head.position, found.values, found.values_lost) == (3, 0, 0)
    assert rows_of(path.with_name("new.db"))["events"][-1]


def test_unfinished_runs_are_asked_about_and_held(path: Path) -> None:
    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(step("run/r", run="r"))

    asyncio.run(fill())
    asked: list[tuple[str, int]] = []

    def open_runs(run_id: RunId, history: Sequence[Recorded]) -> OpenRun:
        asked.append((run_id, len(history)))
        return OpenRun()

    found = salvage(path, open_runs=open_runs)
    assert asked == [("r", 1)]
    assert found.life.held == ("r",)
    [paused] = [one.event for one in new_events(path) if one.kind == RunPaused.kind]
    assert isinstance(paused, RunPaused)
    assert paused.reason == "copied"


# What cannot be salvaged.


def refused(file: Path, error: type[CarstoreError]) -> None:
    before = sorted(path.name for path in file.parent.iterdir())
    with pytest.raises(error):
        salvage(file)
    assert sorted(path.name for path in file.parent.iterdir()) == before


@pytest.mark.parametrize("data", [b"", b"text" * 3000, bytes(9000), b"SQLite format 3\0" * 500])
def test_a_file_with_nothing_to_trust_makes_no_file(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.db"
    file.write_bytes(data)
    refused(file, CopyFailed)


def test_a_log_whose_first_event_is_bad_makes_no_file(file: Path) -> None:
    edit(file, "UPDATE events SET recorded_at = 5 WHERE position = 1")
    refused(file, CopyFailed)


def test_a_database_of_another_program_makes_no_file(tmp_path: Path) -> None:
    connection = stock(tmp_path / "a.db")
    connection.execute("CREATE TABLE events (position)")
    connection.execute("INSERT INTO events VALUES (1)")
    connection.close()
    refused(tmp_path / "a.db", CopyFailed)


def test_a_file_of_a_newer_carstore_is_left_to_it(file: Path) -> None:
    with lawless(file) as connection:
        data = '{"from":"the future"}'
        insert(connection, next_event(connection, kind="something_new", data=data))
    refused(file, UnknownEvent)
    connection = stock(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    refused(file, SchemaTooNew)


def test_no_file_is_overwritten(file: Path, tmp_path: Path) -> None:
    file.with_name("new.db").write_bytes(b"mine")
    refused(file, AlreadyThere)
    assert file.with_name("new.db").read_bytes() == b"mine"
    refused(tmp_path / "no.db", NotFound)


def test_progress_is_told(file: Path) -> None:
    told: list[tuple[str, int, int]] = []
    salvage(file, progress=lambda *seen: told.append(seen))
    assert ("events read", EVENTS, EVENTS) in told
    assert all(0 <= at <= last for _, at, last in told)
