"""The checks against the engine: what they say of a plan is what becomes of it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carstore import connect
from engine import Proposal, Runtime
from engine.checks import Code, Simulation, simulate, verify
from engine.checks.unknown import has_unknown
from engine.ir import RunResult, RunStatus
from engine.policy_file import policies_of
from engine.rules.capabilities import CapabilitySet, as_policy
from engine.rules.graph import build_graph
from tests.engine.checks.plans import plans, states, table, toolbox
from tests.engine.harness import NO_WAIT, state_of, write

RUNS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def run(
    plan: Proposal, before: dict[str, Any], schedule: str, **options: Any
) -> tuple[RunResult, dict[str, Any]]:
    """Run a plan on a state, and say what it came to and what it left."""

    async def go() -> tuple[RunResult, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            async with connect(Path(folder) / "a.db", durability="crash") as store:
                first = [
                    write(f"w{n}", key, value) for n, (key, value) in enumerate(before.items())
                ]
                done = await Runtime(store).execute(Proposal(id="first", actions=first))
                assert done.status is RunStatus.SUCCEEDED
                runtime = Runtime(store, toolbox(), schedule=schedule, backoff=NO_WAIT, **options)
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
    """Who knows more finds an error too, perhaps another one; or that what has it is skipped."""
    known = verify(plan, tools=table(), state=before)
    skipped = any(one.code is Code.UNREACHABLE for one in known.issues)
    for tools, state in ((table(), None), (None, before), (None, None)):
        less = verify(plan, tools=tools, state=state)
        assert less.valid or not known.valid or skipped


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
            found = seeing.state.get(key)
            exists, value = (False, None) if found is None else (found.exists, found.value)
            assert (exists, value) == (left.exists, left.value)


RULES: list[dict[str, Any]] = [
    {"deny_tool": "strict"},
    {"deny_keyword": "ab"},
    {"deny_tool_param": {"tool": "free", "param": "n"}},
    {"deny_tool_param": {"tool": "free", "param": "m", "equals": 1}},
    {"allow_tool_param": {"tool": "typed", "param": "n", "allow": [0, 1]}},
    {"require_state": {"tool": "typed", "key": "x", "value": 1}},
    {"require_state": {"key": "y", "value": 0}},
]
MAY = [
    CapabilitySet(),
    CapabilitySet(denied_tools=["writes"]),
    CapabilitySet(allowed_state_keys=["x", "y*"]),
    CapabilitySet(allowed_tools=["typed", "free", "writes"]),
]


@RUNS
@given(
    plan=plans(),
    before=states,
    schedule=st.sampled_from(["levels", "eager"]),
    rules=st.lists(st.sampled_from(RULES), max_size=2, unique_by=str),
    may=st.sampled_from(MAY),
)
def test_what_the_rules_are_said_to_forbid_they_forbid(
    plan: Proposal,
    before: dict[str, Any],
    schedule: str,
    rules: list[dict[str, Any]],
    may: CapabilitySet,
) -> None:
    """No false error of authority; and what is forbidden of a plan of known values is found."""
    policies = [policies_of(rule) for rule in rules]
    report = verify(plan, tools=table(), state=before, policies=policies, capabilities=may)
    result, _ = run(plan, before, schedule, policies=[*policies, as_policy(may)])
    succeeded = all(one.status == "succeeded" for one in result.results)
    if report.errors:
        assert not succeeded
    known = all(
        action.tool != "writes" and "$" not in repr(action.parameters) for action in plan.actions
    )
    ordered = not any("require_state" in rule for rule in rules)
    if report.valid and known and ordered:
        open_still = any(one.code is Code.MAY_FAIL for one in report.issues)
        assert open_still or all(one.status != "rejected" for one in result.results)
