"""What every policy keeps to: one of a function, one from data, and one of an object of a user's.

The port is the class `Policy` with its `decide`; whatever can be called serves as that. All three
here say the same: `deploy` needs the state `ready`, and `send` needs a person.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from carstore import events as e
from carstore.log import NEVER_WRITTEN, StateRead
from carstore.names import Position, RunId
from engine.approvals import approve
from engine.ir import Action, ActionType
from engine.policies import Ask, Judged, Policy, PolicyChanged, Violation, ask, policy
from engine.policy_file import policies_of
from tests.engine.harness import (
    Hands,
    call,
    count_appends,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    set_state,
)

R = RunId("r")


@frozen
class Pair:
    """One policy that forbids and one that asks, in a certain way of writing them."""

    forbids: Policy
    asks: Policy
    is_data: bool = False

    @property
    def both(self) -> list[Policy]:
        return [self.forbids, self.asks]


def of_functions() -> Pair:
    @policy(name="needs_ready", reads=["ready"])
    def needs_ready(judged: Judged) -> object:
        if judged.action.tool == "deploy" and judged.state("ready").value is not True:
            return "it is not ready"
        return None

    @policy(name="ask_to_send")
    def ask_to_send(judged: Judged) -> Iterator[object]:
        if judged.action.tool == "send":
            yield ask("goes outside", approvers=2)

    return Pair(needs_ready, ask_to_send)


def of_data() -> Pair:
    return Pair(
        policies_of({"require_state": {"tool": "deploy", "key": "ready", "value": True}}),
        policies_of(
            {"require_approval": {"tool": "send", "reason": "goes outside", "approvers": 2}}
        ),
        is_data=True,
    )


@define
class Guard:
    """An object of a user's, with what it has to know."""

    tool: str
    answer: object
    key: str | None = None
    asked: list[str] = field(factory=list)

    def __call__(self, judged: Judged) -> object:
        self.asked.append(judged.action.id)
        if judged.action.tool != self.tool:
            return None
        if self.key is not None and judged.state(self.key).value is True:
            return None
        return self.answer


def of_objects() -> Pair:
    return Pair(
        Policy(
            name="guard",
            digest="1" * 64,
            reads=("ready",),
            tool="deploy",
            decide=Guard("deploy", Violation("", "it is not ready"), "ready"),
        ),
        policy(name="asks")(Guard("send", [ask("goes outside", approvers=2)])),
    )


ALL: dict[str, Callable[[], Pair]] = {
    "function": of_functions,
    "data": of_data,
    "object": of_objects,
}
each = pytest.mark.parametrize("pair", [make() for make in ALL.values()], ids=ALL)


def judged(
    tool: str, parameters: Any = None, read: Callable[[str], StateRead] = lambda _: NEVER_WRITTEN
) -> Judged:
    action = Action(id="a", tool=tool)
    return Judged(
        action=action,
        schema=None,
        parameters={} if parameters is None else parameters,
        state=read,
        recent_calls=lambda tool, interval_us: 0,
        run_id="r",
        source="planner",
    )


def holding(value: Any = True) -> Callable[[str], StateRead]:
    return lambda _: StateRead(value, exists=True, position=Position(1))


# --- one judgement ---


@each
def test_what_a_policy_is_not_about_it_has_nothing_against(pair: Pair) -> None:
    for one in pair.both:
        assert one.judge(judged("other")) == []
    assert pair.forbids.judge(judged("deploy", read=holding())) == []


@each
def test_its_answers_bear_its_name(pair: Pair) -> None:
    [violation] = pair.forbids.judge(judged("deploy"))
    assert isinstance(violation, Violation)
    assert violation.policy == pair.forbids.name
    assert violation.reason
    assert pair.asks.judge(judged("send")) == [Ask(pair.asks.name, "goes outside", None, 2)]


json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@each
@given(
    tool=st.sampled_from(["deploy", "send", "other"]),
    parameters=st.dictionaries(st.text(max_size=3), json, max_size=3),
    value=json,
)
def test_the_same_action_is_judged_the_same_way_and_not_changed(
    pair: Pair, tool: str, parameters: dict[str, Any], value: Any
) -> None:
    before = repr(parameters)
    for one in pair.both:
        action = judged(tool, parameters, holding(value))
        answers = one.judge(action)
        assert one.judge(action) == answers
        assert all(answer.policy == one.name for answer in answers)
    assert repr(parameters) == before


@each
def test_it_looks_only_at_the_keys_that_it_declares(pair: Pair) -> None:
    looked: list[str] = []

    def read(key: str) -> StateRead:
        looked.append(key)
        return NEVER_WRITTEN

    for one in pair.both:
        for tool in ("deploy", "send", "other"):
            looked.clear()
            action = judged(tool, read=read)
            one.judge(action)
            assert set(looked) <= set(one.reads_for(action.action))
    assert pair.forbids.reads_for(Action(id="a", tool="deploy")) == ("ready",)


