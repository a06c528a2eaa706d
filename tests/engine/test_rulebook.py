"""The rules of a runtime: each change takes hold at once, and the log tells what binds a run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import Store
from carstore.errors import NotFound
from carstore.names import RULES_STREAM
from engine import registry
from engine.policies import InvalidPolicy, Policy, policy
from engine.policy_file import policies_of
from engine.rulebook import Rulebook
from engine.rules.capabilities import CapabilitySet
from projections import RULES, rows
from tests.carstore.helpers import in_loop, new_file
from tests.carstore.helpers import open_store as opened


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return new_file(tmp_path / "a.db")


NO_DEPLOY = CapabilitySet(denied_tools=["deploy"])


def deny(tool: str) -> Policy:
    return policies_of({"deny_tool": tool})


async def in_force(store: Store) -> dict[str, str]:
    held = (await rows(store, RULES)).values()
    return {one.policy: one.digest for one in held if one.removed_at is None}


async def events(store: Store) -> list[tuple[str, str]]:
    found = []
    async for one in store.log.read(stream=RULES_STREAM):
        event: Any = one.event
        found.append((event.kind.removeprefix("policy_"), event.policy))
    return found


@in_loop
async def test_a_rule_that_no_run_has_begun_under_is_removed_without_a_trace(db: Path) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [deny("a")], None)
        book.add(deny("b"))
        await book.remove("deny_tool:b", "ann")
        await book.remove("deny_tool:a", "ann")
        assert (await book.current()).digests is None
        assert await events(store) == []
        with pytest.raises(NotFound):
            await book.remove("deny_tool:a", "ann")


@in_loop
async def test_a_rule_in_force_is_removed_with_an_event(db: Path) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [deny("a")], None)
        await book.current()
        await book.remove("deny_tool:a", "ann")
        assert await events(store) == [("registered", "deny_tool:a"), ("removed", "deny_tool:a")]
        assert (await book.current()).digests is None


@in_loop
async def test_one_that_is_added_while_its_namesake_is_removed_stays(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [policy(name="p")(lambda _: None)], None)
        await book.current()
        second = policy(name="p", version=2)(lambda _: "no")
        real = registry.remove

        async def slow(*args: Any) -> None:
            await real(*args)
            book.add(second)

        monkeypatch.setattr(registry, "remove", slow)
        await book.remove("p", "ann")
        assert (await book.current()).digests == {"p": second.digest} == await in_force(store)


@in_loop
async def test_permissions_that_are_lifted_are_out_of_force_as_the_next_run_begins(
    db: Path,
) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [deny("a")], NO_DEPLOY)
        await book.current()
        book.permit(None)
        bound = await book.current()
        assert bound.digests == await in_force(store)
        assert list(bound.digests or ()) == ["deny_tool:a"]
        assert (await events(store))[-1] == ("removed", "capabilities")
        head = await store.log.head()
        await book.current()
        assert await store.log.head() == head, "once is enough"


@in_loop
async def test_lifting_the_only_rule_is_an_event_too(db: Path) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [], NO_DEPLOY)
        await book.current()
        book.permit(None)
        assert (await book.current()).digests is None
        assert await in_force(store) == {}


@in_loop
async def test_permissions_that_are_lifted_and_given_again_stay_in_force(db: Path) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [], NO_DEPLOY)
        await book.current()
        book.permit(None)
        book.permit(NO_DEPLOY)
        await book.current()
        assert await events(store) == [("registered", "capabilities")]


@in_loop
async def test_the_permissions_of_somebody_else_are_not_lifted(db: Path) -> None:
    async with opened(db) as store:
        ours = Rulebook(store, [], NO_DEPLOY)
        await ours.current()
        theirs = Rulebook(store, [], CapabilitySet(max_actions=3))
        bound = await theirs.current()
        ours.permit(None)
        await ours.current()
        assert await in_force(store) == bound.digests


@in_loop
async def test_what_binds_a_run_is_what_was_put_down(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if rules come and go while that is done."""
    async with opened(db) as store:
        book = Rulebook(store, [deny("a")], NO_DEPLOY)
        real, entered, go_on = registry.register, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> None:
            await real(*args)
            entered.set()
            await go_on.wait()

        monkeypatch.setattr(registry, "register", slow)
        first = asyncio.create_task(book.current())
        await entered.wait()
        book.add(deny("b"))
        book.permit(None)
        go_on.set()
        bound = await first
        assert bound.digests == await in_force(store)
        assert sorted(bound.digests or ()) == ["capabilities", "deny_tool:a"]
        later = await book.current()
        assert later.digests == await in_force(store)
        assert sorted(later.digests or ()) == ["deny_tool:a", "deny_tool:b"]


@in_loop
async def test_what_could_not_be_put_down_is_put_down_with_the_next_run(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(db) as store:
        book = Rulebook(store, [], NO_DEPLOY)
        await book.current()
        book.permit(None)
        with monkeypatch.context() as broken:

            async def fails(*_: Any) -> None:
                raise OSError("disk")

            broken.setattr(registry, "register", fails)
            with pytest.raises(OSError, match="disk"):
                await book.current()
        await book.current()
        assert await in_force(store) == {}


@in_loop
async def test_no_code_takes_the_place_of_permissions(db: Path) -> None:
    async with opened(db) as store:
        forged = Policy(name="capabilities", digest="0" * 64, decide=lambda _: None)
        book = Rulebook(store, [], NO_DEPLOY)
        with pytest.raises(InvalidPolicy, match="permissions"):
            book.add(forged)
        with pytest.raises(InvalidPolicy, match="permissions"):
            Rulebook(store, [forged], None)
        with pytest.raises(InvalidPolicy, match="@policy"):
            book.add(lambda _: None)  # type: ignore[arg-type]
        assert (await book.current()).capabilities == NO_DEPLOY
