"""The way forward: order, validation, calls, reuse, effects, conflicts, and how a run ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from engine import ToolContext, ToolSchema, tool
from engine.execute import MAX_OUTPUT_BYTES
from engine.rules.retries import Backoff
from tests.engine.harness import (
    ANYTHING,
    Hands,
    Seen,
    call,
    check,
    count_appends,
    execute,
    in_loop,
    opened,
    plan,
    read,
    run_plan,
    set_state,
    state_of,
    until,
    write,
)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


# --- state actions ---


def test_state_actions_have_the_seeds_outputs_and_texts(db: Path) -> None:
    seen = run_plan(
        db,
        [],
        write("w", "k", {"a": 1}),
        read("r", "k"),
        check("ok", "k", {"a": 1.0}, failure_behavior="skip"),
        check("bad", "k", 2),
        read("none", "missing"),
    )
    assert seen.outputs == {
        "w": "written: k",
        "r": {"a": 1},
        "ok": {"asserted": "k", "value": {"a": 1}},
        "bad": None,
    } | ({"none": None} if "none" in seen.outputs else {})
    assert seen.errors["bad"] == "assertion failed: state['k'] = {\"a\":1}, expected 2"
    assert seen.status == "rolled_back"


def test_a_reader_between_two_writers_sees_the_first(db: Path) -> None:
    seen = run_plan(
        db, [], write("one", "k", 1), read("r", "k"), write("two", "k", 2), read("s", "k")
    )
    assert (seen.outputs["r"], seen.outputs["s"]) == (1, 2)
    assert seen.state == {"k": 2}
    assert seen.of("one").state_changes == {"k": 1}


def test_state_edges_only_order(db: Path, hands: Hands) -> None:
    fails = call("a", expected_effects={"k": 1}, failure_behavior="skip")
    seen = run_plan(db, [hands.tool("a", fails=1)], fails, read("r", "k"))
    assert seen.statuses == {"a": "skipped", "r": "succeeded"}
    assert seen.outputs["r"] is None


def test_runs_of_other_scopes_do_not_see_each_others_state(db: Path) -> None:
    run_plan(db, [], write("w", "k", 1))
    seen = run_plan(db, [], read("r", "k"), scope="other")
    assert seen.outputs == {"r": None}


# --- order ---


class Gate:
    """Tools that wait until told, and who runs beside whom."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.most = 0
        self.beside: set[frozenset[str]] = set()
        self.order: list[str] = []

    def tool(self, name: str, seconds: float = 0.005, **declared: Any) -> Any:
        async def function(**_: Any) -> str:
            self.order.append(name)
            self.beside |= {frozenset((name, other)) for other in self.running}
            self.running.add(name)
            self.most = max(self.most, len(self.running))
            await asyncio.sleep(seconds)
            self.running.discard(name)
            return name

        return tool(name=name, parameters=ANYTHING, **declared)(function)


def test_a_level_runs_at_once_unless_one_of_its_actions_aborts(db: Path) -> None:
    gate = Gate()
    free = [call(name, failure_behavior="skip") for name in "abc"]
    strict = [call(name, dependencies=["a"]) for name in "xyz"]
    run_plan(db, [gate.tool(name) for name in "abcxyz"], *free, *strict)
    assert frozenset("ab") in gate.beside
    assert frozenset("bc") in gate.beside
    assert not {frozenset("xy"), frozenset("yz"), frozenset("cx")} & gate.beside
    assert gate.order[3:] == ["x", "y", "z"]


@pytest.mark.parametrize(("schedule", "beside"), [("levels", False), ("eager", True)])
def test_levels_wait_for_each_other_and_eager_does_not(
    db: Path, hands: Hands, schedule: str, beside: bool
) -> None:
    """`slow` ends when `next`, of the level after, has begun, or after a while."""
    begun = asyncio.Event()

    async def wait() -> bool:
        try:
            await asyncio.wait_for(begun.wait(), 10 if beside else 0.1)
        except TimeoutError:
            return False
        return True

    tools = [hands.tool("slow", does=wait), hands.tool("fast"), hands.tool("next", does=begun.set)]
    actions = [
        call("slow", failure_behavior="skip"),
        call("fast", failure_behavior="skip"),
        call("next", dependencies=["fast"], failure_behavior="skip"),
    ]
    seen = run_plan(db, tools, *actions, schedule=schedule)
    assert seen.outputs["slow"] is beside
    assert list(seen.statuses) == ["slow", "fast", "next"]


