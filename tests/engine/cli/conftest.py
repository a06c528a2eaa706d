"""Fixtures of the tests of the command line."""

import shutil
from pathlib import Path

import pytest

from tests.engine.cli.harness import GOOD, Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A working directory with nothing in it but the tools."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARSTORE_DEBUG", raising=False)
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def file_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which the run `first` has succeeded; to be copied."""
    made = Folder(tmp_path_factory.mktemp("ran"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.path)
        done = made.run(GOOD, "--run-id", "first")
    assert done.code == 0, done
    return made / "a.db"


@pytest.fixture
def ran(folder: Folder, file_of_a_run: Path) -> Folder:
    """The working directory, with `a.db`, in which the run `first` has succeeded."""
    shutil.copy(file_of_a_run, folder / "a.db")
    return folder
