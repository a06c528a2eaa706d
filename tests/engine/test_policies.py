"""Policies as code: what they may answer, and that one which cannot answer forbids."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import canonical
from carstore.log import NEVER_WRITTEN, StateRead
from carstore.names import Position
from engine.ir import Action
from engine.policies import (
    Ask,
    InvalidPolicy,
    Judged,
    Policy,
    Violation,
    ask,
    deny,
    judge_all,
    only_once,
    policy,
)
from engine.rules.policies import MAX_JUDGEMENTS, MAX_REASON_CHARS


def judged(
    action: Action | None = None,
    parameters: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    calls: Callable[[str, int], int] = lambda tool, interval_us: 0,
    undo: Action | None = None,
) -> Judged:
    """An action to be judged; its parameters are its own unless said."""
    action = action or Action(id="a", tool="t")
    held = state or {}

    def read(key: str) -> StateRead:
        return (
            StateRead(held[key], exists=True, position=Position(1))
            if key in held
            else NEVER_WRITTEN
        )

    return Judged(
        action=action,
        schema=None,
        parameters=action.parameters if parameters is None else parameters,
        state=read,
        recent_calls=calls,
        run_id="r",
        source="planner",
        undo=undo,
    )


def answering(answer: Any) -> Policy:
    return policy(name="p")(lambda _: answer)


def several(*answers: Any) -> Policy:
    @policy(name="p")
    def found(_: Judged) -> Iterator[Any]:
        yield from answers

    return found


@pytest.mark.parametrize("answer", [None, [], (), [None, None]])
def test_one_that_answers_nothing_has_nothing_against_it(answer: Any) -> None:
    assert answering(answer).judge(judged()) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("no", [Violation("p", "no")]),
        (deny("no"), [Violation("p", "no")]),
        (Violation("another", "no"), [Violation("p", "no")]),
        (ask("sure?"), [Ask("p", "sure?")]),
        (ask("sure?", expires_secs=1.5, approvers=2), [Ask("p", "sure?", 1_500_000, 2)]),
        (
            ["a", None, deny("b"), ask("c")],
            [Violation("p", "a"), Violation("p", "b"), Ask("p", "c")],
        ),
    ],
)
def test_judgements_bear_the_name_of_their_policy(answer: Any, expected: list[Any]) -> None:
    assert answering(answer).judge(judged()) == expected
    assert several(answer).judge(judged()) == expected if not isinstance(answer, list) else True


@given(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.binary(min_size=1),
        st.dictionaries(st.integers(), st.none(), min_size=1),
        st.just(object()),
        st.just(Violation("p", 5)),  # type: ignore[arg-type]
        st.just([[None]]),
    )
)
def test_whatever_else_it_answers_forbids(answer: Any) -> None:
    found = answering(answer).judge(judged())
    assert found
    assert all(isinstance(one, Violation) and one.policy == "p" for one in found)


@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), KeyError("secret"), SystemExit(0), RecursionError(), StopIteration()],
)
def test_one_that_raises_forbids_and_tells_no_more_than_the_type(error: BaseException) -> None:
    @policy
    def raises(_: Judged) -> None:
        raise error

    reason = f"policy 'raises' failed: {type(error).__name__}"
    assert raises.judge(judged()) == [Violation("raises", reason)]


def test_one_that_raises_after_some_answers_forbids() -> None:
    @policy
    def raises(_: Judged) -> Iterator[Any]:
        yield ask("sure?")
        raise ValueError

    assert raises.judge(judged()) == [Violation("raises", "policy 'raises' failed: ValueError")]


def test_an_interrupt_is_not_an_answer() -> None:
    @policy
    def interrupted(_: Judged) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.judge(judged())


def test_one_that_never_ends_is_stopped_and_forbids() -> None:
    @policy
    def endless(_: Judged) -> Iterator[Any]:
        while True:
            yield ask("sure?")

    found = endless.judge(judged())
    assert len(found) == MAX_JUDGEMENTS + 1
    assert isinstance(found[-1], Violation)


@pytest.mark.parametrize("reason", ["", "\ud800", "x" * 10_000, "\0\x1b"])
def test_any_reason_can_be_recorded(reason: str) -> None:
    [found] = answering(reason).judge(judged())
    canonical.check(found.reason)
    assert 0 < len(found.reason) <= MAX_REASON_CHARS


def test_the_state_that_it_declared_can_be_looked_at_and_no_other() -> None:
    @policy(reads=["a", "b"])
    def looks(given: Judged) -> Any:
        assert not given.state("b").exists
        return f"a is {given.state('a').value}"

    @policy(reads=["a"])
    def looks_further(given: Judged) -> Any:
        return given.state("secret").value

    here = judged(state={"a": 1, "secret": None})
    assert looks.reads_for(here.action) == ("a", "b")
    assert looks.judge(here) == [Violation("looks", "a is 1")]
    [found] = looks_further.judge(here)
    assert found.reason == "policy 'looks_further' failed: KeyError"


def test_one_cannot_change_what_is_called() -> None:
    @policy
    def meddles(given: Judged) -> None:
        given.parameters["x"].append("more")

    here = judged(parameters={"x": [1]})
    assert meddles.judge(here) == []
    assert here.parameters == {"x": [1]}


def test_all_are_asked_in_their_order() -> None:
    policies = [
        policy(name=f"p{n}")(lambda _, n=n: [f"no {n}", ask(f"sure {n}?")]) for n in range(3)
    ]
    violations, asked = judge_all(policies, judged())
    assert [(one.policy, one.reason) for one in violations] == [
        ("p0", "no 0"),
        ("p1", "no 1"),
        ("p2", "no 2"),
    ]
    assert [one.policy for one in asked] == ["p0", "p1", "p2"]
    assert judge_all([], judged()) == ([], [])


def test_its_digest_is_that_of_its_name_keys_and_version() -> None:
    def made(**options: Any) -> Policy:
        return policy(**{"name": "p", "reads": ["k"], **options})(lambda _: None)

    assert made().digest == canonical.digest(["p", ["k"], 1])
    assert made().rule is None
    others = [made(name="q"), made(reads=["j"]), made(reads=[]), made(version=2)]
    assert len({one.digest for one in (made(), *others)}) == 5


def test_a_bare_decorator_takes_the_name_of_the_function() -> None:
    @policy
    def quiet(_: Judged) -> None: ...

    assert (quiet.name, quiet.reads, quiet.judge(judged())) == ("quiet", (), [])


@pytest.mark.parametrize(
    "declared",
    [
        {"name": ""},
        {"name": "two words"},
        {"name": 5},
        {"reads": "key"},
        {"reads": [""]},
        {"reads": [5]},
        {"version": 0},
        {"version": True},
        {"version": 2**63},
        {"name": "capabilities"},
    ],
)
def test_what_cannot_be_declared_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolicy):
        policy(**{"name": "p", **declared})(lambda _: None)


def test_a_policy_is_a_function_that_answers_at_once() -> None:
    async def later(_: Judged) -> None: ...

    async def several_later(_: Judged) -> Any:
        yield None

    for function in (later, several_later, "text"):
        with pytest.raises(InvalidPolicy):
            policy(name="p")(function)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"expires_secs": 0}, {"expires_secs": 1e12}, {"approvers": 3}])
def test_what_cannot_be_asked_forbids(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"seconds|approvers"):
        ask("sure?", **options)
    made = policy(name="p")(lambda _: ask("sure?", **options))
    assert made.judge(judged()) == [Violation("p", "policy 'p' failed: ValueError")]


def test_a_name_stands_for_one_policy() -> None:
    first, other = answering(None), policy(name="p", version=2)(lambda _: None)
    assert only_once([first, first]) == (first,)
    with pytest.raises(InvalidPolicy, match="two policies of this name"):
        only_once([first, other])
    forged = Policy(name="capabilities", digest="0" * 64, decide=lambda _: None)
    with pytest.raises(InvalidPolicy, match="permissions"):
        only_once([forged])
    with pytest.raises(InvalidPolicy, match="@policy"):
        only_once([lambda _: None])  # type: ignore[list-item]
