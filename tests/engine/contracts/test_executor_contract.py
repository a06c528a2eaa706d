"""What the engine may expect of an executor, and an executor of the engine: over one that calls
functions in this process and one that makes a process of each call."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from engine.calling import call as made
from engine.context import current_context
from engine.process.executor import SubprocessExecutor
from engine.tools import ToolExecutor, Tools, ToolSchema, load_tools
from engine.unknown_outcome import OutcomeUnknown
from tests.engine.harness import Seen, call, execute, in_loop, opened, plan

TOOLS = '''
import asyncio, pathlib
from engine import ToolContext, tool

@tool
async def echo(value):
    return value

@tool
async def fail(text: str) -> None:
    raise ValueError(text)

@tool(idempotent=True)
async def grow(items: list, folder: str, fails: int):
    """Add to what it was given, and fail so many times."""
    tries = len(list(pathlib.Path(folder).iterdir()))
    pathlib.Path(folder, str(tries)).touch()
    items.append("grown")
    if tries < fails:
        raise ValueError("not yet")
    return items

@tool
async def late(path: str, seconds: float) -> str:
    pathlib.Path(path + ".began").touch()
    await asyncio.sleep(seconds)
    pathlib.Path(path).touch()
    return "done"

@tool(idempotent=True)
async def late_again(path: str, seconds: float) -> str:
    return await late(path, seconds)

@tool
async def meet(folder: str, name: str, guests: int) -> int:
    """Come, and wait until all have come."""
    pathlib.Path(folder, name).touch()
    while (came := len(list(pathlib.Path(folder).iterdir()))) < guests:
        await asyncio.sleep(0.01)
    return came

@tool
async def not_json(what: str):
    return {"set": {1}, "nan": float("nan"), "object": object(), "key": {1: 2}}[what]

@tool
async def ids(ctx: ToolContext):
    ctx.meter(tokens_in=7, cost="0.5", model="small")
    return [ctx.run_id, ctx.action_id, ctx.tool, ctx.attempt, ctx.idempotency_key]
'''


class MemoryExecutor:
    """Calls the functions of a table in this process."""

    def __init__(self, path: Path) -> None:
        self.tools: Tools = load_tools(str(path))

    def schemas(self) -> list[ToolSchema]:
        return self.tools.schemas()

    async def execute(self, tool: str, params: dict[str, Any]) -> Any:
        found = self.tools.get(tool)
        if found is None or found.function is None:
            raise LookupError(f"there is no tool {tool!r}")
        if found.context_parameter is not None:
            params = {**params, found.context_parameter: current_context.get()}
        return await found.function(**params)


def in_processes(path: Path) -> SubprocessExecutor:
    return SubprocessExecutor(str(path))


Make = Callable[[Path], Any]
ALL: dict[str, Make] = {"memory": MemoryExecutor, "subprocess": in_processes}
each = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "contract_tools.py"
    path.write_text(TOOLS)
    return path


async def run(file: Path, executor: Any, *actions: Any, **options: Any) -> Seen:
    async with opened(file.parent / "log.db") as store:
        tools = executor.schemas()
        return await execute(store, tools, plan(*actions), executor=executor, **options)


# --- one call ---


@each
@in_loop
async def test_a_call_gives_what_the_tool_returns(make: Make, file: Path) -> None:
    executor: ToolExecutor = make(file)
    value = {"a": [None, True, 1, -(2**63), 0.1, "ä\n"], "b": {}}
    assert await executor.execute("echo", {"value": value}) == value


@each
@in_loop
async def test_what_a_tool_raises_is_raised_and_is_known_to_have_failed(
    make: Make, file: Path
) -> None:
    for tool, params, said in (("fail", {"text": "no paper"}, "no paper"), ("none", {}, "'none'")):
        with pytest.raises(Exception, match=said) as caught:
            await make(file).execute(tool, params)
        assert not isinstance(caught.value, OutcomeUnknown)


@each
@in_loop
async def test_a_call_that_is_cancelled_ends_as_cancelled_and_does_no_more(
    make: Make, file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "late"
    executor = make(file)
    task = asyncio.create_task(executor.execute("late", {"path": str(path), "seconds": 2.0}))
    await appears(Path(f"{path}.began"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(2.2)
    assert not path.exists()
    assert await executor.execute("echo", {"value": 1}) == 1


async def appears(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0.01)


@each
@in_loop
async def test_calls_at_the_same_time_do_not_wait_for_each_other(
    make: Make, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "guests"
    folder.mkdir()
    executor = make(file)
    calls = [
        executor.execute("meet", {"folder": str(folder), "name": f"g{n}", "guests": 4})
        for n in range(4)
    ]
    assert await asyncio.gather(*calls) == [4] * 4


@each
@in_loop
async def test_one_call_that_fails_or_is_cancelled_does_not_concern_the_others(
    make: Make, file: Path, tmp_path: Path
) -> None:
    executor = make(file)
    lost = asyncio.create_task(
        executor.execute("late", {"path": str(tmp_path / "lost"), "seconds": 30.0})
    )
    await appears(tmp_path / "lost.began")
    good = asyncio.create_task(executor.execute("echo", {"value": "mine"}))
    bad = asyncio.create_task(executor.execute("fail", {"text": "alone"}))
    lost.cancel()
    found = await asyncio.gather(lost, good, bad, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1] == "mine"
    assert isinstance(found[2], Exception)


# --- under the engine ---


@each
@in_loop
async def test_a_failure_is_the_result_of_its_action(make: Make, file: Path) -> None:
    seen = await run(file, make(file), call("a", "fail", parameters={"text": "no paper"}))
    assert seen.statuses == {"a": "failed"}
    assert "no paper" in (seen.errors["a"] or "")


@each
@pytest.mark.parametrize("what", ["set", "nan", "object", "key"])
@in_loop
async def test_an_output_that_is_not_json_is_a_failure_and_never_a_doubt(
    make: Make, file: Path, what: str
) -> None:
    seen = await run(file, make(file), call("a", "not_json", parameters={"what": what}))
    assert seen.statuses == {"a": "failed"}
    assert "JSON" in (seen.errors["a"] or "")
    assert not seen.events(e.ActionInDoubt)


@each
@in_loop
async def test_after_a_timeout_nobody_knows_and_it_is_not_called_again(
    make: Make, file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "late"
    action = call(
        "a",
        "late",
        parameters={"path": str(path), "seconds": 20.0},
        timeout_ms=1000,
        failure_behavior="retry",
    )
    began = time.monotonic()
    seen = await run(file, make(file), action)
    assert time.monotonic() - began < 10
    assert seen.status == "waiting"
    [doubt] = seen.events(e.ActionInDoubt)
    assert doubt.attempt == 1
    assert not path.exists()


@each
@in_loop
async def test_after_a_timeout_what_may_be_repeated_is(
    make: Make, file: Path, tmp_path: Path
) -> None:
    action = call(
        "a",
        "late_again",
        parameters={"path": str(tmp_path / "late"), "seconds": 20.0},
        timeout_ms=600,
        max_retries=1,
        failure_behavior="retry",
    )
    seen = await run(file, make(file), action)
    assert seen.statuses == {"a": "failed"}
    assert len(seen.events(e.ActionRetrying)) == 1
    assert seen.errors["a"] == "action timed out after 600ms"


@each
@in_loop
async def test_a_call_does_not_change_the_parameters_of_its_caller(
    make: Make, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "once"
    folder.mkdir()
    executor = make(file)
    [grow] = [one for one in Tools(executor.schemas()) if one.name == "grow"]
    params: dict[str, Any] = {"items": ["own"], "folder": str(folder), "fails": 0}
    threads = ThreadPoolExecutor(1)
    assert await made(grow, params, None, threads, executor=executor) == ["own", "grown"]
    assert params["items"] == ["own"]
    threads.shutdown()


@each
@in_loop
async def test_no_call_sees_what_another_did_to_its_parameters(
    make: Make, file: Path, tmp_path: Path
) -> None:
    """Neither does the next attempt, nor a call that is given the same output."""
    (tmp_path / "first").mkdir()
    for name in ("b", "c"):
        (tmp_path / name).mkdir()

    def grow(name: str, items: Any, folder: str, fails: int) -> Any:
        parameters = {"items": items, "folder": str(tmp_path / folder), "fails": fails}
        return call(name, "grow", parameters=parameters, failure_behavior="retry")

    seen = await run(
        file,
        make(file),
        call("a", "echo", parameters={"value": ["given"]}),
        grow("first", ["own"], "first", 2),
        grow("b", "$a.output", "b", 0),
        grow("c", "$a.output", "c", 1),
    )
    assert set(seen.statuses.values()) == {"succeeded"}, seen.errors
    assert seen.outputs == {
        "a": ["given"],
        "first": ["own", "grown"],
        "b": ["given", "grown"],
        "c": ["given", "grown"],
    }
    recorded = seen.events(e.ProposalReceived)[0].proposal["actions"][1]["parameters"]["items"]
    assert recorded == ["own"]


@each
@in_loop
async def test_a_call_sees_the_context_of_its_own_action(make: Make, file: Path) -> None:
    actions = [call(f"a{n}", "ids", failure_behavior="skip") for n in range(3)]
    seen = await run(file, make(file), *actions)
    assert set(seen.statuses.values()) == {"succeeded"}, seen.errors
    keys = set()
    for name, (run_id, action_id, tool, attempt, key) in seen.outputs.items():
        assert (run_id, action_id, tool, attempt) == (seen.result.run_id, name, "ids", 1)
        keys.add(key)
    assert len(keys) == 3
    metered = seen.events(e.InferenceMetered)
    assert sorted(one.action_id for one in metered if one.action_id) == ["a0", "a1", "a2"]
    assert {(one.tokens_in, one.cost_micros, one.model) for one in metered} == {
        (7, 500_000, "small")
    }
    assert current_context.get() is None


@each
@in_loop
async def test_outputs_are_those_of_their_actions_whichever_ends_first(
    make: Make, file: Path
) -> None:
    actions = [
        call(f"a{n}", "echo", parameters={"value": n}, failure_behavior="skip") for n in range(4)
    ]
    seen = await run(file, make(file), *actions, concurrency=2)
    assert set(seen.statuses.values()) == {"succeeded"}, seen.errors
    assert seen.outputs == {f"a{n}": n for n in range(4)}
