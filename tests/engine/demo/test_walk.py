"""What a folder holds: bounded, in order, and whatever people put into folders."""

import os
from pathlib import Path

import pytest

from engine.demo import walk
from engine.demo.walk import list_folder


def _paths(folder: Path) -> list[str]:
    return [file.path for file in list_folder(folder).files]


def test_an_empty_folder_is_an_empty_listing(tmp_path: Path) -> None:
    listing = list_folder(tmp_path)
    assert (listing.files, listing.left_out_count, listing.beyond) == ([], 0, 0)
    assert not listing.is_cut


def test_files_come_by_name_those_of_a_folder_before_its_subfolders(tmp_path: Path) -> None:
    for name in ("b/z", "a/y", "a/c/x", "w"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    assert _paths(tmp_path) == ["w", "a/y", "a/c/x", "b/z"]


@pytest.mark.parametrize("name", [".git", ".venv", "node_modules", "__pycache__", "carstore-demo"])
def test_folders_that_nobody_wrote_are_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("x")
    assert _paths(tmp_path) == []


def test_the_folder_of_the_demonstration_itself_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "demo.db").write_text("x")
    assert list_folder(tmp_path, without=tmp_path / "mine").files == []


@pytest.mark.parametrize("name", ["with spaces", "ünï cødé 🎈", "new\nline", "$a.output", "`|<b>"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert _paths(tmp_path) == [name]


def test_a_name_that_is_not_unicode_is_left_out(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/bad\xff")).write_text("x")
    except OSError:
        pytest.skip("this file system refuses such names")
    [left] = list_folder(tmp_path).left_out
    assert left.reason == "its name is not Unicode"
    assert left.path.encode().decode() == left.path


def test_links_are_not_followed_and_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    listing = list_folder(tmp_path)
    assert listing.files == []
    assert [(one.path, one.reason) for one in listing.left_out] == [("pipe", "no regular file")]


def test_what_is_huge_is_left_out(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(walk.MAX_FILE_BYTES + 1)
    listing = list_folder(tmp_path)
    assert listing.files == []
    assert "bytes" in listing.left_out[0].reason


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    for number in range(10):
        with open(tmp_path / str(number), "wb") as file:
            file.truncate(walk.MAX_FILE_BYTES)
    listing = list_folder(tmp_path)
    assert listing.total_bytes <= walk.MAX_TOTAL_BYTES
    assert len(listing.files) + listing.left_out_count == 10
    assert listing.left_out_count > 0


def test_files_beyond_the_limit_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MAX_FILES", 3)
    for number in range(5):
        (tmp_path / str(number)).write_text("x")
    listing = list_folder(tmp_path)
    assert [file.path for file in listing.files] == ["0", "1", "2"]
    assert (listing.seen, listing.beyond, listing.is_cut) == (5, 2, False)


def test_counting_ends_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_ENTRIES", 3)
    for number in range(5):
        (tmp_path / str(number)).write_text("x")
    listing = list_folder(tmp_path)
    assert (listing.seen, listing.is_cut) == (3, True)


def test_left_out_files_are_named_up_to_a_limit_and_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MAX_LEFT_OUT", 2)
    for number in range(4):
        os.mkfifo(tmp_path / str(number))
    listing = list_folder(tmp_path)
    assert (len(listing.left_out), listing.left_out_count) == (2, 4)


def test_a_folder_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (tmp_path / "locked").mkdir(mode=0)
    (tmp_path / "file").write_text("x")
    listing = list_folder(tmp_path)
    assert [file.path for file in listing.files] == ["file"]
    assert "Permission denied" in listing.left_out[0].reason


def test_the_folder_itself_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_folder(tmp_path / "missing")