@pytest.mark.parametrize("schedule", ["levels", "eager"])
def test_no_more_calls_are_in_flight_than_allowed(db: Path, schedule: str) -> None:
    gate = Gate()
    names = [f"t{n}" for n in range(9)]
    actions = [call(name, failure_behavior="skip") for name in names]
    tools = [gate.tool(name) for name in names]
    seen = run_plan(db, tools, *actions, schedule=schedule, concurrency=3)
    assert gate.most == 3
    assert seen.status == "succeeded"


def test_synchronous_tools_of_a_level_run_in_threads_at_once(db: Path) -> None:
    import threading

    barrier = threading.Barrier(2, timeout=10)

    @tool
    def meet() -> int:
        barrier.wait()
        return threading.get_ident()

    actions = [call(name, "meet", failure_behavior="skip") for name in "ab"]
    seen = run_plan(db, [meet], *actions)
    assert seen.status == "succeeded"
    assert seen.outputs["a"] != seen.outputs["b"]


# --- dependencies and references ---


def test_whoever_needs_what_did_not_succeed_is_skipped_by_name(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("bad", fails=9), hands.tool("t")],
        call("bad", failure_behavior="skip"),
        call("fails", "bad", failure_behavior="retry", max_retries=0),
        call("rejected", "nope"),
        call("b", "t", dependencies=["bad"]),
        call("c", "t", dependencies=["fails"]),
        call("d", "t", parameters={"x": "$rejected.output"}),
        call("e", "t", dependencies=["d"]),
    )
    assert {name: seen.errors[name] for name in "bcde"} == {
        "b": "dependency 'bad' skipped",
        "c": "dependency 'fails' failed",
        "d": "dependency 'rejected' rejected",
        "e": "dependency 'd' skipped",
    }
    assert "t" not in hands.names
    assert seen.status == "failed"


def test_outputs_go_where_they_are_referred_to(db: Path, hands: Hands) -> None:
    tools = [hands.tool("a", {"rows": [{"id": 7}], "none": None}), hands.tool("b")]
    seen = run_plan(
        db,
        tools,
        call("a"),
        call(
            "b",
            parameters={
                "id": "$a.output.rows.0.id",
                "deep": [{"all": "$a.output"}],
                "none": "$a.output.none",
                "text": "see $a.output",
                "escaped": "$$a.output",
            },
        ),
        write("w", "k", "$a.output.rows"),
        check("c", "k", "$a.output.rows"),
    )
    whole = {"rows": [{"id": 7}], "none": None}
    assert hands.calls[1] == (
        "b",
        {
            "id": 7,
            "deep": [{"all": whole}],
            "none": None,
            "text": "see $a.output",
            "escaped": "$a.output",
        },
    )
    assert seen.state == {"k": [{"id": 7}]}
    assert seen.status == "succeeded"


def test_the_intent_holds_a_digest_of_the_real_parameters(db: Path, hands: Hands) -> None:
    from carstore import canonical

    tools = [hands.tool("a", 7), hands.tool("b")]
    seen = run_plan(db, tools, call("a"), call("b", parameters={"x": "$a.output"}))
    digests = [one.parameters_digest for one in seen.events(e.ActionExecuting)]
    assert digests == [canonical.digest({}), canonical.digest({"x": 7})]


# --- calls ---


def test_retries_are_events_with_growing_delays(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("a", "done", fails=3)],
        call("a", failure_behavior="retry"),
        backoff=Backoff(base_ms=1, cap_ms=3),
    )
    assert [one.delay_ms for one in seen.events(e.ActionRetrying)] == [1, 2, 3]
    assert [one.attempt for one in seen.events(e.ActionRetrying)] == [2, 3, 4]
    assert [one.attempt for one in seen.events(e.ActionExecuting)] == [1, 2, 3, 4]
    assert [one.error for one in seen.events(e.ActionFailed)] == ["ValueError: a failed"] * 3
    assert (seen.of("a").attempts, seen.outputs["a"], seen.errors["a"]) == (4, "done", None)
    assert seen.result.cost.retries == 3
    assert seen.result.cost.tool_calls == 1


