"""Fixtures of the tests of the store."""

from pathlib import Path

import pytest

from tests.carstore.helpers import new_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds a new store."""
    return new_file(tmp_path / "log.db")
