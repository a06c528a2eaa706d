"""The page of figures says what the figures say."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.report import figure, main, page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def row(**given: Any) -> dict[str, Any]:
    base = {"case": "c", "unit": "events/s", "measured": 1234.5, "against": "raw"}
    rest = {"reference": 2469.0, "ratio": 0.5, "met": True, "details": {"p50_ms": 0.25}}
    return {**base, **rest, "goal": {"at_least": 0.42, "at_most": None}, **given}


FIGURES = {
    "machine": {"system": "Linux x", "cores": "2", "Python": "3"},
    "benchmarks": {
        "append": [row(), row(met=False, reference=None, ratio=None, against="", details={})],
        "curve-producers": [row(details={"producers": 1, "p50_ms": 1.0, "p99_ms": 2.0}, goal=None)],
        "new": [row(met=None, goal=None)],
    },
}


def test_every_figure_is_on_the_page() -> None:
    text = page(FIGURES)
    assert "Measured on: Linux x, cores 2, Python 3." in text
    assert "| c | 1,234 events/s | 2,469 raw | 0.5 | at least 0.42 | yes | 0.25 |" in text
    assert "| c | 1,234 events/s |  |  | at least 0.42 | no |  |" in text
    assert "![Waiting time by number of producers](images/producers.svg)" in text
    assert "## new" in text


@pytest.mark.parametrize(
    ("number", "said"), [(None, ""), (0.12345, "0.123"), (99.9, "99.9"), (123456.7, "123,457")]
)
def test_figures_have_three_digits_or_all(number: float | None, said: str) -> None:
    assert figure(number) == said


def test_the_page_is_that_of_its_figures() -> None:
    figures = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == page(figures)


def test_the_page_is_written_with_its_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the extra `bench` has it)")
    source, target = tmp_path / "f.json", tmp_path / "f.md"
    source.write_text(json.dumps(FIGURES), encoding="utf-8")
    done = CliRunner().invoke(main, [str(source), str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_text(encoding="utf-8") == page(FIGURES)
    assert (tmp_path / "images" / "producers.svg").read_text(encoding="utf-8").count("<svg") == 1