def test_a_retry_waits_its_delay(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("a", fails=1)],
        call("a", failure_behavior="retry"),
        backoff=Backoff(base_ms=60),
    )
    times = [one.recorded_at for one in seen.history if one.kind == "action_failed"]
    ended = [one.recorded_at for one in seen.history if one.kind == "action_succeeded"]
    assert ended[0] - times[0] >= 59_000  # the timer goes by another clock than the events


def test_attempts_are_max_retries_plus_one_then_the_run_goes_on(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("a", fails=99), hands.tool("b")],
        call("a", failure_behavior="retry", max_retries=2),
        call("b"),
    )
    assert hands.names.count("a") == 3
    assert seen.statuses == {"a": "failed", "b": "succeeded"}
    assert seen.status == "failed"


def test_an_exhausted_retry_aborts_only_if_asked(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("a", fails=99)],
        write("w", "k", 1),
        call("a", failure_behavior="retry", max_retries=1, state_dependencies=["k"]),
        abort_on_exhausted_retry=True,
    )
    assert seen.status == "rolled_back"
    assert seen.state == {}
    assert hands.names == ["a", "a"]


def test_an_exhausted_skip_is_skipped_with_its_error(db: Path, hands: Hands) -> None:
    seen = run_plan(db, [hands.tool("a", fails=1)], call("a", failure_behavior="skip"))
    assert seen.statuses == {"a": "skipped"}
    assert seen.errors == {"a": "ValueError: a failed"}
    assert seen.status == "succeeded"
    assert hands.names == ["a"]


def test_the_cost_summary_counts_as_the_seed_does(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("a"), hands.tool("bad", fails=9), hands.tool("flaky", fails=1)],
        call("a"),
        write("w", "k", 1),
        call("skipped", "bad", failure_behavior="skip"),
        call("failed", "bad", failure_behavior="retry", max_retries=0),
        call("flaky", failure_behavior="retry"),
        call("rejected", "nope"),
        call("needs", "a", dependencies=["rejected"]),
    )
    cost = seen.result.cost
    assert (cost.tool_calls, cost.actions_executed) == (2, 4)
    assert (cost.actions_rejected, cost.actions_skipped, cost.retries) == (1, 2, 1)
    assert cost.total_duration_ms == pytest.approx(
        sum(one.duration_ms or 0 for one in seen.result.results), abs=0.01
    )
    [last] = seen.events(e.ProposalCompleted)
    assert (last.status, last.tool_calls, last.actions_executed) == ("failed", 2, 4)


def test_a_tool_without_a_function_needs_an_executor(tmp_path: Path) -> None:
    seen = run_plan(tmp_path / "a.db", ["remote"], call("a", "remote"))
    assert seen.errors["a"] is not None
    assert "no tool executor configured" in seen.errors["a"]

    class Executor:
        async def execute(self, tool: str, params: Any) -> Any:
            return [tool, params]

    seen = run_plan(
        tmp_path / "b.db", ["remote"], call("a", "remote", parameters={"x": 1}),
        executor=Executor(),
    )  # fmt: skip
    assert seen.outputs["a"] == ["remote", {"x": 1}]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("plain"), "ValueError: plain"),
        (KeyError(), "KeyError"),
        (Unspeakable(), "Unspeakable: (it cannot be shown)"),
        (ValueError("\ud800 lone"), "ValueError: ? lone"),
        (StopIteration(), "StopIteration"),
        (SystemExit(3), "sys.exit(3)"),
        (asyncio.CancelledError(), "cancelled itself"),
    ],
)
@pytest.mark.parametrize("in_thread", [False, True])
def test_whatever_a_tool_raises_is_its_failure(
    db: Path, error: BaseException, said: str, in_thread: bool
) -> None:
    def raises() -> None:
        raise error

    async def raises_later() -> None:
        raise error

    bad = tool(name="bad")(raises if in_thread else raises_later)
    seen = run_plan(db, [bad], call("bad", failure_behavior="skip"))
    assert seen.statuses == {"bad": "skipped"}
    assert said in (seen.errors["bad"] or "")


