"""The journal of calls, and the judgement over it: a check that cannot fail proves nothing."""

import asyncio
import os
from pathlib import Path

from engine import ToolContext, tool
from engine.demo.calls import Kill, MadeCall, judge, read_calls, written_down


def kill(calls: int, completed: set[str], ended: set[tuple[str, int]] | None = None) -> Kill:
    return Kill(
        pid=1,
        position=9,
        completed=frozenset(completed),
        ended=frozenset({(name, 1) for name in completed} if ended is None else ended),
        calls=calls,
    )


def call(name: str, pid: int = 1, attempt: int = 1, tool: str = "t") -> MadeCall:
    return MadeCall(pid, name, tool, attempt)


def test_every_call_is_written_before_it_is_made(tmp_path: Path) -> None:
    journal = tmp_path / "calls"
    seen: list[int] = []

    @tool
    def plain(n: int) -> int:
        seen.append(len(read_calls(journal)))
        return n

    @tool
    async def on_the_loop(n: int, context: ToolContext) -> int:
        seen.append(len(read_calls(journal)))
        return n + context.attempt

    one, two = written_down(plain, journal), written_down(on_the_loop, journal)
    context = ToolContext.detached(tool="x", attempt=2)
    assert one.schema.digest == plain.schema.digest
    assert one(n=1, **{str(one.context_parameter): context}) == 1
    assert asyncio.run(two(n=1, context=context)) == 3
    assert seen == [1, 2]
    assert read_calls(journal) == [MadeCall(os.getpid(), "detached", "x", 2)] * 2


def test_no_journal_means_no_calls(tmp_path: Path) -> None:
    assert read_calls(tmp_path / "missing") == []


def test_a_completed_action_that_is_called_again_is_found() -> None:
    calls = [call("a"), call("b"), call("a", pid=2)]
    assert judge(calls, [kill(2, {"a"})]).run_again == (call("a", pid=2),)


def test_a_call_that_breaks_the_promise_twice_counts_once() -> None:
    calls = [call("a"), call("b", pid=2), call("a", pid=3)]
    kills = [kill(1, {"a"}), kill(2, {"a", "b"})]
    assert judge(calls, kills).run_again == (call("a", pid=3),)


def test_a_call_in_flight_may_be_made_again_and_is_counted() -> None:
    calls = [call("a"), call("b"), call("b", pid=2)]
    verdict = judge(calls, [kill(2, {"a"})])
    assert (verdict.run_again, verdict.made_again, verdict.calls) == ((), 1, 3)


def test_a_retry_after_a_recorded_failure_is_neither() -> None:
    calls = [call("a"), call("a", pid=2, attempt=2)]
    verdict = judge(calls, [kill(1, set(), {("a", 1)})])
    assert (verdict.run_again, verdict.made_again) == ((), 0)


def test_a_compensation_is_no_second_call_of_its_action() -> None:
    calls = [call("a"), call("a", pid=2, tool="undo")]
    assert judge(calls, [kill(1, {"a"})]).run_again == ()
