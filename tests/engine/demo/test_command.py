"""`carstore demo` as people and programs call it: real processes, really killed."""

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
DEMO = [sys.executable, "-m", "engine.cli", "demo"]


def carstore_demo(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*DEMO, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def told(*arguments: str, cwd: Path) -> dict[str, Any]:
    """What `--json` says of a demonstration that kept its promises."""
    done = carstore_demo(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    assert outcome["ok"]
    assert outcome["status"] == "succeeded"
    assert outcome["verify"]["ok"]
    assert len(outcome["kills"]) == 2
    assert outcome["completed_actions_run_again"] == 0
    return outcome


def fill(folder: Path, files: int) -> None:
    folder.mkdir()
    for number in range(files):
        (folder / f"file {number}.py").write_text("x = 1\n" * (number % 7), encoding="utf-8")


def test_a_folder_is_worked_through_although_the_process_is_killed_twice(tmp_path: Path) -> None:
    fill(tmp_path / "some", 60)
    outcome = told("some", cwd=tmp_path)
    assert outcome["actions"] > 150
    first, second = (kill["completed"] for kill in outcome["kills"])
    assert 0 < first < second < outcome["actions"]
    assert [cost["agent"] for cost in outcome["costs"]] == ["reader", "writer"]
    assert [cost["calls"] for cost in outcome["costs"]] == [60, 3]
    report = (tmp_path / outcome["report"]).read_text(encoding="utf-8")
    assert "- 60 files," in report
    assert "| Python | 60 |" in report


def test_run_again_it_keeps_one_new_file_that_plain_sqlite_reads(tmp_path: Path) -> None:
    for _ in range(2):  # over a folder that holds what the first one left, and nothing else
        outcome = told("--keep", "out", cwd=tmp_path)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {".carstore-demo", "demo.db", "plan.json", "calls.jsonl", "report.md"}
    with sqlite3.connect(tmp_path / "out" / "demo.db") as connection:
        [(head,)] = connection.execute("SELECT max(position) FROM events").fetchall()
        [(resumed,)] = connection.execute(
            "SELECT count(*) FROM events WHERE kind = 'run_resumed'"
        ).fetchall()
    connection.close()
    assert (head, resumed) == (outcome["verify"]["head"]["position"], 2)


def test_odd_files_are_worked_through(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("with space", "new\nline.md", "ünï`|`.txt", "$files.output", "-rf"):
        (folder / name).write_text("same", encoding="utf-8")
    (folder / "binary").write_bytes(b"\0\xff" * 100)
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    unreadable = folder / "unreadable"
    unreadable.write_text("secret")
    unreadable.chmod(0)
    told("odd", cwd=tmp_path)
    report = (tmp_path / "carstore-demo" / "report.md").read_text(encoding="utf-8")
    assert "1 group of files with the same content" in report
    assert "`new\\nline.md`" in report
    assert "- `pipe`: no regular file" in report
    if os.geteuid() != 0:
        assert "- `unreadable`" in report


def test_people_are_told_what_happened_and_what_to_try(tmp_path: Path) -> None:
    fill(tmp_path / "some", 5)
    done = carstore_demo("some", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "completed actions run again: 0\n" in done.stdout
    assert "chain: verified" in done.stdout
    assert "cost by agent" in done.stdout
    assert done.stderr.count("killed with SIGKILL at") == 2
    assert "\x1b" not in done.stdout + done.stderr
    commands = [line for line in done.stdout.split("try next\n")[1].splitlines() if line]
    assert len(commands) == 3
    for command in commands:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        tried = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert tried.returncode == 0, tried.stderr
        assert tried.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing"],
        ["file"],
        [".", "--keep", "."],
        [".", "--keep", "file"],
        [".", "too", "many"],
        [".", "--unknown"],
    ],
)
def test_wrong_arguments_end_with_2_and_leave_nothing(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("x")
    done = carstore_demo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_wrong_arguments_are_told_as_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = carstore_demo(".", "--keep", ".", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"


def test_ctrl_c_ends_it_with_130_and_leaves_no_process(tmp_path: Path) -> None:
    fill(tmp_path / "some", 60)
    with subprocess.Popen(
        [*DEMO, "some"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        began = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.split()[1]), 0)
