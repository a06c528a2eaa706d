"""Calls in processes of their own: what comes back, what is killed, and that it is dead then."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import connect
from carstore.errors import CarstoreError
from engine import Runtime, ToolContext
from engine.context import current_context
from engine.ir import RunStatus
from engine.process.child import GRACE_SECONDS
from engine.process.errors import (
    InvalidExecutor,
    ToolKilled,
    ToolOutOfMemory,
    ToolOutputInvalid,
    ToolOutputTooLarge,
    ToolProcessEnded,
    ToolProcessNotStarted,
    ToolRaised,
)
from engine.process.executor import SubprocessExecutor
from engine.process.tail import MAX_TAIL_BYTES, MAX_TAIL_CHARS, Tail
from engine.unknown_outcome import OutcomeUnknown
from tests.engine.harness import in_loop

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
LINUX = sys.platform == "linux"

TOOLS = '''
import asyncio, ctypes, os, pathlib, signal, subprocess, sys, threading, time
from engine import ToolContext, tool

def note(path, *pids):
    done = pathlib.Path(path + ".part")
    done.write_text(" ".join(map(str, pids)))
    done.rename(path)

@tool
def echo(value) -> None:
    print("printed", flush=True)
    os.write(1, b"written")
    return value

@tool
async def aecho(value) -> None:
    await asyncio.sleep(0)
    return value

@tool
def look(name: str) -> None:
    return {
        "stdin": sys.stdin.read(), "cwd": os.getcwd(), "env": os.environ.get(name),
        "pid": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0),
    }

@tool
def fail(kind: str) -> None:
    if kind == "raise":
        raise ValueError("no such \\x1b[31mthing")
    if kind == "exit":
        sys.exit(3)
    print("first line", flush=True)
    print("last \\x1b[31mline", file=sys.stderr, flush=True)
    if kind == "_exit":
        os._exit(3)
    if kind == "segv":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)

@tool
def huge(megabytes: int) -> int:
    return len(bytearray(megabytes * 2**20))

@tool
def spin(deaf: bool = False) -> None:
    if deaf:
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass

@tool
def give(what: str, size: int = 0):
    return {"text": "x" * size, "set": {1}, "nan": float("nan")}[what]

@tool
def family(path: str, deaf: bool = False, stay: bool = True, own_session: bool = False) -> str:
    """Have a child, which may go its own way, and stay until killed."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal,time; "
         "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"],
        start_new_session=own_session,
    )
    note(path, os.getpid(), child.pid)
    while stay:
        time.sleep(0.05)
    return "done"

@tool
def tidy(path: str) -> None:
    try:
        note(path + ".started", os.getpid())
        time.sleep(600)
    finally:
        note(path, "tidied")

@tool
def leave_thread() -> str:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "done"

@tool
def ids(ctx: ToolContext) -> None:
    ctx.log("seen", attempt=ctx.attempt)
    ctx.meter(tokens_in=7, cost="0.5", model="small")
    return [ctx.run_id, ctx.action_id, ctx.tool, ctx.attempt, ctx.idempotency_key]

@tool
def ask_state(how: str, ctx: ToolContext) -> None:
    ctx.log("asking")
    {"get": ctx.get, "delete": ctx.delete}[how]("a") if how != "set" else ctx.set("a", 1)

@tool
async def ask_state_async(ctx: ToolContext) -> None:
    await ctx.read("a")
