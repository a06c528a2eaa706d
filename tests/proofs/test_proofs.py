"""The proofs in short, and each of them against what it must catch."""

from pathlib import Path

import pytest

from engine.prove.broken import BREAKAGES
from engine.prove.catalog import proofs
from engine.prove.clock_steps import CLOCK_STEPS
from engine.prove.conduct import attempt, conduct
from engine.prove.disk import DISK_PROOFS
from engine.prove.family import ProofFailed
from engine.prove.kills import campaign
from engine.prove.many_writers import MANY_WRITERS
from engine.prove.proof import Outcome, Progress, Proof, Scale
from engine.prove.rules import RULES

pytestmark = pytest.mark.slow

BY_NAME = {one.name: one for one in proofs()}
DISKS = {one.name for one in DISK_PROOFS}

QUICK = [*RULES, CLOCK_STEPS, MANY_WRITERS]
"""Proofs whose short form takes a second or less; the others are run in short by `prove`."""

CROWDS = ["budgets", "reuse", "people and time", "cancelled runs"]
"""Proofs of what is decided, by several processes that are killed: seconds each, even in short."""

LONG = ["restart", "stopped processes", "budgets", "reuse"]
"""Proofs that take some seconds to notice, even in short."""

TRIED_HERE = [one for one in BREAKAGES.values() if one.caught_by not in DISKS]


def quiet(_: str) -> None:
    """Tell nobody."""


@pytest.mark.parametrize("proof", QUICK, ids=lambda one: one.name)
def test_what_is_promised_holds(proof: Proof, tmp_path: Path) -> None:
    outcome = proof.conduct(tmp_path, "short", 1, quiet)
    assert outcome.holds, outcome
    assert all(value >= 0 for value in outcome.figures.values())
    assert any(outcome.figures.values())


def test_killed_processes_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    figures = campaign(tmp_path, 12, seed=7)
    assert figures.broken == []
    assert figures.kills >= 12
    assert figures.acknowledged > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CROWDS)
def test_killed_crowds_keep_to_what_was_decided(name: str, tmp_path: Path) -> None:
    outcome = BY_NAME[name].run(tmp_path, "short", 5, quiet)
    assert outcome.broken == []
    assert outcome.figures["processes killed"] > 0
    assert outcome.figures["runs finished"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_is_reported(tmp_path: Path) -> None:
    outcome = BY_NAME["bit flips"].run(tmp_path, "short", 3, quiet)
    assert outcome.broken == []
    assert outcome.figures["of them changed or dropped an event"] > 10


@pytest.mark.prove
@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_short_form_holds(name: str, tmp_path: Path) -> None:
    outcome = BY_NAME[name].conduct(tmp_path, "short", 2, quiet)
    assert not outcome.broken, outcome


def notices(name: str) -> None:
    tried = attempt(BREAKAGES[name], BY_NAME, 1, quiet)
    assert not tried.missed


@pytest.mark.prove
@pytest.mark.parametrize("name", [b.name for b in TRIED_HERE if b.caught_by not in LONG])
def test_a_promise_broken_on_purpose_is_noticed(name: str) -> None:
    notices(name)


@pytest.mark.prove
@pytest.mark.parametrize("name", [b.name for b in TRIED_HERE if b.caught_by in LONG])
def test_a_promise_broken_on_purpose_is_noticed_after_a_while(name: str) -> None:
    notices(name)


def test_every_proof_can_fail() -> None:
    assert {one.caught_by for one in BREAKAGES.values()} == set(BY_NAME)


def test_a_breakage_leaves_nothing_behind() -> None:
    from carstore.leases import HeldLease

    before = HeldLease.is_held
    with pytest.raises(ZeroDivisionError), BREAKAGES["never stop"].applied():
        assert HeldLease.is_held is not before
        raise ZeroDivisionError
    assert HeldLease.is_held is before


def test_names_and_promises_are_one_line_each() -> None:
    for one in BY_NAME.values():
        assert one.promise.endswith(".")
        assert "\n" not in one.name + one.promise
        assert "|" not in one.name + one.promise


def found(*broken: str) -> Proof:
    def run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        (place / "evidence").touch()
        return Outcome(figures={"tries": 1}, broken=broken)

    return Proof("made up", "It holds.", run)


def test_files_are_kept_only_if_a_promise_was_broken() -> None:
    held = conduct(found(), "short", 1, quiet)
    assert held.kept is None
    assert held.outcome.holds
    broke = conduct(found("it did not"), "short", 1, quiet)
    assert broke.kept is not None
    assert (broke.kept / "evidence").exists()
    (broke.kept / "evidence").unlink()
    broke.kept.rmdir()


def test_a_proof_that_comes_to_grief_does_not_hold_and_notices_nothing(tmp_path: Path) -> None:
    def run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        raise ProofFailed("a process failed")

    proof = Proof("fence", "It holds.", run)
    assert not proof.conduct(tmp_path, "short", 1, quiet).holds
    assert attempt(BREAKAGES["no fence"], {"fence": proof}, 1, quiet).missed


def test_a_proof_that_finds_nothing_wrong_with_a_broken_promise_is_shown_up() -> None:
    assert attempt(BREAKAGES["no fence"], {"fence": found()}, 1, quiet).missed
