"""The proofs in short, and each of them against what it must catch."""

from pathlib import Path

import pytest

from tests.proofs.broken import BREAKAGES
from tests.proofs.kill_loop import campaign
from tests.proofs.short import PROOFS, prove

BY_KILLS = [one.name for one in BREAKAGES.values() if one.caught_by == "kills"]
BY_SHORT = [one.name for one in BREAKAGES.values() if one.caught_by != "kills"]


def test_killed_processes_lose_nothing_and_repeat_nothing() -> None:
    figures = campaign(12, seed=7)
    assert figures.broken == []
    assert figures.kills >= 12
    assert figures.acknowledged > 0


@pytest.mark.parametrize("name", list(PROOFS))
def test_what_is_promised_holds(name: str, tmp_path: Path) -> None:
    assert prove(name, tmp_path) == []


@pytest.mark.parametrize("name", BY_SHORT)
def test_a_promise_broken_on_purpose_is_caught(name: str, tmp_path: Path) -> None:
    breakage = BREAKAGES[name]
    with breakage.applied():
        assert prove(breakage.caught_by, tmp_path) != []


@pytest.mark.parametrize("name", BY_KILLS)
def test_the_kill_loop_catches_what_was_broken_on_purpose(name: str) -> None:
    figures = campaign(150, broken=name, alone=True, most_seconds=20)
    assert figures.broken != []


def test_every_breakage_names_a_proof() -> None:
    assert {one.caught_by for one in BREAKAGES.values()} <= {"kills", *PROOFS}
