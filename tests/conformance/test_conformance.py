"""Plays every case of the table, and looks at each of its steps."""

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.comparing import differences
from tests.conformance.harness import Case, play
from tests.conformance.table import TOPICS


def look(case: Case, path: Path) -> list[str]:
    """Everything in which what is seen of a case is not what it expects."""
    found = []
    seen = play(case, path)
    for number, (step, one) in enumerate(zip(case["steps"], seen, strict=True), 1):
        said = differences(step.get("expect", {}), one)
        found += [f"step {number} ({step['do']}), {text}" for text in said]
    return found


def parameters() -> list[Any]:
    """Each case, under the name of its topic and its own."""
    return [
        pytest.param(case, id=f"{topic}: {case['name']}")
        for topic, cases in TOPICS.items()
        for case in cases
    ]


@pytest.mark.parametrize("case", parameters())
def test_case(case: Case, tmp_path: Path) -> None:
    found = look(case, tmp_path / "case.db")
    assert not found, "\n".join([case["name"], *found])
