"""Views from a Python file that somebody has written."""

import sys
from pathlib import Path

import pytest

from carstore.errors import NotFound
from projections import InvalidView, load_views
from projections.view import RESERVED

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
from attrs import frozen
from carstore.events import InferenceMetered
from projections import COSTS, View

@frozen
class Row:
    agent: str
    calls: int | None = None

def keys(event, recorded):
    return [(event.agent,)]

def evolve(rows, event, recorded):
    return {}

def view(name, **more):
    usual = dict(name=name, version=1, kinds=(InferenceMetered,), row=Row, key=("agent",))
    return View(**{**usual, "keys": keys, "evolve": evolve, **more})

"""
LINE = len(HEAD.splitlines()) + 1
"""Of the first line after it."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def refused(file: Path, text: str) -> InvalidView:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidView) as caught:
        load_views(str(file))
    assert caught.value.path == caught.value.where == str(file)
    assert str(file) in caught.value.message
    return caught.value


def test_views_come_in_the_order_of_the_file_and_those_of_carstore_do_not(file: Path) -> None:
    file.write_text(f"{HEAD}\nB = view('b')\nA = view('a')\nC = B\n", encoding="utf-8")
    assert [one.name for one in load_views(str(file))] == ["b", "a"]


def test_a_file_may_import_what_lies_beside_it(file: Path) -> None:
    (file.parent / "beside_mine.py").write_text("NAME = 'beside'\n")
    file.write_text(f"{HEAD}\nfrom beside_mine import NAME\nA = view(NAME)\n", encoding="utf-8")
    try:
        assert [one.name for one in load_views(str(file))] == ["beside"]
    finally:
        sys.path.remove(str(file.parent))


def test_types_that_are_written_as_texts_are_understood(file: Path) -> None:
    file.write_text(f"from __future__ import annotations{HEAD}\nA = view('a')\n", encoding="utf-8")
    [view] = load_views(str(file))
    assert [(one.type, one.nullable) for one in view.columns] == [(str, False), (int, True)]


def test_what_goes_wrong_in_the_file_is_told_with_its_line(file: Path) -> None:
    error = refused(file, f"{HEAD}1 / 0\n")
    assert f"line {LINE}: ZeroDivisionError" in error.message
    assert "line 2: SyntaxError" in refused(file, "x = 1\nx = = 2\n").message
    assert "line 1: SystemExit" in refused(file, "raise SystemExit(3)\n").message
    assert "ModuleNotFoundError" in refused(file, "import of_no_package\n").message


@pytest.mark.parametrize("name", [*sorted(RESERVED), "sqlite_x", "view_x", "Upper", "a b", ""])
def test_a_name_that_no_view_can_have_is_told_with_its_line(file: Path, name: str) -> None:
    error = refused(file, f"{HEAD}A = view({name!r})\n")
    assert error.view == name
    assert f"line {LINE}" in error.message


@pytest.mark.parametrize("name", ["costs", "runs", "state"])
def test_the_name_of_a_view_of_carstore_is_refused(file: Path, name: str) -> None:
    error = refused(file, f"{HEAD}A = view({name!r})\n")
    assert "carstore has a view of this name" in error.message
    more = "import attrs\nA = attrs.evolve(COSTS, version=7)\n"
    assert "carstore has a view of this name" in refused(file, f"{HEAD}{more}").message


def test_two_views_of_one_name_are_refused(file: Path) -> None:
    error = refused(file, f"{HEAD}A = view('a')\nB = view('a', version=2)\n")
    assert "two views of this name" in error.message


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ("key='agent'", "`key` is a tuple"),
        ("key=('agent', 'agent')", "twice"),
        ("key=('calls',)", "never None"),
        ("kinds=[InferenceMetered]", "`kinds` is a tuple"),
        ("kinds=(int,)", "int is not a kind of event"),
        ("row=dict", "no attrs class"),
        ("version='1'", "version '1' is not 1 or more"),
        ("version=True", "version True is not 1 or more"),
        ("newest='newest_state'", "are for views of carstore"),
    ],
)
def test_parts_that_do_not_fit_are_told(file: Path, parts: str, words: str) -> None:
    assert words in refused(file, f"{HEAD}A = view('a', {parts})\n").message


def test_a_file_without_views_is_refused(file: Path) -> None:
    assert "no views in it" in refused(file, "from projections import COSTS\n").message
    assert "no views in it" in refused(file, "").message


@pytest.mark.parametrize("name", ["no.py", ""])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound, match="file of views"):
        load_views(str(tmp_path / name))


def test_the_example_can_be_loaded() -> None:
    [view] = load_views(str(ROOT / "examples" / "view_tools.py"))
    assert view.table == "view_tools_v1"
