"""Tools of MCP servers: real ones, run as processes, over pipes and over HTTP."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carstore import connect
from engine import Runtime, Tool, ToolContext
from engine.ir import RunStatus
from engine.mcp.errors import (
    McpNotConnected,
    McpRefused,
    McpServerGone,
    McpServerLost,
    McpToolFailed,
)
from engine.mcp.tools import CONTEXT, mcp_tools
from engine.tool_schema import InvalidTool
from engine.unknown_outcome import OutcomeUnknown
from tests.engine.harness import in_loop

pytestmark = pytest.mark.slow

pytest.importorskip("mcp", reason="the extra mcp is not installed")

ROOT = Path(__file__).resolve().parents[3]
SERVER = Path(__file__).with_name("mcp_server.py")
COMMAND = [sys.executable, str(SERVER), "stdio"]
NAMES = ["add", "say", "fail", "slow", "crash", "meta"]
EVERYTHING = "@modelcontextprotocol/server-everything"


class HttpServer:
    """The small server on a port of this machine."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), "http", str(self.port)], stderr=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        self.kill()
        raise AssertionError("the server did not begin to listen")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def http() -> Iterator[HttpServer]:
    server = HttpServer()
    yield server
    server.kill()


@pytest.fixture(params=["stdio", "http"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What connects to the small server, one way and the other."""
    if request.param == "stdio":
        return {"command": COMMAND}
    return {"url": request.getfixturevalue("http").url}


def by_name(tools: list[Tool]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


async def called(tool: Tool, **params: Any) -> Any:
    """Call a tool as the engine does, with a context."""
    context = ToolContext.detached(idempotency_key="k" * 64)
    return await tool(**params, **{CONTEXT: context})


async def began(path: Path, times: int = 1) -> None:
    """Wait until the server has begun so many calls that note it."""
    for _ in range(500):
        if path.exists() and len(path.read_text().splitlines()) >= times:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the call did not begin")


# --- what a server offers ---


@in_loop
async def test_tools_come_with_names_descriptions_and_schemas(where: dict[str, Any]) -> None:
    async with mcp_tools(**where) as tools:
        assert [tool.name for tool in tools] == NAMES
        add = by_name(tools)["add"].schema
        assert add.description.startswith("Add two numbers.")
        assert add.parameters["required"] == ["a", "b"]
        assert add.returns is not None
        assert add.returns["required"] == ["total", "of"]
        assert add.timeout_ms == 60_000
        assert by_name(tools)["say"].schema.returns is None


@in_loop
async def test_a_prefix_and_a_choice_of_tools() -> None:
    async with mcp_tools(COMMAND, prefix="small/", only=["say", "add"], timeout_ms=5) as tools:
        assert [tool.name for tool in tools] == ["small/add", "small/say"]
        assert tools[0].schema.timeout_ms == 5
        assert (await called(tools[0], a=1, b=2))["total"] == 3


@in_loop
async def test_by_default_no_hint_makes_a_tool_repeatable() -> None:
    async with mcp_tools(COMMAND) as tools:
        assert {tool.schema.effect.value for tool in tools} == {"once"}


@in_loop
async def test_hints_of_a_trusted_server_and_what_is_declared_here() -> None:
    async with mcp_tools(COMMAND, trust="annotations") as tools:
        modes = {tool.name: tool.schema.effect.value for tool in tools}
    assert modes == {
        "add": "read_only",
        "fail": "idempotent",
        "slow": "once",
        "say": "once",
        "crash": "once",
        "meta": "once",
    }
    async with mcp_tools(COMMAND, effects={"say": "read_only", "slow": "idempotent"}) as tools:
        found = by_name(tools)
        assert found["say"].schema.read_only
        assert found["slow"].schema.idempotent
        assert found["add"].schema.effect.value == "once"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"effects": {"slow": "read_only"}}, "destructiveHint: true"),
        ({"effects": {"slow": "twice"}}, "not one of read_only, idempotent, once"),
        ({"effects": {"sey": "once"}}, r'did you mean "say"'),
        ({"only": ["ad"]}, 'did you mean "add"'),
        ({"prefix": "not a name "}, "name"),
    ],
)
@in_loop
async def test_what_cannot_be_is_refused_before_a_plan_runs(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidTool, match=said):
        async with mcp_tools(COMMAND, **options):
            raise AssertionError("it was accepted")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"command": COMMAND, "url": "http://127.0.0.1/"},
        {"command": "python server.py"},
        {"command": []},
        {"command": COMMAND, "headers": {}},
        {"url": "http://127.0.0.1/", "env": {}},
        {"command": COMMAND, "trust": "everything"},
    ],
)
@in_loop
async def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"command|trust|url"):
        async with mcp_tools(**options):
            raise AssertionError("it was accepted")


# --- what comes back ---


@in_loop
async def test_structured_content_is_the_output(where: dict[str, Any]) -> None:
    async with mcp_tools(**where) as tools:
        output = await called(by_name(tools)["add"], a=2, b=3)
        assert output == {"total": 5, "of": [2, 3]}
        assert by_name(tools)["add"].schema.check_returns(output) == []


@in_loop
async def test_content_without_structure_is_a_list_of_blocks(where: dict[str, Any]) -> None:
    async with mcp_tools(**where) as tools:
        assert await called(by_name(tools)["say"], text="hello") == {
            "content": [
                {"type": "text", "text": "hello"},
                {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            ]
        }


@in_loop
async def test_a_failure_that_the_tool_tells_is_one(where: dict[str, Any]) -> None:
    async with mcp_tools(**where) as tools:
        with pytest.raises(McpToolFailed) as caught:
            await called(by_name(tools)["fail"], text="no \x1b[31mroom\nat all")
        assert caught.value.message == r"no \x1b[31mroom / at all"
        assert not isinstance(caught.value, OutcomeUnknown)
        assert (await called(by_name(tools)["add"], a=1, b=1))["total"] == 2


@in_loop
async def test_the_idempotency_key_goes_with_the_call(where: dict[str, Any]) -> None:
    async with mcp_tools(**where) as tools:
        meta = by_name(tools)["meta"]
        assert (await called(meta))["key"] == "k" * 64
        assert (await meta())["key"] is None


@in_loop
async def test_a_server_gets_the_variables_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OF_THE_TEST", "of the parent")
    async with mcp_tools(COMMAND) as tools:
        assert (await called(by_name(tools)["meta"]))["env"] is None
    async with mcp_tools(COMMAND, env={"OF_THE_TEST": "given"}) as tools:
        assert (await called(by_name(tools)["meta"]))["env"] == "given"


@in_loop
async def test_calls_run_side_by_side(where: dict[str, Any]) -> None:
    async with mcp_tools(**where) as tools:
        add = by_name(tools)["add"]
        outputs = await asyncio.gather(*[called(add, a=n, b=0) for n in range(20)])
        assert [output["total"] for output in outputs] == list(range(20))


# --- servers that end ---


@in_loop
async def test_a_server_that_dies_in_a_call_leaves_its_outcome_unknown(
    where: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "began"
    async with mcp_tools(**where) as tools:
        found = by_name(tools)
        with pytest.raises(McpServerLost) as caught:
            await called(found["crash"], path=str(path))
        assert isinstance(caught.value, OutcomeUnknown)
        if "command" in where:
            assert caught.value.last_words.endswith("the last words")
        for _ in range(2):
            with pytest.raises(McpServerGone, match="Connect again"):
                await called(found["crash"], path=str(path))
    assert path.read_text() == "began\n", "nothing was sent to a server that is gone"


@in_loop
async def test_all_calls_in_flight_are_told_of_a_servers_death(tmp_path: Path) -> None:
    path = tmp_path / "began"
    async with mcp_tools(COMMAND) as tools:
        found = by_name(tools)
        pid = (await called(found["meta"]))["pid"]
        calls = [asyncio.create_task(called(found["slow"], path=str(path))) for _ in range(3)]
        await began(path, 3)
        os.kill(pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, McpServerLost) for outcome in outcomes)


@in_loop
async def test_after_the_block_nothing_can_be_called_and_the_server_has_ended() -> None:
    async with mcp_tools(COMMAND) as tools:
        meta = by_name(tools)["meta"]
        pid = (await called(meta))["pid"]
    with pytest.raises(McpServerGone, match="it was closed"):
        await called(meta)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@in_loop
async def test_a_cancelled_call_ends_and_the_connection_goes_on(
    where: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "began"
    async with mcp_tools(**where) as tools:
        found = by_name(tools)
        call = asyncio.create_task(called(found["slow"], path=str(path)))
        await began(path)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await called(found["add"], a=1, b=1))["total"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": ["/there/is/no/such-program"]}, "FileNotFoundError"),
        ({"command": [sys.executable, "-c", "raise SystemExit('no licence')"]}, "no licence"),
        ({"url": "http://user:secret@127.0.0.1:9/mcp?token=secret"}, "ConnectError"),
        (
            {
                "command": [sys.executable, "-c", "import time; time.sleep(60)"],
                "connect_timeout_ms": 300,
            },
            "no answer within 300 ms",
        ),
    ],
)
@in_loop
async def test_a_server_that_is_none_is_told_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(McpNotConnected, match=said) as caught:
        async with mcp_tools(**options):
            raise AssertionError("it was connected")
    assert "secret" not in caught.value.message


@in_loop
async def test_an_error_in_the_block_is_not_hidden_by_the_connection() -> None:
    with pytest.raises(KeyError, match="of the block"):
        async with mcp_tools(COMMAND):
            raise KeyError("of the block")


# --- under a runtime ---


def plan(tool: str, **parameters: Any) -> dict[str, Any]:
    return {"actions": [{"id": "a", "tool": tool, "parameters": parameters}]}


@in_loop
async def test_a_runtime_calls_tools_of_a_server(where: dict[str, Any], tmp_path: Path) -> None:
    proposal = plan("s/add", a=1, b=2)
    proposal["actions"].append(
        {"id": "b", "tool": "s/add", "parameters": {"a": "$a.output.total", "b": 4}}
    )
    async with mcp_tools(**where, prefix="s/") as tools, connect(tmp_path / "a.db") as store:
        runtime = Runtime(store, tools=tools)
        result = await runtime.execute(proposal)
        assert result.results[1].output == {"total": 7, "of": [3, 4]}
        keyed = await runtime.execute(plan("s/meta"))
        assert len(keyed.results[0].output["key"]) == 64
        wrong = await runtime.execute(plan("s/add", a=1))
        assert wrong.status is RunStatus.FAILED


@in_loop
async def test_a_call_whose_server_dies_is_in_doubt(tmp_path: Path) -> None:
    path = tmp_path / "began"
    proposal = plan("crash", path=str(path))
    proposal["actions"][0]["failure_behavior"] = "retry"
    async with mcp_tools(COMMAND) as tools, connect(tmp_path / "a.db") as store:
        result = await Runtime(store, tools=tools).execute(proposal)
    assert result.status is RunStatus.WAITING
    assert path.read_text() == "began\n", "it was not called again"


# --- without the extra, and with a server of others ---


def test_nothing_is_imported_before_it_is_needed_and_its_absence_is_told() -> None:
    program = (
        "import asyncio, sys\n"
        "import engine, engine.runtime, engine.mcp.tools\n"
        "assert not {'mcp', 'mcp_types', 'httpx2', 'pydantic'} & set(sys.modules)\n"
        "sys.modules['mcp'] = None\n"
        "async def main():\n"
        "    async with engine.mcp.tools.mcp_tools(url='http://127.0.0.1/'): pass\n"
        "try: asyncio.run(main())\n"
        "except Exception as error: print(error.code, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("mcp_not_installed "), done.stderr
    assert "pip install 'carstore[mcp]'" in done.stdout


def needs_npm() -> None:
    """Skip where there is no npx, or the registry cannot be reached."""
    if shutil.which("npx") is None:
        pytest.skip("npx is not installed")
    asked = ["npm", "view", EVERYTHING, "version"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip("the npm registry cannot be reached")


def test_the_reference_server_of_the_protocol_works() -> None:
    needs_npm()

    async def main() -> None:
        command = ["npx", "-y", EVERYTHING]
        options: dict[str, Any] = {"connect_timeout_ms": 180_000, "env": dict(os.environ)}
        async with mcp_tools(command, prefix="all/", trust="annotations", **options) as tools:
            found = by_name(tools)
            echo = found["all/echo"]
            assert echo.schema.read_only
            assert await called(echo, message="hi") == {
                "content": [{"type": "text", "text": "Echo: hi"}]
            }
            weather = found["all/get-structured-content"]
            output = await called(weather, location="Chicago")
            assert weather.schema.check_returns(output) == []
            with pytest.raises((McpToolFailed, McpRefused)):
                await called(weather, location="Atlantis")

    asyncio.run(asyncio.wait_for(main(), 240))
