"""The README's first screen is true: the program is an example, commands run, links lead."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
LINES = [line for block in SHELL for line in block.splitlines()]


def test_the_program_is_the_first_example() -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert program == (ROOT / "examples" / "first.py").read_text(encoding="utf-8")


def test_every_block_of_code_is_one_that_is_checked_here() -> None:
    assert set(re.findall(r"^```(\w*)$", TEXT, re.MULTILINE)) == {"python", "sh", ""}


def test_the_makefile_has_what_the_readme_makes() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {line.split()[1] for line in LINES if line.startswith("make ")}
    named |= set(re.findall(r"`make ([a-z]+)`", TEXT))
    assert {"demo", "test"} <= named <= set(targets)


def test_every_command_named_exists() -> None:
    named = set(re.findall(r"(?:^|`)carstore ([a-z]+)", TEXT, re.MULTILINE))
    assert named
    assert named <= COMMANDS.keys()


def test_the_commands_run_one_after_the_other(tmp_path: Path) -> None:
    [block] = [block for block in SHELL if "carstore new" in block]
    program = tmp_path / "bin" / "carstore"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m engine.cli "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["sh", "-euxc", block], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Hello world" in done.stdout


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_it_maps_the_seven_names_and_stays_short() -> None:
    for name in ("pyproject.toml", "README.md", "schema.sql"):
        assert f"[`{name}`]({name})" in TEXT
    for name in ("carstore", "projections", "engine", "tests"):
        assert f"[`{name}/`]({name}/)" in TEXT
    assert len(TEXT.splitlines()) <= 120
