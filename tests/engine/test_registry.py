"""Registering rules, removing them, and what binds a run that is resumed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import Entry, Store
from carstore import events as e
from carstore.errors import NotFound
from carstore.names import RULES_STREAM
from engine import registry
from engine.policies import InvalidPolicy, Policy, PolicyChanged, policy
from engine.policy_file import policies_of
from engine.registry import bound, register, remove
from engine.rules.capabilities import CapabilitySet, as_policy
from projections import RULES, rows
from tests.carstore.helpers import in_loop, new_file
from tests.carstore.helpers import open_store as opened


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return new_file(tmp_path / "a.db")


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_remembered", {})


def code(name: str, version: int = 1) -> Policy:
    return policy(name=name, version=version)(lambda _: None)


def deny(tool: str) -> Policy:
    return policies_of({"deny_tool": tool})


def limit(most: int) -> Policy:
    return policies_of({"rate_limit_tool": {"tool": "t", "max_calls": most, "interval_secs": 1}})


def named(*policies: Policy) -> dict[str, str]:
    return {one.name: one.digest for one in policies}


async def recorded(store: Store) -> list[tuple[str, str, str]]:
    found = []
    async for one in store.log.read(stream=RULES_STREAM):
        event: Any = one.event
        found.append((event.kind.removeprefix("policy_"), event.policy, event.digest))
    return found


async def in_force(store: Store) -> dict[str, str]:
    held = (await rows(store, RULES)).values()
    return {one.policy: one.digest for one in held if one.removed_at is None}


@in_loop
async def test_registering_again_changes_nothing(db: Path) -> None:
    policies = [code("a"), deny("t"), as_policy(CapabilitySet(max_actions=3))]
    async with opened(db) as store:
        await register(store, policies, by="test")
        head = await store.log.head()
        await register(store, policies, by="another")
        await register(store, policies[1:], by="another")
        await register(store, [], by="another")
        assert await store.log.head() == head
        assert await in_force(store) == named(*policies)
        events = [one.event async for one in store.log.read(stream=RULES_STREAM)]
        assert events == [
            e.PolicyRegistered(policy=p.name, digest=p.digest, rule=p.rule, by="test")
            for p in policies
        ]


@in_loop
async def test_a_rule_that_says_something_else_takes_the_place_of_the_old_one(db: Path) -> None:
    async with opened(db) as store:
        await register(store, [limit(1), code("a")], by="test")
        await register(store, [limit(2), code("a", version=2)], by="test")
        assert await in_force(store) == named(limit(2), code("a", version=2))
        assert [kind for kind, *_ in await recorded(store)] == [
            *["registered"] * 2,
            *["removed", "registered"] * 2,
        ]
        times = [one.recorded_at async for one in store.log.read(stream=RULES_STREAM)]
        assert len(set(times[2:])) == 1


@in_loop
async def test_two_policies_of_one_name_are_refused_and_nothing_is_recorded(db: Path) -> None:
    async with opened(db) as store:
        with pytest.raises(InvalidPolicy):
            await register(store, [deny("t"), limit(1), limit(2)], by="test")
        assert await recorded(store) == []
        await register(store, [deny("t"), deny("t")], by="test")
        assert len(await recorded(store)) == 1


@in_loop
async def test_what_is_removed_is_in_force_no_more_and_can_come_back(db: Path) -> None:
    async with opened(db) as store:
        await register(store, [deny("t"), deny("u")], by="test")
        await remove(store, "deny_tool:t", by="ann")
        assert await in_force(store) == named(deny("u"))
        for name in ("deny_tool:t", "deny_tool:never"):
            with pytest.raises(NotFound, match="carstore rules"):
                await remove(store, name, by="ann")
        await register(store, [deny("t")], by="test")
        assert await in_force(store) == named(deny("t"), deny("u"))


@in_loop
async def test_several_that_register_at_once_do_it_once(db: Path) -> None:
    async with opened(db) as one, opened(db) as other:
        mine, theirs = [deny("t"), deny("u"), code("a")], [deny("u"), code("a"), deny("v")]
        jobs = [register(one, mine, "one"), register(other, theirs, "other")]
        jobs += [register(other, mine, "other"), register(one, theirs, "one")]
        await asyncio.gather(*jobs)
        found = await recorded(one)
        assert sorted(name for _, name, _ in found) == [
            "a",
            "deny_tool:t",
            "deny_tool:u",
            "deny_tool:v",
        ]


@in_loop
async def test_one_that_comes_too_late_looks_again(
    db: Path,
) -> None:
    async with opened(db) as store:
        append = store.log.append
        overtaken = []

        async def late(*entries: Entry, **options: Any) -> Any:
            if not overtaken:
                overtaken.append(True)
                event = e.PolicyRegistered(
                    policy="deny_tool:t", digest=deny("t").digest, rule=deny("t").rule, by="other"
                )
                await append(Entry(RULES_STREAM, event))
            return await append(*entries, **options)

        store.log.append = late  # type: ignore[method-assign]
        await register(store, [deny("t"), deny("u")], by="test")
        assert overtaken
        assert [name for _, name, _ in await recorded(store)] == ["deny_tool:t", "deny_tool:u"]


rules_given = st.lists(
    st.one_of(
        st.integers(1, 3).map(limit),
        st.sampled_from(["t", "u"]).map(deny),
        st.integers(1, 2).map(lambda version: code("a", version)),
    ),
    unique_by=lambda one: one.name,
)


def test_what_is_in_force_is_what_a_dictionary_would_say(tmp_path: Path) -> None:
    @in_loop
    async def run(steps: list[Any]) -> None:
        expected: dict[str, str] = {}
        async with opened(new_file(tmp_path / "m.db")) as store:
            for step in steps:
                if isinstance(step, str):
                    if step in expected:
                        await remove(store, step, by="test")
                        del expected[step]
                    else:
                        with pytest.raises(NotFound):
                            await remove(store, step, by="test")
                else:
                    await register(store, step, by="test")
                    expected |= named(*step)
                assert await in_force(store) == expected
                assert (await registry._in_force(store))[1] == expected

    names = st.sampled_from(["a", "deny_tool:t", "rate_limit_tool:t[1s]"])

    @settings(max_examples=25)
    @given(st.lists(rules_given | names, max_size=6))
    def check(steps: list[Any]) -> None:
        run(steps)

    check()


@in_loop
async def test_a_run_is_bound_to_rules_of_the_log_and_to_code_that_is_given(db: Path) -> None:
    first, second = code("a"), code("b")
    async with opened(db) as store:
        await register(store, [limit(1), first, deny("t"), second], by="test")
        assert await bound(store, {}, [first]) == ()
        assert await bound(store, named(deny("t"), limit(1)), []) == (limit(1), deny("t"))
        found = await bound(store, named(second, deny("t"), first), [code("x"), second, first])
        assert [one.name for one in found] == ["a", "deny_tool:t", "b"]
        assert found[0] is first
        assert found[2] is second


@in_loop
async def test_what_was_removed_or_changed_since_binds_as_it_was(db: Path) -> None:
    async with opened(db) as store:
        await register(store, [limit(1), deny("t")], by="test")
        await register(store, [limit(2)], by="test")
        await remove(store, "deny_tool:t", by="test")
        assert await bound(store, named(limit(1), deny("t")), [limit(2)]) == (limit(1), deny("t"))


@in_loop
async def test_the_order_is_that_of_the_first_registration(db: Path) -> None:
    async with opened(db) as store:
        await register(store, [deny("t"), deny("u")], by="test")
        await remove(store, "deny_tool:t", by="test")
        await register(store, [deny("t")], by="test")
        assert await bound(store, named(deny("u"), deny("t")), []) == (deny("t"), deny("u"))


@in_loop
async def test_code_that_is_missing_or_another_stops_the_run(db: Path) -> None:
    async with opened(db) as store:
        await register(store, [code("a"), code("b"), code("c"), deny("t")], by="test")
        wanted = named(code("a"), code("b"), code("c"), deny("t"))
        with pytest.raises(PolicyChanged) as caught:
            await bound(store, wanted, [code("b"), code("c", version=2)])
        assert (caught.value.missing, caught.value.changed) == (("a",), ("c",))
        assert "not given: a" in caught.value.message
        assert "than when it began: c" in caught.value.message
        assert (caught.value.code, caught.value.where) == ("policies_changed", "policies")


@in_loop
async def test_a_rule_that_the_log_does_not_know_stops_the_run(db: Path) -> None:
    async with opened(db) as store:
        await register(store, [deny("t")], by="test")
        for wanted in ({"deny_tool:t": "0" * 64}, named(deny("u"))):
            with pytest.raises(PolicyChanged):
                await bound(store, wanted, [])


@in_loop
async def test_a_rule_that_cannot_be_made_again_stops_the_run(db: Path) -> None:
    future = e.PolicyRegistered(policy="new:t", digest="1" * 64, rule={"new": "t"}, by="x")
    moved = e.PolicyRegistered(policy="old:t", digest="2" * 64, rule={"deny_tool": "t"}, by="x")
    async with opened(db) as store:
        await store.log.append(Entry(RULES_STREAM, future), Entry(RULES_STREAM, moved))
        for event in (future, moved):
            with pytest.raises(InvalidPolicy) as caught:
                await bound(store, {event.policy: event.digest}, [])
            assert caught.value.source == event.policy


@in_loop
async def test_a_second_resume_reads_no_rules(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(db) as store:
        await register(store, [deny("t"), code("a")], by="test")
        wanted = named(deny("t"), code("a"))
        first = await bound(store, wanted, [code("a")])

        def refuse(**_: Any) -> None:
            raise AssertionError("read again")

        monkeypatch.setattr(type(store.log), "read", lambda _, **options: refuse(**options))
        assert await bound(store, wanted, [code("a")]) == first
        with pytest.raises(PolicyChanged):
            await bound(store, wanted, [])


@in_loop
async def test_what_is_remembered_has_a_limit(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_REMEMBERED", 3)
    many = [deny(f"t{n}") for n in range(7)]
    async with opened(db) as store:
        await register(store, many, by="test")
        for _ in range(2):
            assert await bound(store, named(*many), []) == tuple(many)
        assert len(registry._remembered) == 3


@in_loop
async def test_logs_do_not_share_what_is_remembered(tmp_path: Path) -> None:
    async with opened(tmp_path / "one.db") as one, opened(tmp_path / "other.db") as other:
        await register(one, [deny("t")], by="test")
        assert await bound(one, named(deny("t")), []) == (deny("t"),)
        with pytest.raises(PolicyChanged):
            await bound(other, named(deny("t")), [])
