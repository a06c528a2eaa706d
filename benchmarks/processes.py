"""Processes that a benchmark starts.

They find compiled bytecode, as an installed program does, whatever the settings are under which the
benchmarks run: their first start writes it to a folder of its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).resolve().parent.parent


@cache
def _bytecode() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="carstore-bench-bytecode-")


def environment() -> dict[str, str]:
    """Ours, with bytecode kept."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": _bytecode().name}


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter."""
    return [sys.executable, *arguments]


def child(*arguments: object) -> list[str]:
    """The command that runs `benchmarks.children`."""
    return python("-m", "benchmarks.children", *map(str, arguments))


def run(command: list[str]) -> str:
    """Run to the end and return what it printed.

    Raises:
        subprocess.CalledProcessError: it failed; its standard error was shown.
    """
    return subprocess.run(
        command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start, to read what it prints while it runs."""
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)


def spent(command: list[str]) -> tuple[float, float]:
    """Seconds from start to end, and seconds of processor time: they differ on a busy machine."""
    before, began = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    run(command)
    elapsed, after = time.perf_counter() - began, getrusage(RUSAGE_CHILDREN)
    return elapsed, sum(after[:2]) - sum(before[:2])
