"""What holds of every view, a user's included: rebuilt rows are the stored ones, and rows as of a
position are a fold up to it, byte for byte."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from carstore import Entry
from projections import LAZY, VIEWS, View, catch_up, checksum, fold, load_views, rebuild, rows
from projections.view import Key
from tests.carstore.helpers import new_file, open_store
from tests.projections.plausible import all_of, chunks
from tests.projections.versions import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
USERS: tuple[View[Any, Any], ...] = (
    *load_views(str(ROOT / "examples" / "view_tools.py")),
    *VERSIONS,
)


def exactly(view: View[Any, Any], found: dict[Key, Any]) -> bytes:
    """All values with their types, in the order in which they came."""
    return json.dumps([(key, view.values_of(row)) for key, row in found.items()]).encode()


def in_order(view: View[Any, Any], found: dict[Key, Any]) -> bytes:
    return exactly(view, dict(sorted(found.items())))


@pytest.mark.parametrize("view", [*LAZY, *USERS], ids=lambda view: view.table)
def test_rebuilt_rows_are_the_stored_ones_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, view: View[Any, Any]
) -> None:
    path = tmp_path_factory.mktemp("rebuilt") / "log.db"

    async def run(entries: list[Entry]) -> None:
        async with open_store(path) as store:
            await store.log.append(*entries[:1])
            await catch_up(store, view)
            await store.log.append(*entries[1:], *entries)
            await catch_up(store, view)
            stored = await rows(store, view)
            done = await rebuild(store, view)
            assert done.before == "equal"
            assert done.checksum == checksum(view, stored)
            assert exactly(view, await rows(store, view)) == exactly(view, stored)
            assert exactly(view, stored) == in_order(view, fold(view, await all_of(store)))

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(chunks)
    def check(entries: list[Entry]) -> None:
        new_file(path)
        asyncio.run(run(entries))

    check()


@pytest.mark.parametrize("view", [*VIEWS, *USERS], ids=lambda view: view.table)
def test_rows_as_of_a_position_are_a_fold_up_to_it_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, view: View[Any, Any]
) -> None:
    path = tmp_path_factory.mktemp("as_of") / "log.db"

    async def run(entries: list[Entry]) -> None:
        async with open_store(path) as store:
            await store.log.append(*entries)
            log = await all_of(store)
            for stored in (False, True):  # from nothing, and from rows that are past most of them
                if stored:
                    await catch_up(store, view)
                for at in range(len(log) + 1):
                    found = await rows(store, view, at=at)
                    assert exactly(view, found) == in_order(view, fold(view, log[:at]))

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(chunks)
    def check(entries: list[Entry]) -> None:
        new_file(path)
        asyncio.run(run(entries))

    check()