def test_a_long_error_is_cut(db: Path) -> None:
    @tool
    def bad() -> None:
        raise ValueError("x" * 100_000)

    seen = run_plan(db, [bad], call("bad", failure_behavior="skip"))
    assert len(seen.errors["bad"] or "") <= 4_000


# --- outputs ---


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("output", "said", "kept"),
    [
        ({1: 2}, "not a string", {"type": "dict"}),
        ((1, 2), "tuple is not JSON", {"type": "tuple"}),
        (float("nan"), "not a finite number", {"type": "float"}),
        (2**64, "64 bits", {"type": "int"}),
        ("\ud800", "surrogate", {"type": "str"}),
        (object(), "object is not JSON", {"type": "object"}),
        (deep(100), "nested deeper", {"type": "list"}),
        (deep(5_000), "nested deeper", {"type": "list"}),
    ],
)
def test_an_output_that_is_not_json_is_a_failure_and_never_in_doubt(
    db: Path, output: Any, said: str, kept: Any
) -> None:
    @tool
    def odd() -> Any:
        return output

    seen = run_plan(db, [odd], call("odd", expected_effects={"k": 1}))
    assert seen.statuses == {"odd": "failed"}
    assert said in (seen.errors["odd"] or "")
    assert seen.outputs["odd"] == kept
    assert "action_in_doubt" not in seen.kinds
    assert seen.state == {}


def test_an_output_that_is_too_large_is_kept_as_digest_and_size(db: Path) -> None:
    @tool
    def big() -> str:
        return "x" * MAX_OUTPUT_BYTES

    seen = run_plan(db, [big], call("big", failure_behavior="retry", max_retries=0))
    assert seen.statuses == {"big": "failed"}
    assert seen.outputs["big"]["bytes"] == MAX_OUTPUT_BYTES + 2
    assert len(seen.outputs["big"]["sha256"]) == 64
    assert "are kept" in (seen.errors["big"] or "")


def test_an_output_that_even_an_event_cannot_hold_is_a_failure(db: Path) -> None:
    @tool
    def huge() -> str:
        return "x" * (17 * 1024 * 1024)

    seen = run_plan(db, [huge], call("huge", failure_behavior="retry", max_retries=0))
    assert seen.statuses == {"huge": "failed"}


def test_state_that_an_event_cannot_hold_is_a_failure_not_a_crash(db: Path) -> None:
    @tool
    def huge(ctx: ToolContext) -> None:
        ctx.set("k", "x" * (17 * 1024 * 1024))

    seen = run_plan(db, [huge], call("huge", failure_behavior="retry", max_retries=0))
    assert seen.statuses == {"huge": "failed"}
    assert seen.state == {}


def test_an_output_that_is_not_what_returns_says_is_a_failure(db: Path) -> None:
    @tool(returns={"type": "object", "required": ["a", "b"]})
    def wrong() -> Any:
        return {}

    seen = run_plan(db, [wrong], call("wrong", failure_behavior="retry", max_retries=0))
    assert seen.statuses == {"wrong": "failed"}
    assert "; " in (seen.errors["wrong"] or "")


# --- effects and conflicts ---


def test_effects_and_the_changes_of_the_context_are_applied_with_the_success(db: Path) -> None:
    @tool
    async def work(ctx: ToolContext) -> str:
        ctx.set("a", 1)
        ctx.delete("old")
        return "ok"

    seen = run_plan(
        db, [work], call("work", expected_effects={"b": None}), before={"old": 1, "kept": 2}
    )
    assert seen.state == {"a": 1, "b": None, "kept": 2}
    assert seen.of("work").state_changes == {"a": 1, "old": None, "b": None}


def test_a_failed_attempt_changes_nothing(db: Path) -> None:
    @tool
    async def work(ctx: ToolContext) -> None:
        ctx.set("a", 1)
        raise ValueError("no")

    seen = run_plan(db, [work], call("work", expected_effects={"b": 1}, failure_behavior="skip"))
    assert seen.state == {}


