"""Somebody's own plan, killed and resumed."""

import json
from pathlib import Path

import pytest

from engine.prove.broken import BREAKAGES
from engine.prove.plan import NOTHING_COMPARED, OwnPlan, plan_proof
from engine.prove.proof import Outcome
from tests.engine.cli.harness import call, plan

pytestmark = pytest.mark.slow

TOOLS = """
import asyncio, os, time
from engine import ToolContext, tool

@tool(idempotent=True)
async def look(n: int, ctx: ToolContext) -> int:
    print("looking")
    await asyncio.sleep(0.02)
    ctx.set(f"seen {n}", n)
    return n

@tool
def charge() -> str:
    time.sleep(0.15)
    return "charged"

@tool
async def pay() -> str:
    await asyncio.sleep(0.02)
    return "paid"

@tool(idempotent=True)
def forget() -> str:
    time.sleep(0.02)
    raise ValueError("no")

@tool(idempotent=True)
def chance(ctx: ToolContext) -> str:
    ctx.set("when", os.urandom(8).hex())
    return "x"

@tool(idempotent=True)
def vanish() -> str:
    os._exit(7)
"""

LOOKS = plan(*[call(f"a{n}", "look", *([f"a{n - 1}"] if n else []), n=n) for n in range(4)])


def prove(folder: Path, content: object, kills: int = 4, on_doubt: str = "hold") -> Outcome:
    tools, place = folder / "tools.py", folder / "place"
    tools.write_text(TOOLS)
    place.mkdir()
    own = OwnPlan(
        plan=json.dumps(content).encode(), tools=str(tools), on_doubt=on_doubt, kills=kills
    )
    return plan_proof(own).conduct(place, "short", 1, lambda _: None)


def test_a_good_plan_goes_on_wherever_it_is_killed(tmp_path: Path) -> None:
    outcome = prove(tmp_path, LOOKS, kills=8)
    figures = outcome.figures
    assert outcome.holds, outcome
    assert figures["processes killed"] == 8
    assert figures["runs finished"] == figures["files"] == figures["ends compared"]
    assert figures["tool calls"] >= 4 * figures["files"]
    assert figures["events acknowledged"] > 0
    assert not outcome.notes
    assert list((tmp_path / "place").iterdir()) == []


def test_what_must_not_be_repeated_waits_for_a_person(tmp_path: Path) -> None:
    outcome = prove(tmp_path, plan(call("c", "charge")), kills=6)
    assert outcome.holds, outcome
    assert outcome.figures["runs left waiting for a person"] > 0
    assert "wait for a person" in outcome.notes[0]


@pytest.mark.parametrize("on_doubt", ["fail", "retry"])
def test_doubts_are_answered_as_the_user_says(tmp_path: Path, on_doubt: str) -> None:
    outcome = prove(tmp_path, plan(call("c", "charge")), kills=5, on_doubt=on_doubt)
    assert outcome.holds, outcome
    assert outcome.figures["runs left waiting for a person"] == 0
    assert outcome.figures["runs finished"] > 0


@pytest.mark.parametrize("on_doubt", ["hold", "fail"])
def test_the_ends_of_a_plan_that_fails_by_itself_are_compared_too(
    tmp_path: Path, on_doubt: str
) -> None:
    fails = plan(call("l", "look", n=1), call("f", "forget", "l"))
    outcome = prove(tmp_path, fails, kills=2, on_doubt=on_doubt)
    assert outcome.holds, outcome
    assert outcome.figures["ends compared"] == outcome.figures["files"] > 0
    assert "what became of each action" in outcome.notes[0]


def test_that_no_end_was_compared_is_said(tmp_path: Path) -> None:
    outcome = prove(tmp_path, plan(call("c", "charge")), kills=1, on_doubt="hold")
    compared = outcome.figures["ends compared"]
    assert (NOTHING_COMPARED in outcome.notes) is (compared == 0)


def test_ends_that_differ_by_themselves_are_not_compared(tmp_path: Path) -> None:
    outcome = prove(tmp_path, plan(call("l", "look", n=1), call("c", "chance", "l")), kills=2)
    assert outcome.holds, outcome
    assert "does not end alike" in outcome.notes[0]


def test_a_tool_that_ends_its_process_is_told(tmp_path: Path) -> None:
    outcome = prove(tmp_path, plan(call("v", "vanish")))
    assert "exit code 7" in outcome.broken[0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no intent", "no intent: "),
        ("acknowledge early", "lost: "),
        pytest.param("run completed again", "repeated: ", marks=pytest.mark.prove),
        pytest.param("split a batch", "partial: ", marks=pytest.mark.prove),
    ],
)
def test_a_promise_broken_on_purpose_is_noticed(tmp_path: Path, name: str, told: str) -> None:
    pays = plan(*[call(f"a{n}", "pay", *([f"a{n - 1}"] if n else [])) for n in range(6)])
    with BREAKAGES[name].applied():
        outcome = prove(tmp_path, pays, kills=40, on_doubt="retry")
    assert outcome.broken[0].startswith(told)