@each
def test_one_that_cannot_answer_forbids(pair: Pair) -> None:
    def read(key: str) -> StateRead:
        raise OSError(key)

    [violation] = pair.forbids.judge(judged("deploy", read=read))
    assert isinstance(violation, Violation)
    assert violation.policy == pair.forbids.name
    assert "OSError" in violation.reason


def meddle(judged: Judged) -> object:
    judged.parameters["list"].append("more")
    return None


def pry(judged: Judged) -> object:
    judged.state("undeclared")
    return None


class Object:
    """A function as an object."""

    def __init__(self, does: Callable[[Judged], object]) -> None:
        self.does = does

    def __call__(self, judged: Judged) -> object:
        return self.does(judged)


@pytest.mark.parametrize("wrap", [lambda does: does, Object], ids=["function", "object"])
def test_code_cannot_change_what_it_judges_nor_look_at_more_than_it_declares(wrap: Any) -> None:
    parameters: dict[str, Any] = {"list": []}
    assert policy(name="p")(wrap(meddle)).judge(judged("t", parameters)) == []
    assert parameters == {"list": []}
    [violation] = policy(name="p", reads=["other"])(wrap(pry)).judge(judged("t"))
    assert "KeyError" in violation.reason


@each
def test_a_policy_is_told_by_its_name_and_digest(pair: Pair) -> None:
    """Two of the same kind and text are one; none has the name of another."""
    assert len({one.name for one in pair.both}) == 2
    assert all(len(one.digest) == 64 for one in pair.both)
    assert all((one.rule is not None) == pair.is_data for one in pair.both)


@each
def test_a_state_action_is_no_call_of_a_tool(pair: Pair) -> None:
    action = Action(id="a", type=ActionType.STATE_WRITE, parameters={"key": "k", "value": "deploy"})
    given = evolve(judged("deploy"), action=action, parameters=action.parameters)
    assert [one.judge(given) for one in pair.both] == [[], []]


# --- under the engine ---


@each
@in_loop
async def test_what_it_forbids_is_not_called_and_is_recorded(pair: Pair, tmp_path: Path) -> None:
    hands = Hands()
    async with opened(tmp_path / "log.db") as store:
        actions = [call("a", "deploy"), call("b", "other")]
        tools = [hands.tool("deploy"), hands.tool("other")]
        seen = await execute(store, tools, plan(*actions), policies=pair.both)
    assert seen.statuses == {"a": "rejected", "b": "succeeded"}
    assert hands.names == ["other"]
    [violation] = seen.events(e.PolicyViolation)
    assert (violation.action_id, violation.policy) == ("a", pair.forbids.name)
    assert seen.live.received.policies == {one.name: one.digest for one in pair.both}


@each
@in_loop
async def test_what_it_allows_is_called(pair: Pair, tmp_path: Path) -> None:
    hands = Hands()
    async with opened(tmp_path / "log.db") as store:
        await set_state(store, {"ready": True})
        tools = [hands.tool("deploy")]
        seen = await execute(store, tools, plan(call("a", "deploy")), policies=pair.both)
    assert seen.status == "succeeded"
    assert hands.names == ["deploy"]


@each
@in_loop
async def test_what_it_asks_people_waits_for_them_and_binds_the_resume(
    pair: Pair, tmp_path: Path
) -> None:
    """A rule that is data is made from the log; one that is code has to be given again."""
    hands = Hands()
    tools = [hands.tool("send"), hands.tool("deploy")]
    actions = [call("a", "send"), call("b", "deploy", dependencies=["a"])]
    async with opened(tmp_path / "log.db") as store:
        first = await execute(store, tools, plan(*actions), run_id="r", policies=pair.both)
        assert (first.status, hands.names) == ("waiting", [])
        [request] = first.events(e.ApprovalRequested)
        assert (request.approvers, request.reasons[0]["policy"]) == (2, pair.asks.name)
        for name in ("ann", "bob"):
            await approve(store, R, "a", by=name)
        given: Sequence[Policy] = pair.both
        if pair.is_data:
            given = []
        else:
            sizes = count_appends(store)
            with pytest.raises(PolicyChanged):
                await resume(store, tools, "r")
            assert sizes == []
        seen = await resume(store, tools, "r", policies=given)
    assert seen.statuses == {"a": "succeeded", "b": "rejected"}
    assert hands.names == ["send"]


@in_loop
async def test_an_object_may_keep_count_of_what_it_was_asked(tmp_path: Path) -> None:
    guard = Guard("deploy", None)
    one = policy(name="counts")(guard)
    hands = Hands()
    async with opened(tmp_path / "log.db") as store:
        tools = [hands.tool("t", fails=1, idempotent=True)]
        action = call("a", "t", failure_behavior="retry")
        seen = await execute(store, tools, plan(action), policies=[one])
    assert seen.status == "succeeded"
    assert guard.asked == ["a"]
