"""Logs of every released schema: this program reads, checks, migrates and continues each."""

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carstore import Head, Store
from carstore.blobs import referred
from carstore.events import KINDS
from carstore.names import Position, RunId
from carstore.sqlite.migrations import SCHEMA
from carstore.sqlite.verify import verify, verify_file
from engine import RunResult, Runtime, resolve
from engine.cli.app import COMMANDS
from engine.rules.retries import Backoff
from projections import DOUBTS, LAZY, VIEWS, View, compare, rows, select
from projections.memory import checksum
from tests.carstore.helpers import everything, in_loop, open_store, step, stock
from tests.engine.cli.harness import cli
from tests.golden.record import folded, load, name_of, path_of
from tests.golden.workload import UNFINISHED, Crew, World

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = range(1, SCHEMA + 1)

SHA256 = {
    1: "2b73cd88edbf83c33b6bdeb5db3c14ad96c32f1800668d2211face13538e06db",
    2: "d911cde036462b56df8238c46522d25a100a1f287a1f20467af721481abdb396",
}
"""Of the files: a released one never changes. `python -m tests.golden.make` made them."""


@pytest.fixture(params=SCHEMAS, ids=lambda schema: f"schema {schema}")
def schema(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def golden(schema: int, tmp_path: Path) -> Path:
    """A copy of a golden log."""
    return Path(shutil.copyfile(path_of(schema), tmp_path / "old.db"))


@pytest.fixture
def recorded(schema: int) -> dict[str, Any]:
    return load(path_of(schema))


def events_of(path: Path) -> list[Any]:
    connection = stock(path)
    try:
        return connection.execute("SELECT * FROM events ORDER BY position").fetchall()
    finally:
        connection.close()


def number_of(path: Path) -> int:
    connection = stock(path)
    try:
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        return int(number)
    finally:
        connection.close()


def objects_of(path: Path) -> dict[tuple[str, str], str]:
    connection = stock(path)
    try:
        return {
            (kind, name): sql
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")
            if sql is not None
        }
    finally:
        connection.close()


def test_there_is_a_golden_log_for_each_schema_and_it_never_changes() -> None:
    found = {n: hashlib.sha256(path_of(n).read_bytes()).hexdigest() for n in SCHEMAS}
    assert found == SHA256
    assert not [path for path in path_of(1).parent.iterdir() if "-wal" in path.name]


def test_each_is_of_its_schema_and_the_newest_holds_every_kind_of_event() -> None:
    for n in SCHEMAS:
        assert number_of(path_of(n)) == n
    kinds = {row[3] for row in events_of(path_of(SCHEMA))}
    assert kinds == set(KINDS)


def test_nothing_of_the_machine_that_made_it_is_in_it(schema: int) -> None:
    holders = stock(path_of(schema)).execute(
        "SELECT DISTINCT json_extract(data, '$.holder.host'), json_extract(data, '$.holder.boot'),"
        " json_extract(data, '$.holder.machine') FROM events WHERE kind = 'lease_granted'"
    )
    assert holders.fetchall() == [("größer.example", "boot", "machine")]
    holders.connection.close()
    text = path_of(schema).read_bytes()
    for trace in (b"/tmp", b"/home", b"/root", b"/Users", b"/private", b"localhost"):
        assert trace not in text


# Reading.


@in_loop
async def test_it_is_read_without_being_changed(golden: Path, recorded: dict[str, Any]) -> None:
    before = golden.read_bytes()
    async with open_store(golden, readonly=True) as store:
        found = await verify(store)
        assert found.problems == ()
        await check_contents(store, recorded)
        for recorded_event in await everything(store):
            assert recorded_event.event.kind == recorded_event.kind
    assert verify_file(golden).ok
    assert golden.read_bytes() == before


@in_loop
async def test_its_values_beside_the_log_are_read_and_an_older_one_has_none(
    schema: int, golden: Path
) -> None:
    async with open_store(golden, readonly=True) as store:
        infos = await store.blobs.infos()
        held = await store.blobs.read([one.hash for one in infos])
        changes = [one.event for one in await everything(store, kinds=["state_changed"])]
        values = [await store.blobs.fill(one.value) for one in changes]  # type: ignore[union-attr]
        unknown = {"$blob": "0" * 64, "bytes": 1}
        assert await store.blobs.fill([unknown]) == [unknown]
        assert await store.blobs.read(["0" * 64]) == {}
        if schema == 1:
            assert (infos, held) == ([], {})
        else:
            assert {one.sensitive for one in infos} == {True, False}
            assert "Eule" in values
            assert "Eule" in held.values()
            assert sum(referred(value) is not None for value in values) == 1  # the forgotten one


@in_loop
async def test_it_is_followed(golden: Path, recorded: dict[str, Any]) -> None:
    async with open_store(golden, readonly=True) as store:
        positions = []
        async for one in store.log.follow():
            positions.append(one.position)
            if one.position == recorded["head"]["position"]:
                break
        assert positions == list(range(1, len(positions) + 1))


async def check_contents(store: Store, recorded: dict[str, Any]) -> None:
    """Every view says what it said when the log was recorded, folded anew and as stored."""
    position, digest = await store.log.head()
    assert {"position": position, "hash": digest} == recorded["head"]
    for view in VIEWS:
        wanted = recorded["views"].get(name_of(view))
        assert wanted is not None, (
            f"{name_of(view)} is not recorded yet: `python -m tests.golden.make --record FILE`"
        )
        assert await folded(store, view) == wanted, view.name
        assert await compare(store, view) == []
        if view in LAZY:
            assert checksum(view, await rows(store, view)) == wanted["checksum"]


@in_loop
async def test_views_of_the_past_are_what_they_were(golden: Path) -> None:
    async with open_store(golden, readonly=True) as store:
        stored = await stored_in_the_middle(golden)
        for view in LAZY:
            if name_of(view) in stored:
                at, was = stored[name_of(view)]
                now = await rows(store, view, at=at)
                assert sorted(map(repr, map(view.values_of, now.values()))) == was


async def stored_in_the_middle(path: Path) -> dict[str, tuple[int, list[str]]]:
    """The rows that the old program stored, while the log was as long as they say."""
    connection = stock(path)
    found: dict[str, tuple[int, list[str]]] = {}
    stored: set[str] = set()
    for name, version, at in connection.execute("SELECT * FROM view_positions").fetchall():
        table = connection.execute(f"SELECT * FROM view_{name}_v{version}").fetchall()
        stored.add(name)
        view: View[Any, Any] = next(one for one in VIEWS if one.name == name)
        if view.version == version:  # what became of an older one is recorded beside the file
            made = [_as_values(view, row) for row in table]
            found[name_of(view)] = (at, sorted(map(repr, made)))
    connection.close()
    assert len(stored) >= 7
    return found


def _as_values(view: View[Any, Any], row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        bool(value) if column.type is bool and value is not None else value
        for column, value in zip(view.columns, row, strict=True)
    )


READING = [
    ["runs"],
    ["show", "mixed"],
    ["show", "undone"],
    ["log"],
    ["search", "Eule"],
    ["state"],
    ["state", "--at", "51"],
    ["costs"],
    ["why", "step"],
    ["views"],
    ["view", "actions"],
    ["doubts"],
    ["approvals"],
    ["waits"],
    ["pursuits"],
    ["budgets"],
    ["rules"],
    ["verify"],
    ["head"],
    ["blobs"],
    ["backup", "NEW"],
    ["restore", "NEW"],
    ["fork", "NEW", "--at", "100"],
    ["export", "NEW"],
    ["salvage", "NEW"],
]
"""Commands that read a file, the name of a new one as NEW."""

NOT_READING = {
    "run", "resume", "resolve", "rebuild", "forget", "import", "demo", "prove", "new", "completion",
    "version", "budget", "check", "approve", "reject", "signal", "cancel",
    "doctor",  # it also judges the machine, so how it ends depends on that
}  # fmt: skip


def test_no_command_that_reads_is_left_out() -> None:
    assert {command for command, *_ in READING} | NOT_READING == COMMANDS.keys()


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_command_that_reads_reads_it(golden: Path, command: list[str]) -> None:
    before = golden.read_bytes()
    new = golden.with_name("new.db")
    verb, *words = [str(new) if word == "NEW" else word for word in command]
    done = cli(verb, str(golden), *words, "--json")
    assert done.code == 0, done
    for printed in done.stdout.splitlines() if verb == "log" else [done.stdout]:
        json.loads(printed)
    assert golden.read_bytes() == before
    if verb in ("restore", "fork", "salvage"):
        assert number_of(new) == SCHEMA
    if "NEW" in command and verb != "export":
        assert verify_file(new).problems == ()


def test_what_was_exported_is_imported(golden: Path, recorded: dict[str, Any]) -> None:
    lines, new = golden.with_name("lines"), golden.with_name("new.db")
    assert cli("export", str(golden), str(lines)).code == 0
    assert cli("import", str(lines), str(new)).code == 0
    head = Head(Position(recorded["head"]["position"]), recorded["head"]["hash"])
    assert verify_file(new, head=head).problems == ()


def test_the_doctor_can_look_at_it(golden: Path) -> None:
    before = golden.read_bytes()
    done = cli("doctor", str(golden), "--json")
    assert done.code in (0, 1)
    assert json.loads(done.stdout)
    assert golden.read_bytes() == before


def test_the_script_of_the_standard_library_verifies_it(
    golden: Path, recorded: dict[str, Any]
) -> None:
    head = f"{recorded['head']['position']}:{recorded['head']['hash']}"
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "docs/verify_chain.py"), str(golden), "--head", head],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Writing.


