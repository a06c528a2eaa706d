"""The proofs on a disk that fails, in short, and each of them against what it must catch."""

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from engine.prove.broken import BREAKAGES
from engine.prove.disk import DISK_PROOFS
from engine.prove.disk.images import VanishingDisk
from engine.prove.disk.nursery import Ended, Life, Nursery, _cradle
from engine.prove.disk.shim import Disk, Fault, why_not
from engine.prove.disk.trace import read_trace
from engine.prove.family import ProofFailed
from engine.prove.proof import Outcome, Proof, Scale

pytestmark = pytest.mark.slow

BY_NAME = {proof.name: proof for proof in DISK_PROOFS}
AFTER_OPENING = 6
"""The sync of the file itself that is one of a checkpoint; while it is made, there are three."""

BROKEN = [one.name for one in BREAKAGES.values() if one.caught_by in BY_NAME]

TRIED = {
    "killed at an operation": ["processes killed", "runs finished", "events acknowledged"],
    "torn writes": ["processes killed", "runs finished", "events acknowledged"],
    "power loss": ["disk images", "events acknowledged", "of them without some acknowledged event"],
    "full disk": ["disks filled", "appends and openings refused", "events acknowledged"],
    "failing disk": ["of them that met the failure", "of them in a checkpoint", "appends refused"],
}
"""What a proof must have done to have proved anything."""


@pytest.fixture(scope="module", autouse=True)
def _a_disk_that_can_fail() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def conduct(proof: Proof, place: Path, scale: Scale = "short") -> Outcome:
    return proof.conduct(place, scale, 7, lambda said: None)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_what_is_promised_holds_on_a_disk_that_fails(name: str, tmp_path: Path) -> None:
    outcome = conduct(BY_NAME[name], tmp_path)
    assert outcome.broken == []
    assert outcome.holds
    assert all(outcome.figures[what] > 0 for what in TRIED[name]), outcome.figures


@pytest.mark.prove
@pytest.mark.parametrize("name", list(BY_NAME))
def test_what_is_promised_holds_at_length(name: str, tmp_path: Path) -> None:
    outcome = conduct(BY_NAME[name], tmp_path, "long")
    assert outcome.broken == []
    assert outcome.holds


@pytest.mark.prove
@pytest.mark.parametrize("name", BROKEN)
def test_a_promise_broken_on_purpose_is_caught(name: str, tmp_path: Path) -> None:
    breakage = BREAKAGES[name]
    with breakage.applied():
        outcome = BY_NAME[breakage.caught_by].run(tmp_path, "short", 7, lambda said: None)
    assert outcome.broken != []


def test_each_of_these_proofs_has_something_to_catch() -> None:
    assert {BREAKAGES[name].caught_by for name in BROKEN} == BY_NAME.keys()


