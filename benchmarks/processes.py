"""Processes that a benchmark starts."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start, to read what it prints while it runs."""
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def seconds(command: list[str]) -> float:
    """How long it takes from start to end."""
    began = time.perf_counter()
    run(command)
    return time.perf_counter() - began
