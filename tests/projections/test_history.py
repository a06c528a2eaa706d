"""Who set a key, when and why."""

from pathlib import Path

from carstore.events import ActionRolledBack, StateRollback
from carstore.names import Scope, StateKey
from projections import changes_between, why
from projections.history import Change
from tests.carstore.helpers import in_loop, open_store
from tests.projections.plausible import (
    append,
    changed,
    executing,
    failed,
    metered,
    received,
    succeeded,
)

MAIN = Scope("main")
KEY = StateKey("k")


def short(changes: list[Change]) -> list[tuple[int, object, str | None, str | None]]:
    return [(c.position, c.value, c.action_id, c.agent) for c in changes]


@in_loop
async def test_a_change_belongs_to_the_action_that_succeeded_just_before(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1", "a2", source="critic"), executing("a1"), executing("a2"))
        await append(store, succeeded("a1"), changed("k", 1), changed("m", 1))
        await append(store, metered(), failed("a2"), run="r1")
        await append(store, succeeded("a2"), changed("k", [2]))
        assert short(await why(store, MAIN, KEY)) == [
            (11, [2], "a2", "critic"),
            (6, 1, "a1", "critic"),
        ]


@in_loop
async def test_a_change_of_a_rollback_belongs_to_no_action(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), succeeded("a1"), changed("k", 1))
        await append(
            store,
            ActionRolledBack(action_id="a1"),
            StateRollback(keys=("k",), conflicts=[]),
            changed("k", deleted=True),
        )
        undone, done = await why(store, MAIN, KEY)
        assert (undone.deleted, undone.value, undone.action_id, undone.agent) == (
            True,
            None,
            None,
            "planner",
        )
        assert (done.deleted, done.value, done.action_id) == (False, 1, "a1")


@in_loop
async def test_runs_that_interleave_keep_their_changes(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1", source="one"), run="r1")
        await append(store, received("b1", source="two"), run="r2")
        await append(store, succeeded("a1"), run="r1")
        await append(store, succeeded("b1"), changed("k", 2), run="r2")
        await append(store, changed("k", 1), run="r1")
        assert short(await why(store, MAIN, KEY)) == [(7, 1, "a1", "one"), (6, 2, "b1", "two")]
        assert [c.run_id for c in await why(store, MAIN, KEY)] == ["r1", "r2"]


@in_loop
async def test_a_change_outside_of_runs_has_nobody_to_name(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, succeeded("a1"), changed("k", None), run=None)
        [change] = await why(store, MAIN, KEY)
        assert (change.run_id, change.action_id, change.agent) == (None, None, None)
        assert (change.value, change.deleted) == (None, False)
        assert change.recorded_at > 0


@in_loop
async def test_an_unknown_key_has_no_history_and_a_long_one_can_be_cut(path: Path) -> None:
    async with open_store(path) as store:
        assert await why(store, MAIN, KEY) == []
        await append(store, *[changed("k", number) for number in range(5)])
        assert [c.value for c in await why(store, MAIN, KEY, limit=2)] == [4, 3]
        assert await why(store, Scope("other"), KEY) == []


@in_loop
async def test_changes_between_two_positions_come_in_order(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), succeeded("a1"), changed("k", 1), changed("m", 2))
        await append(store, changed("k", deleted=True))
        found = await changes_between(store, MAIN, 4, 6)
        assert [(c.position, c.key, c.action_id) for c in found] == [(5, "m", "a1"), (6, "k", "a1")]
        assert [c.position for c in await changes_between(store, MAIN, 0, 99)] == [4, 5, 6]
        assert await changes_between(store, MAIN, 6, 4) == []
        assert await changes_between(store, Scope("other"), 0, 99) == []
