"""Where the demonstration writes: only where it may."""

import os
from pathlib import Path

import pytest

from engine.cli.errors import BadUsage
from engine.demo.place import taken


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with taken(tmp_path / "a" / "b") as place:
        assert place.folder.is_dir()


def test_what_a_former_demonstration_left_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with taken(folder) as place:
        for file in (place.database, place.plan, place.calls, place.report, folder / "mine"):
            file.write_text("x")
    with taken(folder):
        assert sorted(path.name for path in folder.iterdir()) == [".carstore-demo", "mine"]


def test_a_folder_that_holds_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "demo.db").write_text("mine")
    with pytest.raises(BadUsage, match="no demo made it"), taken(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["demo.db"]


def test_two_demonstrations_do_not_share_a_folder(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with taken(kept), pytest.raises(BadUsage, match="in use"), taken(kept):
        pass


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadUsage), taken(folder):
            pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(BadUsage, match="cannot be used"), taken(tmp_path / "kept"):
        pass
