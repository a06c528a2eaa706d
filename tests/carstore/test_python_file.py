"""Importing a file that somebody names."""

import sys
from pathlib import Path

import pytest

from carstore.python_file import import_failure, import_file


@pytest.fixture(autouse=True)
def modules_and_paths_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())


def test_a_file_becomes_a_module_that_finds_its_siblings_later_too(tmp_path: Path) -> None:
    (tmp_path / "one_of_mine.py").write_text(
        "from two_of_mine import X\ndef f():\n    import three_of_mine"
    )
    (tmp_path / "two_of_mine.py").write_text("X = 2")
    (tmp_path / "three_of_mine.py").write_text("")
    module = import_file(tmp_path / "one_of_mine.py")
    assert (module.__name__, module.X) == ("one_of_mine", 2)
    assert sys.modules["one_of_mine"] is module
    assert sys.path[0] != str(tmp_path)
    module.f()


@pytest.mark.parametrize("name", ["json.py", "carstore.py", "a b.py"])
def test_a_name_that_is_taken_or_none_is_not_taken_over(tmp_path: Path, name: str) -> None:
    before = {name: sys.modules.get(name) for name in ("json", "carstore")}
    (tmp_path / name).write_text("X = 1")
    module = import_file(tmp_path / name)
    assert module.X == 1
    assert module.__name__ not in ("json", "carstore")
    assert {name: sys.modules.get(name) for name in before} == before


def test_a_file_that_fails_leaves_no_module(tmp_path: Path) -> None:
    path = tmp_path / "fails_of_mine.py"
    path.write_text("X = 1\nimport beside_of_mine\n")
    (tmp_path / "beside_of_mine.py").write_text("\n\n\n1 / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        import_file(path)
    assert "fails_of_mine" not in sys.modules
    told = import_failure(caught.value, __file__)
    assert told.startswith("importing it failed at line 2: ZeroDivisionError")
    assert told.endswith("beside_of_mine.py, line 4)")


def test_a_file_that_is_no_python_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "none_of_mine.py"
    path.write_text("x = 1\n\ny = = 2\n")
    with pytest.raises(SyntaxError) as caught:
        import_file(path)
    assert import_failure(caught.value, __file__).startswith("importing it failed at line 3: ")
