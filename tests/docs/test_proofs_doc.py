"""`docs/proofs.md` is what `carstore prove --report` made, and all published figures are its."""

import re
from pathlib import Path

import pytest

from engine.prove.broken import BREAKAGES
from engine.prove.catalog import proofs
from engine.prove.conduct import Conducted
from engine.prove.proof import Outcome
from engine.prove.report import figure_text, headlines
from tests.proofs.figures import PAGE, PUBLISHED, block

TEXT = PAGE.read_text(encoding="utf-8")
FIRST, _, SECOND = TEXT.partition("## Can the proofs fail?")
DONE = dict(re.findall(r"(?ms)^### (.+?)\n\n(.+?)(?=\n\n|\Z)", FIRST))


def rows(text: str) -> list[list[str]]:
    """The rows of the table in it."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in re.findall(r"(?m)^\| .*\|$", text)
    ][1:]


def figures(listed: str) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for part in listed.splitlines():
        name, _, value = part.removeprefix("* ").rpartition(": ")
        plain = value.replace(",", "")
        found[name] = float(plain) if "." in plain else int(plain)
    return found


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_published_figures_are_those_of_the_page(path: Path) -> None:
    assert block(path) == block(PAGE)


def test_every_proof_was_run_and_held() -> None:
    held = {name: holds for name, _, holds in rows(FIRST)}
    assert held == {one.name: "yes" for one in proofs()}


def test_every_promise_was_broken_on_purpose_and_that_was_noticed() -> None:
    noticed = {name: (by, yes) for name, _, by, yes in rows(SECOND)}
    assert noticed == {one.name: (one.caught_by, "yes") for one in BREAKAGES.values()}


def test_the_sentences_say_what_was_counted() -> None:
    by_name = {one.name: one for one in proofs()}
    conducted = [
        Conducted(proof=by_name[name], outcome=Outcome(figures=figures(done)), kept=None)
        for name, done in DONE.items()
    ]
    assert DONE.keys() == by_name.keys()
    assert headlines(conducted) == block(PAGE).strip()


def test_it_says_how_it_was_made() -> None:
    assert re.search(r"Scale `(normal|long)`, seed \d+, ", FIRST)
    assert re.search(r"\d+ CPUs \(\w+\), \w+, Python 3\.\d+\.\d+, SQLite 3\.\d+\.\d+", FIRST)


def test_figures_are_written_so_that_they_can_be_read_again() -> None:
    given = {"ready, p95 ms": 1_234, "slowest": 0.5}
    text = "\n".join(f"* {name}: {figure_text(value)}" for name, value in given.items())
    assert figures(text) == given