@pytest.mark.parametrize("proof", DISK_PROOFS, ids=list(BY_NAME))
def test_without_a_compiler_a_proof_is_skipped_and_says_why(
    proof: Proof, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    outcome = conduct(proof, tmp_path)
    assert outcome.skipped == "needs a C compiler (cc): there is none on the PATH"
    assert not outcome.holds


def test_elsewhere_than_on_linux_a_proof_is_skipped_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    outcome = conduct(DISK_PROOFS[0], tmp_path)
    assert outcome.skipped is not None
    assert "needs Linux" in outcome.skipped


# --- the library itself ---


@pytest.fixture
def nursery(tmp_path: Path) -> Nursery:
    (tmp_path / "disk").mkdir()
    return Nursery(tmp_path)


def probed(nursery: Nursery, disk: Disk) -> Ended:
    """A child that makes a database of one table in the folder `disk`."""
    arguments = {"database": str(nursery.folder / "disk" / "a.db")}
    return nursery.live(Life(name="probe", arguments=arguments, disk=disk))[0]


def disk_of(nursery: Nursery, fault: Fault = "", at: int = 0, keep: int = 0) -> Disk:
    watched, trace = nursery.folder / "disk", nursery.folder / "trace"
    return Disk(watched=watched, trace=trace, fault=fault, on="write", at=at, keep=keep)


def written(nursery: Nursery) -> list[tuple[str, int, int]]:
    traced = read_trace(nursery.folder / "trace", nursery.folder / "disk")
    return [(one.name, one.offset, len(one.data)) for one in traced if one.op == "W"]


def test_a_trace_holds_all_that_was_done(nursery: Nursery) -> None:
    assert probed(nursery, disk_of(nursery)).report > 0
    disk = VanishingDisk()
    for one in read_trace(nursery.folder / "trace", nursery.folder / "disk"):
        disk.do(one)
    made = {name: bytes(file.image(lambda: True)) for name, file in disk.names.items()}
    assert made == {one.name: one.read_bytes() for one in (nursery.folder / "disk").iterdir()}
    assert made.keys() == {"a.db"}


def test_a_process_dies_exactly_before_and_after_a_write(nursery: Nursery) -> None:
    probed(nursery, disk_of(nursery))
    all_of_it = written(nursery)
    for fault, done in (("kill-before", 2), ("kill-after", 3)):
        _begin_anew(nursery)
        assert probed(nursery, disk_of(nursery, fault, at=3)).killed
        assert written(nursery) == all_of_it[:done]


def test_of_a_torn_write_the_beginning_is_there(nursery: Nursery) -> None:
    probed(nursery, disk_of(nursery))
    name, offset, length = written(nursery)[3]
    _begin_anew(nursery)
    assert probed(nursery, disk_of(nursery, "tear", at=4, keep=length - 1)).killed
    assert written(nursery)[3] == (name, offset, length - 1)


def test_a_write_that_fails_is_told(nursery: Nursery) -> None:
    with pytest.raises(ProofFailed, match="disk I/O error"):
        probed(nursery, disk_of(nursery, "fail-once", at=3))


def test_a_failed_sync_of_a_checkpoint_stops_the_store(nursery: Nursery) -> None:
    database = nursery.folder / "disk" / "agents.db"
    disk = Disk(
        watched=database.parent, fault="fail-once", on="sync", only=database.name, at=AFTER_OPENING
    )
    arguments = {"database": str(database), "seed": 1, "count": 40, "at": AFTER_OPENING}
    (ended,) = nursery.live(Life(name="failing", arguments=arguments, disk=disk))
    report = ended.report
    assert report["met"] == "working"
    assert set(report["answers"][report["after"] :]) == {"io_error"}
    (found,) = nursery.live(Life(name="reopened", arguments={"database": str(database)}))
    assert found.report["broken"] == []


def test_a_disk_that_fills_up_while_a_file_is_made_is_told_as_full(nursery: Nursery) -> None:
    for room in (0, 16_000, 44_000):  # no file, no shared memory, no WAL
        watched, freed = nursery.folder / f"disk {room}", nursery.folder / f"freed {room}"
        watched.mkdir()
        arguments = {"seed": room, "freed": str(freed), "more": 1}
        arguments["database"] = str(watched / "agents.db")
        disk = Disk(watched=watched, fault="full", room=room, freed=freed)
        (ended,) = nursery.live(Life(name="full", arguments=arguments, disk=disk))
        assert ended.report["broken"] == []
        assert ended.report["refused"] > 0


def test_a_life_that_hangs_is_ended(nursery: Nursery) -> None:
    database = nursery.folder / "disk" / "a.db"
    arguments = {"database": str(database), "seed": 1, "seconds": 60}
    (ended,) = nursery.live(Life(name="outsider", arguments=arguments), seconds=0.1)
    assert ended == Ended(None)


def test_the_process_that_bears_children_is_replaced_when_it_died(nursery: Nursery) -> None:
    assert probed(nursery, disk_of(nursery)).code == 0
    _cradle().process.kill()
    with pytest.raises(ProofFailed, match="does not answer"):
        probed(nursery, disk_of(nursery))
    assert nursery.reaches_sqlite()


def test_what_is_not_watched_is_left_alone(nursery: Nursery) -> None:
    elsewhere = Disk(watched=nursery.folder / "elsewhere", fault="fail-from", at=1)
    assert probed(nursery, elsewhere).report == 0
    connection = sqlite3.connect(nursery.folder / "disk" / "a.db")
    assert connection.execute("SELECT count(*) FROM probe").fetchone() == (0,)
    connection.close()


def _begin_anew(nursery: Nursery) -> None:
    (nursery.folder / "trace").unlink()
    for one in (nursery.folder / "disk").iterdir():
        one.unlink()
