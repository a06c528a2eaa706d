"""Every program of `examples/` runs, and survives what it says it survives."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def finished(name: str, cwd: Path) -> str:
    """What a program prints that runs to its end."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed_after(line: str, name: str, cwd: Path) -> list[str]:
    """What a program has printed until it was killed, which is right after `line`."""
    lines = []
    with subprocess.Popen(
        [sys.executable, EXAMPLES / name],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            lines.append(printed.strip())
            if lines[-1] == line:
                process.kill()
                break
        lines += process.stdout.read().split("\n")[:-1]
    assert process.returncode == -9
    return lines


def events(database: Path, kind: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        sql = "SELECT count(*) FROM events WHERE kind = ?"
        [(count,)] = connection.execute(sql, (kind,)).fetchall()
    return int(count)


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "first.py",
        "agent_loop.py",
        "consumer.py",
        "view_tools.py",
    }


def test_the_first_program_survives_kill_9(tmp_path: Path) -> None:
    before = killed_after("step 3", "first.py", tmp_path)
    *after, status = finished("first.py", tmp_path).splitlines()
    assert before == ["step 1", "step 2", "step 3"]
    assert status == "succeeded"
    # Step 3 had printed, but whether that was recorded is for the moment of the kill to say.
    assert after in (
        [f"step {n}" for n in range(3, 9)],
        [f"step {n}" for n in range(4, 9)],
    )
    assert events(tmp_path / "first.db", "action_succeeded") == 8
    assert finished("first.py", tmp_path) == "succeeded\n"


STEPS = [
    "step 1: durable execution",
    "step 2: event log, idempotency",
    "step 3: hash chain",
    "step 4: SHA-256",
]
FOUND = "done after 4 steps: SHA-256, durable execution, event log, hash chain, idempotency"


def test_the_agent_goes_on_until_its_model_is_done_and_asks_nothing_twice(tmp_path: Path) -> None:
    *steps, found, planner, researcher = finished("agent_loop.py", tmp_path).splitlines()
    assert steps == STEPS
    assert found == FOUND
    assert planner == "planner: 5 calls, $0.002862"
    assert researcher == "researcher: 5 calls, $0.000050"
    done = events(tmp_path / "agent_loop.db", "action_succeeded")
    again = finished("agent_loop.py", tmp_path).splitlines()
    assert again == [found, planner, researcher]
    assert events(tmp_path / "agent_loop.db", "action_succeeded") == done


def test_the_agent_survives_kill_9(tmp_path: Path) -> None:
    before = killed_after(STEPS[2], "agent_loop.py", tmp_path)
    proposed = events(tmp_path / "agent_loop.db", "proposal_received")
    *after, found, _, researcher = finished("agent_loop.py", tmp_path).splitlines()
    assert before == STEPS[:3]
    # Whether the third proposal was recorded before the kill is for that moment to say.
    assert proposed in (2, 3)
    assert after == STEPS[proposed:]
    assert found == FOUND
    assert researcher == "researcher: 5 calls, $0.000050"
    assert events(tmp_path / "agent_loop.db", "proposal_received") == 4


PLAN = """
{"actions": [
  {"id": "a", "tool": "half", "parameters": {"n": 4}},
  {"id": "b", "tool": "half", "parameters": {"n": 3}, "failure_behavior": "skip"},
  {"id": "c", "tool": "half", "parameters": {"n": 5}, "failure_behavior": "retry", "max_retries": 1}
]}
"""

HALF = """
from engine import tool

@tool(read_only=True)
def half(n: int) -> int:
    if n % 2:
        raise ValueError("odd")
    return n // 2
"""


def test_the_view_of_tools_counts_calls_and_failures(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(PLAN)
    (tmp_path / "half.py").write_text(HALF)

    def carstore(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "engine", *words],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    done = ["run", "a.db", "plan.json", "--tools", "half.py", "--quiet"]
    subprocess.run([sys.executable, "-m", "engine", *done], cwd=tmp_path, env=ENVIRONMENT)
    views = ("--views", str(EXAMPLES / "view_tools.py"))
    lines = carstore("view", "a.db", "tools", *views, "--csv").splitlines()
    assert [line.split(",")[1:5] for line in lines] == [
        ["action_id", "tool", "calls", "failures"],
        ["a", "half", "1", "0"],
        ["b", "half", "1", "1"],
        ["c", "half", "2", "2"],
    ]
    carstore("rebuild", "a.db", "--view", "tools", *views)
    totals = (EXAMPLES / "view_tools.py").read_text().partition("    SELECT")[2].partition('"""')[0]
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        [(tool, calls, failures, milliseconds)] = connection.execute(f"SELECT{totals}").fetchall()
    assert (tool, calls, failures) == ("half", 4, 3)
    assert milliseconds >= 0
    carstore("verify", "a.db", *views)


def test_the_page_on_views_shows_it() -> None:
    page = (ROOT / "docs" / "views.md").read_text(encoding="utf-8")
    assert f"```python\n{(EXAMPLES / 'view_tools.py').read_text(encoding='utf-8')}```" in page


def test_the_report_has_each_step_once_after_a_kill(tmp_path: Path) -> None:
    killed_after("step 3", "consumer.py", tmp_path)
    told = finished("consumer.py", tmp_path)
    with closing(sqlite3.connect(tmp_path / "report.db")) as connection:
        done = connection.execute("SELECT step, position FROM done ORDER BY rowid").fetchall()
    assert [row[0] for row in done] == list(range(1, 9))
    assert told.splitlines()[-1] == f"reported up to position {done[-1][1]}"
