"""Fixtures of the tests of the command line."""

from pathlib import Path

import pytest

from tests.engine.cli.harness import GOOD, Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """An empty working directory but for the tools."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARSTORE_DEBUG", raising=False)
    return Folder(tmp_path)


@pytest.fixture
def ran(folder: Folder) -> Folder:
    """The same with `a.db`, in which the run `first` has succeeded."""
    done = folder.run(GOOD, "--run-id", "first")
    assert done.code == 0, done.stderr
    return folder