@in_loop
async def test_opening_it_for_writing_brings_the_schema_and_leaves_the_history(
    golden: Path, recorded: dict[str, Any], path: Path
) -> None:
    before = events_of(golden)
    async with open_store(golden) as store:
        assert (await verify(store)).problems == ()
        await check_contents(store, recorded)
        done = await store.log.append(step())
        assert done.first == recorded["head"]["position"] + 1
        assert (await verify(store)).problems == ()
    assert events_of(golden)[:-1] == before
    assert number_of(golden) == SCHEMA
    assert objects_of(path).items() <= objects_of(golden).items()  # those that a new file has
    assert events_of(golden)[-1][12] == recorded["head"]["hash"]


LEFT = {
    1: {"asked", "asked-undo", "cut-off", "orphaned", "unknown"},
    2: {"asked", "asked-undo", "unknown"},
}
"""The runs that each log leaves unfinished."""

GO_ON_BY_THEMSELVES = {1: {"cut-off", "orphaned"}, 2: set[str]()}
"""Those that nobody has to be asked about: not in a copy, and without a call in doubt."""


@in_loop
async def test_runs_that_an_older_program_left_are_finished(schema: int, golden: Path) -> None:
    before = events_of(golden)
    crew = Crew()
    crew.dead.update(f"incarnation-{number}" for number in range(200))
    async with open_store(golden, processes=crew) as store:
        world = World(store, vanishing=False)
        runtime = Runtime(store, world.tools(), backoff=Backoff(base_ms=0))
        assert set(await runtime.unfinished()) == LEFT[schema]
        ended = [one for one in await runtime.recover() if isinstance(one, RunResult)]
        assert {one.run_id for one in ended} == LEFT[schema]
        done = {one.run_id for one in ended if one.status.value == UNFINISHED[one.run_id]}
        assert done == GO_ON_BY_THEMSELVES[schema]
        for run_id in LEFT[schema] - done:
            assert await finish(store, runtime, run_id) == UNFINISHED[run_id]
        assert await runtime.unfinished() == []
        assert (await verify(store)).problems == ()
        for view in VIEWS:
            assert await compare(store, view) == []
    assert events_of(golden)[: len(before)] == before


