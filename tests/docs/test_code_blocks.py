"""The Python blocks of the documentation run, and print what they say.

The blocks of one file are run one after the other, in one namespace and one folder. A block may
`await` at its top level, as in `python -m asyncio`. What a comment `# -> ...` after a print says is
what was printed. A block that begins with `# not run` is not.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import DOCS, ROOT, Block, code_blocks

FILES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
NOT_RUN = "# not run"
PROMISED = re.compile(r"\)  # -> (.*)$", re.MULTILINE)
SPEED = 20
"""How much faster than life examples sleep."""


def blocks(path: Path) -> list[Block]:
    return [
        block
        for block in code_blocks(path)
        if block.language == "python" and not block.text.startswith(NOT_RUN)
    ]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep: Callable[..., Any] = asyncio.sleep

    async def shorter(delay: float, result: Any = None) -> Any:
        return await sleep(delay / SPEED, result)

    monkeypatch.setattr(asyncio, "sleep", shorter)


def run(block: Block, names: dict[str, Any], runner: asyncio.Runner) -> str:
    """What the block prints."""
    code = compile(
        "\n" * (block.line - 1) + block.text,
        str(block.path),
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, names))
        else:
            exec(code, names)
    return printed.getvalue()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("path", [file for file in FILES if blocks(file)], ids=lambda p: p.name)
def test_the_examples_run_and_print_what_they_say(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in blocks(path):
            printed = run(block, names, runner)
            promised = PROMISED.findall(block.text)
            if promised:
                assert printed.splitlines() == promised, f"{path.name}, line {block.line}"


def test_nearly_all_examples_are_run() -> None:
    skipped = [
        block
        for path in FILES
        for block in code_blocks(path)
        if block.language == "python" and block.text.startswith(NOT_RUN)
    ]
    assert len(skipped) <= 3
    assert sum(len(blocks(path)) for path in FILES) > 10