@pytest.mark.parametrize("grounds", ["precondition", "state_dependency", "context"])
@pytest.mark.parametrize("declared", [{}, {"idempotent": True}])
@in_loop
async def test_what_an_action_read_must_not_have_changed(
    db: Path, grounds: str, declared: dict[str, bool]
) -> None:
    """Somebody writes the key during the first call; a tool that may not be repeated is not."""
    from engine import Precondition

    calls: list[int] = []
    async with opened(db) as store:
        await set_state(store, {"k": 0})

        @tool(**declared)
        async def work(ctx: ToolContext) -> str:
            calls.append(ctx.attempt)
            if grounds == "context":
                await ctx.read("k")
            ctx.set("mine", len(calls))
            if len(calls) == 1:
                await set_state(store, {"k": 1})
            return "output"

        fields: dict[str, Any] = {}
        if grounds == "precondition":
            fields["preconditions"] = [Precondition(key="k", operator="exists")]
        if grounds == "state_dependency":
            fields["state_dependencies"] = ["k"]
        action = call("work", failure_behavior="retry", expected_effects={"e": 1}, **fields)
        seen = await execute(store, [work], plan(action))
        first = seen.events(e.ActionFailed)[0]
        assert first.output == "output"
        assert "'k'" in first.error
        if declared:
            assert calls == [1, 2]
            assert seen.status == "succeeded"
            assert seen.state == {"k": 1, "mine": 2, "e": 1}
        else:
            assert calls == [1]
            assert seen.statuses == {"work": "failed"}
            assert seen.outputs == {"work": "output"}
            assert seen.state == {"k": 1}


@in_loop
async def test_blind_writes_are_in_no_read_set(db: Path) -> None:
    async with opened(db) as store:

        @tool
        async def work(ctx: ToolContext) -> str:
            ctx.set("k", "mine")
            await set_state(store, {"k": "theirs", "e": "theirs"})
            return ""

        seen = await execute(store, [work], plan(call("work", expected_effects={"e": "mine"})))
        assert seen.status == "succeeded"
        assert seen.state == {"k": "mine", "e": "mine"}


@in_loop
async def test_two_actions_of_one_run_conflict_like_those_of_two(db: Path) -> None:
    """Both read the counter at once; the second to end rests on what is not so any more."""

    @tool
    async def count(ctx: ToolContext, wait: int) -> int:
        value: int = await ctx.read("n", 0)
        await asyncio.sleep(wait / 1000)
        ctx.set("n", value + 1)
        return value

    async with opened(db) as store:
        actions = [
            call(f"a{n}", "count", parameters={"wait": n * 10}, failure_behavior="skip")
            for n in range(2)
        ]
        seen = await execute(store, [count], plan(*actions))
        assert seen.statuses == {"a0": "succeeded", "a1": "skipped"}
        assert "'n'" in (seen.errors["a1"] or "")
        assert seen.state == {"n": 1}


def interfering(store: Any, times: int, key: str = "k") -> list[int]:
    """Somebody else writes the key just before each of the next appends of a run."""
    done: list[int] = []
    append = store.log.append
    busy = []

    async def append_late(*entries: Any, **kwargs: Any) -> Any:
        expect = kwargs.get("expect")
        if not busy and len(done) < times and expect is not None and expect.unchanged:
            busy.append(1)
            done.append(len(done))
            await set_state(store, {key: f"theirs {len(done)}"})
            busy.pop()
        return await append(*entries, **kwargs)

    store.log.append = append_late
    return done


@pytest.mark.parametrize("times", [1, 2, 3])
@in_loop
async def test_what_needs_no_call_is_decided_again_on_fresh_state(db: Path, times: int) -> None:
    async with opened(db) as store:
        await set_state(store, {"k": "old"})
        done = interfering(store, times)
        seen = await execute(store, [], plan(read("r", "k"), write("w", "copied", "$r.output")))
        assert len(done) == times
        assert seen.outputs["r"] == f"theirs {times}"
        assert seen.state["copied"] == f"theirs {times}"
        assert seen.kinds.count("proposal_received") == 1


@in_loop
async def test_a_key_that_never_holds_still_fails_what_rests_on_it(db: Path) -> None:
    async with opened(db) as store:
        await set_state(store, {"k": "old"})
        done = interfering(store, 99)
        seen = await execute(
            store, [], plan(read("r", "k", failure_behavior="skip"), write("w", "x", 1))
        )
        assert len(done) == 4  # decided once and again three times
        assert seen.statuses == {"r": "skipped", "w": "succeeded"}
        assert "'k'" in (seen.errors["r"] or "")


