"""The checks against the engine: what they say of a plan is what becomes of it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carstore import connect
from engine import Proposal, Runtime
from engine.checks import Simulation, simulate, verify
from engine.checks.unknown import has_unknown
from engine.ir import RunResult, RunStatus
from engine.rules.graph import build_graph
from tests.engine.checks.plans import plans, states, table, toolbox
from tests.engine.harness import NO_WAIT, state_of, write

RUNS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def run(plan: Proposal, before: dict[str, Any], schedule: str) -> tuple[RunResult, dict[str, Any]]:
    """Run a plan on a state, and say what it came to and what it left."""

    async def go() -> tuple[RunResult, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            async with connect(Path(folder) / "a.db", durability="crash") as store:
                first = [
                    write(f"w{n}", key, value) for n, (key, value) in enumerate(before.items())
                ]
                done = await Runtime(store).execute(Proposal(id="first", actions=first))
                assert done.status is RunStatus.SUCCEEDED
                runtime = Runtime(store, toolbox(), schedule=schedule, backoff=NO_WAIT)
                result = await runtime.execute(plan)
                return result, await state_of(store)

    return asyncio.run(asyncio.wait_for(go(), 30))


def in_turn(plan: Proposal) -> list[str]:
    graph = build_graph(plan.actions)
    return [plan.actions[index].id for level in graph.levels() for index in level]


def compare(forecast: Simulation, result: RunResult, after: dict[str, Any]) -> None:
    """That a run is as it was forecast; what was not known can be anything."""
    assert forecast.status is result.status
    found = {one.action_id: one for one in result.results}
    for one in forecast.actions:
        if one.status is not None:
            assert found[one.action_id].status is one.status, one
        if one.status == "succeeded" and not has_unknown(one.output):
            assert found[one.action_id].output == one.output
    for key, left in forecast.state.items():
        if left.exists is not None:
            assert (key in after) is left.exists, (key, left)
        if left.exists and not has_unknown(left.value):
            assert after[key] == left.value, (key, left)
    if not forecast.outside_writers:
        assert after.keys() <= forecast.state.keys()


@RUNS
@given(plan=plans(), before=states, schedule=st.sampled_from(["levels", "eager"]))
def test_what_is_checked_is_what_happens(
    plan: Proposal, before: dict[str, Any], schedule: str
) -> None:
    """No false error; nothing rejected that could have been known; and simulations come true."""
    report = verify(plan, tools=table(), state=before)
    forecast = simulate(plan, before, tools=table())
    result, after = run(plan, before, schedule)
    statuses = {one.action_id: one.status.value for one in result.results}
    succeeded = {name for name, status in statuses.items() if status == "succeeded"}
    if report.errors:
        assert result.status is not RunStatus.SUCCEEDED or len(succeeded) < len(plan.actions)
    bad = next((name for name in in_turn(plan) if statuses.get(name) in ("failed", "rejected")), "")
    uncertain = {one.action_id for one in forecast.actions if not one.certain}
    if not report.errors and bad:
        # Something that only the run could tell went otherwise, there or before.
        assert uncertain - succeeded
    if forecast.status is not RunStatus.SUCCEEDED:
        assert report.errors
    if uncertain <= succeeded and (schedule == "levels" or result.status != "rolled_back"):
        compare(forecast, result, after)
    outputs = {one.action_id: one.output for one in result.results if one.status == "succeeded"}
    known = simulate(plan, before, outputs, tools=table())
    if (
        all(one.certain for one in known.actions)
        and result.status != "rolled_back"
        and known.status != "rolled_back"
    ):
        compare(known, result, after)


@RUNS
@given(plan=plans(), before=states)
def test_what_is_certain_with_less_known_is_certain_with_more(
    plan: Proposal, before: dict[str, Any]
) -> None:
    """A plan with an error has one whatever else is told; which, may depend on that."""
    known = verify(plan, tools=table(), state=before)
    for tools, state in ((table(), None), (None, before), (None, None)):
        less = verify(plan, tools=tools, state=state)
        assert less.valid or not known.valid


@RUNS
@given(plan=plans(), before=states)
def test_what_is_forecast_without_knowing_the_state_is_forecast_with_it(
    plan: Proposal, before: dict[str, Any]
) -> None:
    blind, seeing = simulate(plan, None, tools=table()), simulate(plan, before, tools=table())
    if [one.status for one in blind.actions] != [one.status for one in seeing.actions]:
        return
    for key, left in blind.state.items():
        if left.exists is not None and not has_unknown(left.value):
            assert (seeing.state[key].exists, seeing.state[key].value) == (left.exists, left.value)