'''


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., SubprocessExecutor]:
    (tmp_path / "slow_tools.py").write_text(TOOLS)

    def executor(**options: Any) -> SubprocessExecutor:
        return SubprocessExecutor(str(tmp_path / "slow_tools.py"), **options)

    return executor


Make = Callable[..., SubprocessExecutor]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not taken yet does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


async def noted(path: Path) -> list[int]:
    """The process ids that a tool has written down, once it has."""
    for _ in range(500):
        if path.exists():
            return [int(pid) for pid in path.read_text().split()]
        await asyncio.sleep(0.02)
    raise AssertionError("the tool did not begin")


async def all_dead(pids: list[int]) -> None:
    """What was killed as an orphan is dead within moments."""
    for _ in range(250):
        if not any(alive(pid) for pid in pids):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("still running")


# --- what comes back ---


@pytest.mark.parametrize("name", ["echo", "aecho"])
@in_loop
async def test_the_output_comes_back_whatever_the_tool_prints(make: Make, name: str) -> None:
    value = {"a": [None, True, 1, -(2**63), 0.1, "ä\n\0\u2028"], "b": {}}
    assert await make().execute(name, {"value": value}) == value


@in_loop
async def test_large_parameters_and_outputs_pass(make: Make) -> None:
    value = "x" * 3_000_000
    assert await make().execute("echo", {"value": value}) == value


@in_loop
async def test_the_child_has_an_empty_standard_input_and_a_group_of_its_own(
    make: Make, tmp_path: Path
) -> None:
    seen = await make(env={"ONLY": "this", "PATH": "/bin"}, cwd=tmp_path).execute(
        "look", {"name": "ONLY"}
    )
    assert (seen["stdin"], seen["cwd"], seen["env"]) == ("", str(tmp_path.resolve()), "this")
    assert seen["group"] == seen["pid"]
    assert seen["session"] not in (os.getsid(0), seen["pid"])


@in_loop
async def test_the_environment_is_that_of_the_parent_unless_given(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "yes")
    assert (await make().execute("look", {"name": "OF_THE_PARENT"}))["env"] == "yes"
    assert (await make(env={}).execute("look", {"name": "OF_THE_PARENT"}))["env"] is None


@in_loop
async def test_calls_run_side_by_side(make: Make) -> None:
    executor = make()
    outputs = await asyncio.gather(*[executor.execute("echo", {"value": n}) for n in range(6)])
    assert outputs == list(range(6))


@in_loop
async def test_a_thread_that_the_tool_leaves_does_not_hold_up_the_call(make: Make) -> None:
    assert await make(timeout_ms=20_000).execute("leave_thread", {}) == "done"


# --- failures that are told ---


@in_loop
async def test_what_a_tool_raises_is_a_failure(make: Make) -> None:
    with pytest.raises(ToolRaised) as caught:
        await make().execute("fail", {"kind": "raise"})
    assert (caught.value.error_type, caught.value.reason) == ("ValueError", "no such \x1b[31mthing")
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(ToolRaised, match=r"sys\.exit\(3\)"):
        await make().execute("fail", {"kind": "exit"})


@in_loop
async def test_a_tool_that_is_not_there_is_a_failure(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ToolRaised, match="there is no tool 'nothing'"):
        await make().execute("nothing", {})
    with pytest.raises(ToolRaised, match="ToolsNotFound"):
        await SubprocessExecutor(str(tmp_path / "none.py")).execute("echo", {"value": 1})


@pytest.mark.parametrize(
    ("kind", "exit_code", "number"),
    [("_exit", 3, None), ("segv", None, signal.SIGSEGV), ("kill", None, signal.SIGKILL)],
)
@in_loop
async def test_a_process_that_ends_without_an_answer_leaves_the_outcome_unknown(
    make: Make, kind: str, exit_code: int | None, number: int | None
) -> None:
    with pytest.raises(ToolProcessEnded) as caught:
        await make().execute("fail", {"kind": kind})
    assert isinstance(caught.value, OutcomeUnknown)
    assert (caught.value.exit_code, caught.value.signal) == (exit_code, number)
    assert r"first line / last \x1b[31mline" in caught.value.message
    assert caught.value.message.isprintable()


@in_loop
async def test_an_output_that_is_too_large_or_no_json_is_a_failure(make: Make) -> None:
    small = make(max_output_bytes=1000)
    assert len(await small.execute("give", {"what": "text", "size": 998})) == 998
    with pytest.raises(ToolOutputTooLarge) as caught:
        await small.execute("give", {"what": "text", "size": 999})
    assert (caught.value.size_bytes, caught.value.max_output_bytes) == (1001, 1000)
    for what in ("set", "nan"):
        with pytest.raises(ToolOutputInvalid):
            await small.execute("give", {"what": what})


@in_loop
async def test_a_process_that_cannot_be_started_is_a_failure(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ToolProcessNotStarted, match="gone"):
        await make(cwd=tmp_path / "gone").execute("echo", {"value": 1})


# --- limits ---


@pytest.mark.skipif(not LINUX, reason="only Linux enforces RLIMIT_AS")
@in_loop
async def test_memory_above_the_limit_is_refused(make: Make) -> None:
    executor = make(memory_mb=400)
    assert await executor.execute("huge", {"megabytes": 10}) == 10 * 2**20
    with pytest.raises(ToolOutOfMemory) as caught:
        await executor.execute("huge", {"megabytes": 500})
    assert caught.value.memory_mb == 400
    assert await make().execute("huge", {"megabytes": 500}) == 500 * 2**20


@pytest.mark.parametrize("deaf", [False, True])
@in_loop
async def test_processor_time_above_the_limit_kills(make: Make, deaf: bool) -> None:
    with pytest.raises(ToolKilled) as caught:
        await make(cpu_secs=1).execute("spin", {"deaf": deaf})
    assert (caught.value.limit, caught.value.value) == ("cpu_secs", 1)
    assert isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout_ms", 0), ("timeout_ms", 1.5), ("memory_mb", 8), ("cpu_secs", True), ("cpu_secs", 0)],
)
def test_a_limit_that_cannot_be_is_refused_at_once(make: Make, name: str, value: Any) -> None:
    with pytest.raises(InvalidExecutor) as caught:
        make(**{name: value})
    assert caught.value.field == name


def test_a_limit_that_the_system_does_not_enforce_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InvalidExecutor, match="darwin does not enforce"):
        make(memory_mb=512)


# --- killing ---


@pytest.mark.parametrize("deaf", [False, True])
@in_loop
async def test_after_a_timeout_nothing_of_the_call_runs(
    make: Make, tmp_path: Path, deaf: bool
) -> None:
    path = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(ToolKilled) as caught:
        await make(timeout_ms=1500).execute("family", {"path": str(path), "deaf": deaf})
    assert time.monotonic() - began < 1.5 + GRACE_SECONDS + 2
    assert (caught.value.limit, caught.value.value, caught.value.left) == (
        "timeout_ms",
        1500,
        False,
    )
    assert not any(alive(pid) for pid in await noted(path))


@pytest.mark.parametrize("times", [1, 3])
@in_loop
async def test_a_cancelled_call_ends_only_when_it_is_dead(
    make: Make, tmp_path: Path, times: int
) -> None:
    path = tmp_path / "pids"
    call = asyncio.create_task(make().execute("family", {"path": str(path), "deaf": True}))
    pids = await noted(path)
    assert all(alive(pid) for pid in pids)
    for _ in range(times):
        call.cancel()
        await asyncio.sleep(0.1)
        assert not call.done()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not any(alive(pid) for pid in pids)


@pytest.mark.skipif(not LINUX, reason="needs /proc")
@in_loop
async def test_a_process_that_was_forked_meanwhile_does_not_keep_a_call_alive(
    make: Make, tmp_path: Path
) -> None:
    """A fork holds every pipe open, as copies of them do."""
    path = tmp_path / "pids"
    call = asyncio.create_task(make().execute("family", {"path": str(path)}))
    pids = await noted(path)
    copies = [os.dup(int(link.name)) for link in Path("/proc/self/fd").iterdir() if is_pipe(link)]
    try:
        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert time.monotonic() - began < GRACE_SECONDS + 3
        assert not any(alive(pid) for pid in pids)
    finally:
        for copy in copies:
            os.close(copy)


def is_pipe(link: Path) -> bool:
    try:
        return os.readlink(link).startswith("pipe:")
    except OSError:  # of the listing itself, closed by then
        return False


@in_loop
async def test_a_call_that_is_cancelled_before_it_began_leaves_nothing(
    make: Make, tmp_path: Path
) -> None:
    for delay in (0, 0.001, 0.01, 0.05):
        path = tmp_path / f"pids-{delay}"
        call = asyncio.create_task(make().execute("family", {"path": str(path)}))
        await asyncio.sleep(delay)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.3)
        assert not path.exists() or not any(alive(pid) for pid in await noted(path))


@in_loop
async def test_what_a_tool_leaves_running_is_killed_when_it_returns(
    make: Make, tmp_path: Path
) -> None:
    for number, own_session in enumerate([False, True] if LINUX else [False]):
        path = tmp_path / f"pids-{number}"
        params = {"path": str(path), "stay": False, "own_session": own_session}
        assert await make().execute("family", params) == "done"
        assert not any(alive(pid) for pid in await noted(path))


@in_loop
async def test_a_stopped_tool_may_tidy_up(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "tidied"
    call = asyncio.create_task(make().execute("tidy", {"path": str(path)}))
    await noted(Path(f"{path}.started"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert path.read_text() == "tidied"


def test_when_the_loop_ends_in_the_middle_of_a_call_it_is_dead(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "pids"

    async def main() -> list[int]:
        task = asyncio.create_task(make().execute("family", {"path": str(path), "deaf": True}))
        pids = await noted(path)
        assert not task.done()
        return pids  # asyncio.run cancels every task

    assert not any(alive(pid) for pid in asyncio.run(main()))


@in_loop
async def test_the_child_dies_when_its_parent_is_killed(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    program = (
        "import asyncio, sys\n"
        "from engine.process.executor import SubprocessExecutor\n"
        "call = SubprocessExecutor(sys.argv[1]).execute('family', {'path': sys.argv[2]})\n"
        "asyncio.run(call)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, make().tools, str(path), cwd=ROOT
    )
    pids = await noted(path)
    assert all(alive(pid) for pid in pids)
    parent.kill()
    await parent.wait()
    await all_dead(pids)


@pytest.mark.skipif(not LINUX, reason="elsewhere a killed guard takes nobody with it")
@in_loop
async def test_the_worker_dies_when_its_guard_is_killed(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    call = asyncio.create_task(make().execute("tidy", {"path": str(path)}))
    [worker] = await noted(Path(f"{path}.started"))
    found = subprocess.run(["ps", "-o", "ppid=", "-p", str(worker)], capture_output=True, text=True)
    os.kill(int(found.stdout), signal.SIGKILL)
    with pytest.raises(ToolProcessEnded) as caught:
        await call
    assert caught.value.signal == signal.SIGKILL
    await all_dead([worker])


@pytest.mark.parametrize("deaf", [False, True])
@in_loop
async def test_what_a_tool_runs_in_the_background_dies_when_its_guard_is_killed(
    make: Make, tmp_path: Path, deaf: bool
) -> None:
    path = tmp_path / "pids"
    params = {"path": str(path), "deaf": deaf}
    call = asyncio.create_task(make().execute("family", params))
    worker, child = await noted(path)
    found = subprocess.run(["ps", "-o", "ppid=", "-p", str(worker)], capture_output=True, text=True)
    os.kill(int(found.stdout), signal.SIGKILL)
    with pytest.raises(ToolProcessEnded) as caught:
        await call
    assert caught.value.signal == signal.SIGKILL
    await all_dead([worker, child])


# --- the context ---


@in_loop
async def test_a_tool_in_a_child_knows_the_ids_and_its_meterings_and_lines_come_back(
    make: Make,
) -> None:
    context = ToolContext.detached(tool="ids", attempt=3, idempotency_key="k" * 64)
    reset = current_context.set(context)
    try:
        output = await make().execute("ids", {})
    finally:
        current_context.reset(reset)
    assert output == ["detached", "detached", "ids", 3, "k" * 64]
    [metered], [line] = context.buffered.metered, context.buffered.lines
    assert (metered.tokens_in, metered.cost_micros, metered.model) == (7, 500_000, "small")
    assert (line.message, line.data) == ("seen", {"attempt": 3})


@pytest.mark.parametrize("how", ["get", "set", "delete", "read"])
@in_loop
async def test_a_tool_in_a_child_has_no_state(make: Make, how: str) -> None:
    context = ToolContext.detached({"a": 1})
    reset = current_context.set(context)
    try:
        name, params = ("ask_state_async", {}) if how == "read" else ("ask_state", {"how": how})
        with pytest.raises(ToolRaised, match="process of its own, which has no state") as caught:
            await make().execute(name, params)
    finally:
        current_context.reset(reset)
    assert caught.value.error_type == "ContextMisused"
    assert len(context.buffered.lines) == (0 if how == "read" else 1)


@in_loop
async def test_outside_of_a_run_there_is_no_context(make: Make) -> None:
    with pytest.raises(ToolRaised, match="there is no run"):
        await make().execute("ids", {})


# --- under a runtime ---


def plan(tool: str, **parameters: Any) -> dict[str, Any]:
    return {"actions": [{"id": "a", "tool": tool, "parameters": parameters}]}


@in_loop
async def test_a_runtime_calls_tools_in_processes(make: Make, tmp_path: Path) -> None:
    executor = make(timeout_ms=20_000)
    async with connect(tmp_path / "a.db") as store:
        runtime = Runtime(store, tools=executor.schemas(), executor=executor)
        result = await runtime.execute(plan("echo", value=[1, "two"]))
        assert result.results[0].output == [1, "two"]
        failed = await runtime.execute(plan("fail", kind="raise"))
        assert "no such" in str(failed.results[0].error)


@in_loop
async def test_a_timeout_of_the_engine_kills_and_the_outcome_stays_unknown(
    make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    executor = make()
    proposal = plan("family", path=str(path), deaf=True)
    proposal["actions"][0]["timeout_ms"] = 1500
    async with connect(tmp_path / "a.db") as store:
        runtime = Runtime(store, tools=executor.schemas(), executor=executor)
        result = await runtime.execute(proposal)
    assert result.status is RunStatus.WAITING
    assert not any(alive(pid) for pid in await noted(path))


# --- last words ---


@given(st.lists(st.binary(max_size=3000), max_size=12))
def test_last_words_are_one_printable_bounded_line_however_they_come(parts: list[bytes]) -> None:
    tail, whole = Tail(), Tail()
    for part in parts:
        tail.take(part)
    whole.take(b"".join(parts))
    assert tail.text == whole.text
    assert len(tail.text) <= MAX_TAIL_CHARS
    assert tail.text == "" or tail.text.isprintable()


def test_last_words_begin_with_a_whole_line() -> None:
    tail = Tail()
    tail.take(b"secret" * MAX_TAIL_BYTES + b"\nafterwards\n\x1b[0mend")
    assert tail.text == r"afterwards / \x1b[0mend"


def test_every_error_of_a_process_shows_only_printable_characters() -> None:
    ended = ToolProcessEnded("t", None, 200, "words", "why", left=True)
    assert ended.message.isprintable()
    assert "signal 200" in ended.message
    assert "could not be killed" in ended.message
    assert isinstance(ended, CarstoreError)
