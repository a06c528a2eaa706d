"""The demonstration says when a promise broke."""

import asyncio
import json
from pathlib import Path

from carstore import connect
from engine import Runtime
from engine.demo.calls import Kill, written_down
from engine.demo.outcome import Outcome, look_back
from engine.demo.place import Place, taken
from engine.demo.plan import RUN_ID, make_plan
from engine.demo.tools import TOOLS
from engine.demo.walk import Listing


def finished(place: Place) -> int:
    """Run the plan of an empty folder without a kill; the number of its actions."""
    plan = make_plan(Listing(root="/f"), str(place.report))

    async def run() -> None:
        async with connect(place.database) as store:
            tools = [written_down(tool, place.calls) for tool in TOOLS]
            await Runtime(store, tools, schedule="eager").execute(plan, run_id=RUN_ID)

    asyncio.run(run())
    return len(plan.actions)


def looked_back(place: Place, actions: int, *kills: Kill) -> Outcome:
    return asyncio.run(look_back(place, actions, kills))


def test_promises_that_were_kept_are_not_broken(tmp_path: Path) -> None:
    with taken(tmp_path / "kept") as place:
        outcome = looked_back(place, finished(place))
    assert outcome.broken == ()
    assert json.loads(json.dumps(outcome.to_dict()))["ok"]


def test_a_completed_action_that_ran_again_is_a_broken_promise(tmp_path: Path) -> None:
    with taken(tmp_path / "kept") as place:
        actions = finished(place)
        lines = place.calls.read_text().splitlines()
        kill = Kill(
            pid=1,
            position=1,
            completed=frozenset({"files"}),
            ended=frozenset({("files", 1)}),
            calls=len(lines),
        )
        again = next(line for line in lines if '"files"' in line)
        place.calls.write_text("\n".join([*lines, again]) + "\n")
        outcome = looked_back(place, actions, kill)
    assert len(outcome.broken) == 1
    assert "files" in outcome.broken[0]
    assert not outcome.to_dict()["ok"]


def test_a_run_that_did_not_succeed_and_a_missing_report_are_broken_promises(
    tmp_path: Path,
) -> None:
    with taken(tmp_path / "kept") as place:

        async def make() -> None:
            async with connect(place.database):
                pass

        asyncio.run(make())
        outcome = looked_back(place, 1)
    assert len(outcome.broken) == 2
