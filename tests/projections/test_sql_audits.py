"""Each query for audits of docs/sql.md, run by a program that has never heard of carstore."""

from pathlib import Path
from typing import Any

import pytest

from tests.carstore.helpers import in_loop
from tests.projections.audits import AUDITS, COLUMNS, hashes, history
from tests.projections.plausible import sql
from tests.projections.sql_page import QUERIES


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the history."""
    path = tmp_path_factory.mktemp("audited") / "log.db"
    in_loop(history)(path)
    return path


@pytest.mark.parametrize(("title", "rows"), AUDITS, ids=[title for title, _ in AUDITS])
@in_loop
async def test_a_query_for_audits_says_what_happened(
    audited: Path, title: str, rows: list[tuple[Any, ...]]
) -> None:
    found = sql(audited, QUERIES[title])
    columns = COLUMNS.get(title, range(len(rows[0])))
    told = [tuple([row[column] for column in columns]) for row in found]
    names = {
        name: value
        for number, blob in enumerate(await hashes(audited))
        for name, value in ((f"{{hash {number}}}", blob), (f"{{blob {number}}}", blob))
    }

    def same(value: Any, expected: Any) -> bool:
        if str(expected).startswith("{blob"):
            return names[expected] in value and value.startswith('{"$blob":')
        return bool(value == names.get(expected, expected))

    assert len(told) == len(rows), told
    for row, expected in zip(told, rows, strict=True):
        assert all(map(same, row, expected)), (row, expected)