async def finish(store: Store, runtime: Runtime, run_id: str) -> str:
    """Accept that the run goes on in this file, and answer for its calls."""
    await runtime.resume(run_id, accept_copy=True, by="we")
    for doubt in await select(store, DOUBTS, run_id=run_id):
        answer = {"sent": "by hand"}
        await resolve(store, RunId(run_id), doubt.action_id, "succeeded", output=answer, by="we")
    return (await runtime.resume(run_id)).status.value


@in_loop
async def test_what_an_older_program_remembered_is_reused(golden: Path) -> None:
    from tests.golden.workload import REUSED

    async with open_store(golden) as store:
        runtime = Runtime(store, World(store).tools())
        await runtime.execute(REUSED, run_id="new")
        kinds = [one.kind for one in await everything(store, run=RunId("new"))]
        assert "action_deduplicated" in kinds


def test_two_programs_that_migrate_it_at_once_agree(golden: Path) -> None:
    before = len(events_of(golden))

    async def both() -> None:
        stores = await asyncio.gather(*[_opened(golden) for _ in range(2)])
        await asyncio.gather(*[store.log.append(step()) for store in stores])
        for store in stores:
            await store.close()

    asyncio.run(both())
    assert verify_file(golden).problems == ()
    assert len(events_of(golden)) == before + 2


async def _opened(path: Path) -> Store:
    return await open_store(path)