# --- reuse ---


@in_loop
async def test_an_equal_action_that_asks_for_it_gets_the_remembered_result(db: Path) -> None:
    hands = Hands()
    work = hands.tool("work", {"n": 1})
    action = call("a", "work", idempotent=True, parameters={"x": 1.0}, expected_effects={"k": 1})
    async with opened(db) as store:
        first = await execute(store, [work], plan(action))
    async with opened(db) as store:  # also after a restart
        same = call("b", "work", idempotent=True, parameters={"x": 1.0})
        seen = await execute(store, [work], plan(same))
        assert len(hands.calls) == 1
        assert seen.statuses == {"b": "succeeded"}
        assert seen.outputs == {"b": {"n": 1}}
        assert seen.of("b").duration_ms == 0
        [hit] = seen.events(e.ActionDeduplicated)
        assert (hit.original_run_id, hit.original_action_id) == (first.result.run_id, "a")
        [original] = [one for one in first.history if one.kind == "action_succeeded"]
        assert hit.original_position == original.position
        assert not seen.events(e.StateChanged)


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"x": 2}},
        {"idempotent": False},
        {"tool_name": "other"},
        {"scope": "elsewhere"},
        {"changed_schema": True},
    ],
)
@in_loop
async def test_another_call_is_not_taken_for_the_same(db: Path, other: dict[str, Any]) -> None:
    hands = Hands()
    tools = [hands.tool("work", 1), hands.tool("other", 2)]
    given = {"tool_name": "work", "idempotent": True, "parameters": {"x": 1}}
    async with opened(db) as store:
        await execute(store, tools, plan(call("a", **given)))  # type: ignore[arg-type]
        options = {"scope": other.pop("scope")} if "scope" in other else {}
        if other.pop("changed_schema", False):
            tools[0] = hands.tool("work", 1, returns={"type": "integer"})
        seen = await execute(store, tools, plan(call("a", **(given | other))), **options)
        assert len(hands.calls) == 2
        assert not seen.events(e.ActionDeduplicated)


@in_loop
async def test_a_result_whose_effects_no_longer_hold_is_not_reused(db: Path) -> None:
    hands = Hands()
    action = call("a", "work", idempotent=True, expected_effects={"k": 1})
    async with opened(db) as store:
        work = hands.tool("work")
        await execute(store, [work], plan(action))
        await execute(store, [work], plan(action))
        assert len(hands.calls) == 1
        await set_state(store, {"k": 2})
        seen = await execute(store, [work], plan(action))
        assert len(hands.calls) == 2
        assert seen.state == {"k": 1}


@in_loop
async def test_a_rollback_forgets_what_it_undid(db: Path) -> None:
    hands = Hands()
    work, bad = hands.tool("work"), hands.tool("bad", fails=9)
    action = call("a", "work", idempotent=True, reversibility="reversible")
    async with opened(db) as store:
        seen = await execute(store, [work, bad], plan(action, call("bad", dependencies=["a"])))
        assert seen.status == "rolled_back"
        await execute(store, [work], plan(action))
        assert hands.names == ["work", "bad", "work"]


def test_a_result_is_remembered_within_its_own_run(db: Path, hands: Hands) -> None:
    actions = [
        call("a", "work", idempotent=True, parameters={"x": 1}),
        call("b", "work", idempotent=True, parameters={"x": 1}, dependencies=["a"]),
    ]
    seen = run_plan(db, [hands.tool("work", 5)], *actions)
    assert len(hands.calls) == 1
    assert seen.outputs == {"a": 5, "b": 5}
    assert [one.original_action_id for one in seen.events(e.ActionDeduplicated)] == ["a"]


def test_a_failure_is_not_remembered(db: Path, hands: Hands) -> None:
    actions = [
        call("a", "work", idempotent=True, failure_behavior="skip"),
        call("b", "work", idempotent=True, state_dependencies=["k"]),
    ]
    run_plan(db, [hands.tool("work", 5, fails=1)], actions[0], write("w", "k", 1), actions[1])
    assert len(hands.calls) == 2


