"""The report: Markdown that no file name can break."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.demo.report import MAX_LISTED, code, markdown, paragraph, purpose_of


def report(**more: object) -> str:
    names = "sections languages purposes biggest same unread left_out notes"
    empty: dict[str, object] = {name: [] for name in names.split()}
    return markdown(folder="/f", **{**empty, **more})  # type: ignore[arg-type]


def test_nothing_found_is_a_heading() -> None:
    assert report().startswith("# What `/f` holds\n")


@given(st.text())
def test_a_name_stays_on_its_line_and_in_its_code_span(name: str) -> None:
    shown = code(name)
    assert len(shown.splitlines()) == 1
    fence = shown[: len(shown) - len(shown.lstrip("`"))]
    assert shown.endswith(fence)


def test_a_name_does_not_break_a_table() -> None:
    text = report(biggest=[{"path": "a|b\n", "bytes": 1234}])
    assert "| `a\\|b\\n` | 1,234 |" in text


def test_long_lists_are_cut_and_counted() -> None:
    text = report(unread=[str(number) for number in range(MAX_LISTED + 5)])
    assert "- and 5 more" in text


def test_languages_without_files_are_not_listed_and_others_by_lines() -> None:
    rows = [("A", 1, 2), ("B", 0, 0), ("C", 1, 9)]
    text = report(
        languages=[{"language": n, "files": f, "lines": ln, "words": 0} for n, f, ln in rows]
    )
    assert "| B |" not in text
    assert text.index("| C |") < text.index("| A |")


@pytest.mark.parametrize(
    ("topic", "facts", "said"),
    [
        ("contents", {"files": 1, "unread": [], "bytes": 5}, "1 file, 5 bytes together."),
        ("contents", {"files": 2, "unread": ["x"], "bytes": 0}, "of which 1 could not be read"),
        ("duplicates", {"groups": [], "wasted_bytes": 0}, "No two files"),
        ("duplicates", {"groups": [["a", "b"]], "wasted_bytes": 7}, "1 group"),
        ("sizes", [], "nothing to measure"),
        ("sizes", [{"path": "a", "bytes": 3}], "`a` with 3 bytes"),
    ],
)
def test_paragraphs_say_what_was_found(topic: str, facts: object, said: str) -> None:
    assert said in paragraph(topic, facts)


@pytest.mark.parametrize(
    ("path", "purpose"),
    [
        ("src/a.py", "source"),
        ("tests/a.py", "test"),
        ("README.md", "documentation"),
        ("pyproject.toml", "configuration"),
        ("a/examples/b.py", "example"),
        ("picture.png", "data"),
    ],
)
def test_purposes_are_told_by_name(path: str, purpose: str) -> None:
    assert purpose_of(path) == purpose
