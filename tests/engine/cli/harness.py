"""What the tests of the command line share: plans, tools, and ways to call it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from attrs import frozen
from click.testing import CliRunner

from engine.cli.app import app

ROOT = Path(__file__).resolve().parents[3]

TOOLS = '''
import asyncio, os, subprocess, time
from engine import ToolContext, tool

@tool(read_only=True)
def double(n: int) -> int:
    return 2 * n

@tool
def spend(amount: int, ctx: ToolContext) -> str:
    ctx.meter(tokens_in=amount, tokens_out=1, cost_micros=10 * amount)
    ctx.meter(tokens_in=1, cost_micros=1, agent="helper")
    ctx.set("spent", amount)
    return "paid"

@tool
def boom(text: str = "no") -> str:
    raise ValueError(text)

@tool
def loud(n: int) -> int:
    print("printed by a tool")
    subprocess.run(["echo", "printed by a program"], check=True)
    return n

@tool
def wait(path: str, seconds: float = 60.0) -> str:
    """Make a file when the call begins; then wait until another one is there."""
    open(path, "w").close()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not os.path.exists(path + ".go"):
        time.sleep(0.01)
    return "waited"

@tool
def undo_keep(parameters: dict, output: str) -> str:
    return "undone"

@tool(compensation=undo_keep)
def keep() -> str:
    return "kept"

@tool(read_only=True)
async def nap(ms: int) -> int:
    await asyncio.sleep(ms / 1000)
    return ms
'''


def call(name: str, tool: str, *after: str, **parameters: Any) -> dict[str, Any]:
    """A tool call of a plan; fields of the action begin with an underscore."""
    fields = {key[1:]: parameters.pop(key) for key in list(parameters) if key.startswith("_")}
    return {
        "id": name,
        "type": "tool_call",
        "tool": tool,
        "parameters": parameters,
        "dependencies": list(after),
        **fields,
    }


def write(name: str, key: str, value: Any) -> dict[str, Any]:
    """A state write of a plan."""
    return {"id": name, "type": "state_write", "parameters": {"key": key, "value": value}}


def plan(*actions: dict[str, Any], source: str = "planner") -> dict[str, Any]:
    """A plan."""
    return {"id": "p1", "source": source, "actions": list(actions)}


GOOD = plan(
    write("set", "n", 20),
    {"id": "get", "type": "state_read", "parameters": {"key": "n"}},
    call("twice", "double", n="$get.output"),
    call("pay", "spend", "twice", amount=7),
)

BAD = plan(call("fails", "boom", _failure_behavior="retry", _max_retries=1), write("set", "k", 1))

ROLLED_BACK = plan(call("keeps", "keep", _reversibility="compensable"), call("f", "boom", "keeps"))


@frozen
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Folder:
    """A folder with tools and plans, which is the working directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "tools.py").write_text(TOOLS)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def plan(self, content: Any, name: str = "plan.json") -> str:
        """Write a plan and return the name of its file."""
        (self.path / name).write_text(json.dumps(content))
        return name

    def run(self, content: Any, *options: str, db: str = "a.db") -> Done:
        """Run a plan in this process."""
        return cli("run", db, self.plan(content), "--tools", "tools.py", "--quiet", *options)


def cli(*arguments: str, stdin: bytes | None = None) -> Done:
    """Call the command line in this process."""
    found = CliRunner().invoke(app, list(arguments), input=stdin)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return Done(found.exit_code, found.stdout, found.stderr)


def environment(**more: str) -> dict[str, str]:
    """For a process that finds the packages where this one does, and has no terminal's settings."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", **more}


def command(*arguments: str) -> list[str]:
    """The command line as a program of its own."""
    return [sys.executable, "-m", "engine", *arguments]


def process(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
    """Call it so, and wait for its end."""
    done = subprocess.run(
        command(*arguments), input=stdin, capture_output=True, env=environment(**more), timeout=60
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def shape(value: Any) -> Any:
    """What JSON is made of: the keys of objects, and the shapes of what lists hold."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "value"