def test_asking_for_reuse_makes_the_intent_durable(db: Path, hands: Hands) -> None:
    tools = [hands.tool("look", read_only=True)]
    plain = run_plan(db, tools, call("a", "look"))
    asked = run_plan(db, tools, call("a", "look", idempotent=True))
    assert not plain.events(e.ActionExecuting)
    assert plain.events(e.ActionValidated)
    assert [one.effect for one in asked.events(e.ActionExecuting)] == ["read_only"]


# --- how many commits ---


@in_loop
async def test_a_plan_without_outside_effect_is_one_append(db: Path) -> None:
    async with opened(db) as store:
        sizes = count_appends(store)
        actions = [write("w", "k", 1), read("r", "k"), check("c", "k", 1), write("x", "k", 2)]
        seen = await execute(store, [], plan(*actions))
        assert len(sizes) == 1
        assert sum(sizes) == len(seen.history)
        assert not any(kind.startswith("lease") for kind in seen.kinds)


@pytest.mark.parametrize("schedule", ["levels", "eager"])
@pytest.mark.parametrize("declared", [{}, {"read_only": True}])
@in_loop
async def test_a_chain_of_n_calls_is_at_most_n_plus_one_appends(
    db: Path, schedule: str, declared: dict[str, bool]
) -> None:
    hands = Hands()
    length = 12
    async with opened(db) as store:
        sizes = count_appends(store)
        actions = [
            call(f"a{n}", "t", parameters={"x": f"$a{n - 1}.output"} if n else {})
            for n in range(length)
        ]
        seen = await execute(
            store, [hands.tool("t", 1, **declared)], plan(*actions), schedule=schedule
        )
        assert seen.status == "succeeded"
        assert len(hands.calls) == length
        assert len(sizes) <= length + 1


@in_loop
async def test_an_intent_is_durable_before_its_call_and_shares_a_commit(db: Path) -> None:
    """The tool opens the file itself and looks."""
    import sqlite3

    @tool
    def look(name: str) -> list[Any]:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as other:
            rows = other.execute(
                "SELECT kind, json_extract(data, '$.action_id') FROM events ORDER BY position"
            ).fetchall()
        other.close()
        return [list(row) for row in rows][-1]

    async with opened(db) as store:
        actions = [
            call("a", "look", parameters={"name": "a"}),
            call("b", "look", parameters={"name": "$a.output.1"}),
        ]
        seen = await execute(store, [look], plan(*actions))
        assert seen.outputs == {
            "a": ["action_executing", "a"],
            "b": ["action_executing", "b"],
        }


@in_loop
async def test_an_outcome_is_durable_before_what_depends_on_it(db: Path) -> None:
    import sqlite3

    @tool(read_only=True)
    def outcomes() -> Any:
        other = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
        rows = other.execute("SELECT count(*) FROM events WHERE kind = 'action_succeeded'")
        [(found,)] = rows.fetchall()
        other.close()
        return found

    async with opened(db) as store:
        chain = [
            call(f"a{n}", "outcomes", dependencies=[f"a{n - 1}"] if n else []) for n in range(4)
        ]
        seen = await execute(store, [outcomes], plan(*chain))
        assert list(seen.outputs.values()) == [0, 1, 2, 3]


# --- the context ---


@in_loop
async def test_a_tool_is_handed_one_key_for_all_its_attempts(db: Path) -> None:
    from carstore import canonical

    keys: list[str] = []

    @tool
    async def flaky(ctx: ToolContext) -> None:
        keys.append(ctx.idempotency_key)
        if ctx.attempt < 3:
            raise ValueError("again")

    async with opened(db) as store:
        seen = await execute(store, [flaky], plan(call("a", "flaky", failure_behavior="retry")))
        assert len(keys) == 3
        run_id = seen.result.run_id
        assert set(keys) == {canonical.digest([store.log_id, run_id, "a", "do"])}


