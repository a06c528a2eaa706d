"""The watching process: it kills when it is time, and says so when it could not."""

import asyncio
import json
from pathlib import Path

import pytest

from engine.demo.calls import Kill
from engine.demo.place import Place, taken
from engine.demo.plan import make_plan
from engine.demo.walk import Listing
from engine.demo.watch import DemoFailed, TooFast, run_and_kill
from engine.plan_json import proposal_to_dict

pytestmark = pytest.mark.slow


class Notes:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.settled: list[int] = []
        self.kills: list[Kill] = []

    def started(self, pid: int) -> None:
        self.pids.append(pid)

    def progressed(self, settled: int) -> None:
        self.settled.append(settled)

    def killed(self, kill: Kill) -> None:
        self.kills.append(kill)


def planned(place: Place) -> int:
    plan = make_plan(Listing(root="/f"), str(place.report.resolve()))
    place.plan.write_text(json.dumps(proposal_to_dict(plan)))
    return len(plan.actions)


def test_each_kill_happens_after_its_share_and_another_process_goes_on(tmp_path: Path) -> None:
    notes = Notes()
    with taken(tmp_path / "kept") as place:
        actions = planned(place)
        kills = asyncio.run(run_and_kill(place, actions, notes, shares=(0.1, 0.5)))
    assert kills == notes.kills
    assert len(set(notes.pids)) == 3
    assert [kill.pid for kill in kills] == notes.pids[:2]
    assert len(kills[0].completed) >= 0.1 * actions
    assert kills[0].completed < kills[1].completed
    assert notes.settled[-1] == actions


def test_a_run_that_is_over_before_it_can_be_killed_is_no_proof(tmp_path: Path) -> None:
    with taken(tmp_path / "kept") as place, pytest.raises(TooFast, match="0 of 1 kills"):
        asyncio.run(run_and_kill(place, planned(place), Notes(), shares=(1.5,)))


def test_a_process_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    with taken(tmp_path / "kept") as place:
        place.plan.write_text("no JSON")
        with pytest.raises(DemoFailed, match="InvalidProposal"):
            asyncio.run(run_and_kill(place, 1, Notes(), shares=()))
