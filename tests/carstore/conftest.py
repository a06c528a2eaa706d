"""Fixtures of the tests of the store."""

from pathlib import Path

import pytest

from carstore.sqlite import database
from tests.carstore.faults import Failing
from tests.carstore.helpers import new_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds a new store."""
    return new_file(tmp_path / "log.db")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    monkeypatch.setattr(database, "JobConnection", Failing)
    monkeypatch.setattr(Failing, "fault", None)
    monkeypatch.setattr(Failing, "at", "COMMIT")
    return Failing