@in_loop
async def test_a_context_does_not_outlive_its_attempt(db: Path) -> None:
    """A thread goes on after its timeout; what it does through its context is refused."""
    import threading

    from engine.context import ContextClosed

    late: list[str] = []
    go_on = threading.Event()

    @tool(read_only=True)
    def slow(ctx: ToolContext) -> None:
        ctx.set("early", 1)
        go_on.wait(10)
        for misuse in (lambda: ctx.set("k", 1), lambda: ctx.get("k"), ctx.meter):
            try:
                misuse()
            except ContextClosed:
                late.append("refused")

    async with opened(db) as store:
        # Two seconds: on a busy machine a thread may need a while to begin.
        action = call("slow", timeout_ms=2_000, failure_behavior="skip")
        seen = await execute(store, [slow], plan(action))
        assert seen.errors["slow"] == "action timed out after 2000ms"
        go_on.set()
        await until(lambda: len(late) == 3)
        assert await state_of(store) == {}


def test_metering_names_the_source_or_whoever_the_tool_says(db: Path) -> None:
    @tool
    async def think(ctx: ToolContext) -> None:
        ctx.meter(tokens_in=1, cost="0.000001")
        ctx.meter(tokens_out=2, agent="critic", model="m")

    async def go() -> Seen:
        async with opened(db) as store:
            return await execute(store, [think], plan(call("think"), source="planner"))

    seen = asyncio.run(go())
    metered = seen.events(e.InferenceMetered)
    assert [(one.agent, one.n, one.attempt) for one in metered] == [
        ("planner", 0, 1),
        ("critic", 1, 1),
    ]
    assert metered[0].cost_micros == 1


# --- timeouts ---


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_call_that_can_be_repeated_fails_by_its_timeout_and_is_retried(
    db: Path, in_thread: bool
) -> None:
    import time

    attempts: list[int] = []

    async def waits(ctx: ToolContext) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            await asyncio.sleep(30)
        return "done"

    def sleeps(ctx: ToolContext) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            time.sleep(0.4)
        return "done"

    slow = tool(name="slow", idempotent=True)(sleeps if in_thread else waits)
    seen = run_plan(db, [slow], call("slow", timeout_ms=150, failure_behavior="retry"))
    assert attempts == [1, 2]
    assert seen.status == "succeeded"
    assert seen.events(e.ActionFailed)[0].error == "action timed out after 150ms"


def test_a_call_that_must_not_be_repeated_is_in_doubt_by_its_timeout(db: Path) -> None:
    calls: list[int] = []

    @tool(timeout_ms=20)
    async def slow(ctx: ToolContext) -> None:
        calls.append(ctx.attempt)
        await asyncio.sleep(30)

    seen = run_plan(
        db,
        [slow],
        call("slow", failure_behavior="retry"),
        call("next", "slow", dependencies=["slow"]),
    )
    assert calls == [1]
    assert seen.status == "waiting"
    assert seen.result.results == ()
    [doubt] = seen.events(e.ActionInDoubt)
    assert doubt.reason == "action timed out after 20ms"
    assert seen.events(e.RunPaused)[0].waiting_for == [{"action_id": "slow", "what": "doubt"}]
    assert seen.kinds[-1] == "lease_released"


def test_an_actions_timeout_goes_before_its_tools(db: Path) -> None:
    @tool(timeout_ms=10, read_only=True)
    async def slow() -> str:
        await asyncio.sleep(0.06)
        return "done"

    seen = run_plan(
        db,
        [slow],
        call("a", "slow", timeout_ms=5_000),
        call("b", "slow", failure_behavior="skip"),
    )
    assert seen.statuses == {"a": "succeeded", "b": "skipped"}


# --- ends ---


def test_an_empty_plan_succeeds(db: Path) -> None:
    seen = run_plan(db, [])
    assert seen.status == "succeeded"
    assert seen.kinds == ["proposal_received", "proposal_completed"]


def test_results_stand_as_declared_whatever_the_order(db: Path, hands: Hands) -> None:
    tools = [hands.tool("t", 1)]
    seen = run_plan(db, tools, call("c", "t", dependencies=["a"]), call("b", "t"), call("a", "t"))
    assert list(seen.statuses) == ["c", "b", "a"]


def test_an_unknown_tool_schema_field_is_no_surprise_at_run_time(db: Path) -> None:
    schema = ToolSchema(name="typed", parameters={"type": "object", "required": ["x"]})
    seen = run_plan(db, [schema], call("typed"))
    assert seen.statuses == {"typed": "rejected"}
