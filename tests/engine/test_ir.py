import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import canonical
from carstore.names import RunId
from engine import ir
from engine.ir import (
    Action,
    ActionRef,
    ActionResult,
    ActionStatus,
    ActionType,
    Assumption,
    CostSummary,
    FailureBehavior,
    NotUndone,
    Operator,
    Precondition,
    Proposal,
    Reversibility,
    RollbackConflict,
    RunResult,
    RunStatus,
    ToolCompensation,
    new_id,
)
from tests.engine.proposals import json_values

NOUNS = [
    Action,
    ActionRef,
    ActionResult,
    Assumption,
    CostSummary,
    NotUndone,
    Precondition,
    Proposal,
    RollbackConflict,
    RunResult,
    ToolCompensation,
]


def test_an_action_that_says_nothing_else_has_the_documented_defaults() -> None:
    action = Action(tool="t")
    assert attrs.asdict(action) == {
        "id": action.id,
        "type": ActionType.TOOL_CALL,
        "tool": "t",
        "parameters": {},
        "preconditions": (),
        "expected_effects": {},
        "state_dependencies": (),
        "dependencies": (),
        "read_set": (),
        "write_set": (),
        "assumptions": (),
        "reversibility": Reversibility.IRREVERSIBLE,
        "compensation": None,
        "idempotent": False,
        "max_retries": 3,
        "failure_behavior": FailureBehavior.ABORT,
        "timeout_ms": None,
        "metadata": {},
    }


def test_a_proposal_needs_actions_and_has_defaults_for_the_rest() -> None:
    proposal = Proposal(actions=[])
    assert (proposal.source, proposal.timestamp, proposal.actions, proposal.context) == (
        "unknown",
        None,
        (),
        {},
    )
    with pytest.raises(TypeError, match="actions"):
        Proposal()  # type: ignore[call-arg]


def test_a_precondition_compares_for_equality_unless_it_says_otherwise() -> None:
    assert Precondition(key="k") == Precondition(
        key="k", operator=Operator.EQ, value=None, description=""
    )


def test_generated_ids_are_twelve_hex_characters_and_differ() -> None:
    made = {new_id() for _ in range(1_000)} | {Action().id, Proposal(actions=[]).id}
    assert len(made) == 1_002
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in made)


def test_lists_become_tuples_and_nothing_else_does() -> None:
    action = Action(
        id="a",
        dependencies=["b", "c"],
        state_dependencies=["k"],
        read_set=["k"],
        write_set=["k"],
        preconditions=[Precondition(key="k")],
        assumptions=[Assumption(key="k")],
    )
    assert action.dependencies == ("b", "c")
    assert action.preconditions == (Precondition(key="k"),)
    assert {action.state_dependencies, action.read_set, action.write_set} == {("k",)}
    assert action.assumptions == (Assumption(key="k"),)
    assert Proposal(actions=[action]).actions == (action,)
    assert Action(dependencies="bc").dependencies == "bc"


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_nouns_are_frozen_and_slotted(noun: type) -> None:
    assert "__slots__" in noun.__dict__
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        object.__new__(noun).anything = 1  # type: ignore[attr-defined]


def test_defaults_are_not_shared_between_actions() -> None:
    first, second = Action(), Action()
    first.parameters["x"] = 1
    assert second.parameters == {}


def test_a_run_result_prints_exactly_the_promised_json() -> None:
    result = RunResult(
        run_id=RunId("r1"),
        proposal_id="p1",
        status=RunStatus.PARTIALLY_COMPENSATED,
        results=[
            ActionResult(
                action_id="a",
                status=ActionStatus.SUCCEEDED,
                output={"n": [1]},
                state_changes={"k": None},
                duration_ms=1.5,
                attempts=2,
                rolled_back=True,
                timestamp="2026-01-31T12:00:00Z",
            ),
            ActionResult(action_id="b", status=ActionStatus.SKIPPED, error="no"),
        ],
        not_undone=[NotUndone("a", "irreversible")],
        conflicts=[RollbackConflict("k", 3, 7)],
        cost=CostSummary(tool_calls=2, actions_executed=1, actions_skipped=1, retries=1),
    )
    assert result.to_dict() == {
        "run_id": "r1",
        "proposal_id": "p1",
        "status": "partially_compensated",
        "results": [
            {
                "action_id": "a",
                "status": "succeeded",
                "output": {"n": [1]},
                "error": None,
                "state_changes": {"k": None},
                "duration_ms": 1.5,
                "attempts": 2,
                "rolled_back": True,
                "timestamp": "2026-01-31T12:00:00Z",
            },
            {
                "action_id": "b",
                "status": "skipped",
                "output": None,
                "error": "no",
                "state_changes": {},
                "duration_ms": None,
                "attempts": 0,
                "rolled_back": False,
                "timestamp": None,
            },
        ],
        "not_undone": [{"action_id": "a", "reason": "irreversible"}],
        "conflicts": [{"key": "k", "ours": 3, "theirs": 7}],
        "cost": {
            "tool_calls": 2,
            "actions_executed": 1,
            "actions_rejected": 0,
            "actions_skipped": 1,
            "total_duration_ms": 0.0,
            "retries": 1,
        },
    }


@given(json_values, st.sampled_from(ActionStatus), st.sampled_from(RunStatus))
def test_every_result_is_plain_json(
    output: object, action_status: ActionStatus, run_status: RunStatus
) -> None:
    results = [ActionResult(action_id="a", status=action_status, output=output)]
    result = RunResult(run_id=RunId("r"), proposal_id="p", status=run_status, results=results)
    canonical.check(result.to_dict())


def test_what_the_module_lists_is_there() -> None:
    assert all(hasattr(ir, name) for name in ir.__all__)
