"""Answers to requests for consent: which are recorded, and which are refused and leave nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import Store
from carstore import events as e
from carstore.clock import ManualClock
from carstore.errors import InvalidEvent, NotFound
from carstore.names import RunId, inbox_stream
from engine import action_state
from engine.approvals import NoApproval, approve, reject
from engine.inbox import MAX_REASON_CHARS
from projections import APPROVALS, row
from projections.approvals import Approval
from tests.carstore.helpers import in_loop, new_file, open_store
from tests.projections.plausible import append, completed, executing, received

R = RunId("r1")
HOUR_US = 3_600_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_file(tmp_path / "a.db")


def asked(*, binding: str = "b" * 64, approvers: int = 1, expires_at: Any = None) -> e.Event:
    return e.ApprovalRequested(
        action_id="a1",
        tool="fetch",
        binding=binding,
        reasons=[{"policy": "require_approval:fetch", "reason": "costs"}],
        approvers=approvers,
        expires_at=expires_at,
    )


async def answers(store: Store) -> list[e.ApprovalAnswered]:
    """What stands in the inbox."""
    found = []
    async for recorded in store.log.read(stream=inbox_stream(R)):
        assert recorded.run_id == R
        assert isinstance(recorded.event, e.ApprovalAnswered)
        found.append(recorded.event)
    return found


async def standing(store: Store) -> str:
    request = await row(store, APPROVALS, (R, "a1"))
    assert isinstance(request, Approval)
    return request.status


@in_loop
async def test_a_consent_is_recorded_with_who_and_why_and_what_it_is_about(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(binding="c" * 64))
        assert await approve(store, R, "a1", by="ann", reason="checked") == 0
        assert await answers(store) == [
            e.ApprovalAnswered(
                action_id="a1", binding="c" * 64, approved=True, by="ann", reason="checked"
            )
        ]
        assert await standing(store) == "approved"


@in_loop
async def test_a_refusal_is_recorded_likewise(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(approvers=2))
        await reject(store, R, "a1", by="ann", reason="too dear", binding="b" * 64)
        [answer] = await answers(store)
        assert (answer.approved, answer.by, answer.reason) == (False, "ann", "too dear")
        assert await standing(store) == "refused"


@in_loop
async def test_several_different_people_have_to_consent_where_several_are_asked(
    path: Path,
) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(approvers=3))
        assert await approve(store, R, "a1", by="ann") == 2
        with pytest.raises(NoApproval, match="ann has consented already, and somebody else"):
            await approve(store, R, "a1", by="ann")
        assert await approve(store, R, "a1", by="bob") == 1
        assert await standing(store) == "open"
        assert await approve(store, R, "a1", by="cy") == 0
        assert [one.by for one in await answers(store)] == ["ann", "bob", "cy"]


@pytest.mark.parametrize("again", ["Ann", "ANN", "\uff41nn"])
@in_loop
async def test_one_person_under_two_spellings_is_no_second_one(path: Path, again: str) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(approvers=2))
        assert await approve(store, R, "a1", by="ann") == 1
        with pytest.raises(NoApproval, match="counts as ann, who has consented already"):
            await approve(store, R, "a1", by=again)
        assert [one.by for one in await answers(store)] == ["ann"]


def test_what_stands_in_an_inbox_is_counted_by_person() -> None:
    request: Any = asked(approvers=2)
    state = action_state.Approval(request)
    for name in ("ann", "ann\u200b", "Ann", "bob"):
        assert not state.granted
        state.answers.append(
            e.ApprovalAnswered(action_id="a1", binding="b" * 64, approved=True, by=name, reason="")
        )
    assert state.granted
    late = e.ApprovalAnswered(action_id="a1", binding="b" * 64, approved=False, by="z", reason="")
    state.answers.insert(3, late)
    assert state.refusal is late, "ann alone had not decided"


@in_loop
async def test_whoever_has_consented_may_still_refuse_while_it_is_open(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(approvers=2))
        await approve(store, R, "a1", by="ann")
        await reject(store, R, "a1", by="ann")
        assert await standing(store) == "refused"


@pytest.mark.parametrize(
    ("events", "because"),
    [
        ([], "nobody is asked about it"),
        ([executing()], "it is executing, and nobody is asked any more"),
        ([asked(), executing()], "it is executing, and nobody is asked any more"),
        ([asked(), completed("cancelled")], "the run is over"),
    ],
)
@in_loop
async def test_an_answer_to_what_is_not_asked_is_refused(
    path: Path, events: list[e.Event], because: str
) -> None:
    async with open_store(path) as store:
        await append(store, received("a1", "a2"), *events)
        for answer in (approve, reject):
            with pytest.raises(NoApproval, match=because) as refused:
                await answer(store, R, "a1", by="ann")
            assert "carstore approvals" in refused.value.message
            assert refused.value.where == "a1"
        assert await answers(store) == []


@in_loop
async def test_runs_and_actions_that_are_not_there_are_told(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked())
        with pytest.raises(NotFound, match="carstore runs"):
            await approve(store, RunId("nobody"), "a1", by="ann")
        with pytest.raises(NotFound, match="carstore show DB r1"):
            await approve(store, R, "a9", by="ann")
        assert await answers(store) == []


@pytest.mark.parametrize("first", [approve, reject])
@in_loop
async def test_what_was_decided_is_not_decided_again(path: Path, first: Any) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked())
        await first(store, R, "a1", by="ann")
        said = "it was approved already" if first is approve else "it was refused already"
        for answer in (approve, reject):
            with pytest.raises(NoApproval, match=said):
                await answer(store, R, "a1", by="bob")
        assert len(await answers(store)) == 1


@in_loop
async def test_a_request_that_expires_is_open_up_to_that_moment_and_not_at_it(path: Path) -> None:
    clock = ManualClock()
    async with open_store(path, clock=clock) as store:
        expires_at = clock.now() + HOUR_US
        await append(store, received("a1"), asked(approvers=2, expires_at=expires_at))
        clock.advance(HOUR_US - 1)
        await approve(store, R, "a1", by="ann")
        clock.advance(1)
        for answer in (approve, reject):
            with pytest.raises(NoApproval, match="expired"):
                await answer(store, R, "a1", by="bob")
        assert len(await answers(store)) == 1


@in_loop
async def test_an_answer_about_other_parameters_is_refused(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(binding="1" * 64))
        await append(store, asked(binding="2" * 64))
        for answer in (approve, reject):
            with pytest.raises(NoApproval, match=r"parameters are others: '2{12}' is .* '1{12}'"):
                await answer(store, R, "a1", by="ann", binding="1" * 64)
        assert await answers(store) == []
        await approve(store, R, "a1", by="ann", binding="2" * 64)
        assert await standing(store) == "approved"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("by", ""),
        ("by", " ann"),
        ("by", "ann "),
        ("by", "a\nb"),
        ("by", "ann\u200b"),
        ("by", "ann\u00a0lee"),
        ("by", "ann\u3164"),
        ("by", "u\u0308"),
        ("by", "x" * 513),
        ("by", "\ud800"),
        ("by", 7),
        ("reason", 7),
        ("reason", "x" * (MAX_REASON_CHARS + 1)),
        ("reason", "\ud800"),
    ],
)
@in_loop
async def test_wrong_input_names_its_field_and_leaves_nothing(
    path: Path, field: str, wrong: Any
) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked())
        before = await store.log.head()
        for answer in (approve, reject):
            with pytest.raises(InvalidEvent) as refused:
                await answer(store, R, "a1", **{"by": "ann", field: wrong})
            assert refused.value.where == f"$.{field}"
        assert await store.log.head() == before
        await approve(store, R, "a1", by="ann", reason="x" * MAX_REASON_CHARS)


async def at_once(path: Path, *who: tuple[Any, str]) -> list[object]:
    """Answers from as many stores, which look at the same time."""
    stores = [await open_store(path) for _ in who]
    try:
        calls = [
            answer(store, R, "a1", by=by) for store, (answer, by) in zip(stores, who, strict=True)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)
    finally:
        for store in stores:
            await store.close()


def refusals(outcomes: list[object]) -> int:
    assert all(
        not isinstance(one, BaseException) or isinstance(one, NoApproval) for one in outcomes
    )
    return sum(isinstance(one, NoApproval) for one in outcomes)


@pytest.mark.parametrize(
    ("who", "recorded", "ends"),
    [
        ([(approve, "ann")] * 4, 1, "open"),
        ([(approve, "ann"), (approve, "bob"), (approve, "cy"), (approve, "di")], 2, "approved"),
        ([(reject, "ann"), (reject, "bob"), (reject, "cy")], 1, "refused"),
    ],
)
@in_loop
async def test_of_many_who_answer_at_once_as_many_are_heard_as_count(
    path: Path, who: list[tuple[Any, str]], recorded: int, ends: str
) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), asked(approvers=2))
        outcomes = await at_once(path, *who)
        assert refusals(outcomes) == len(who) - recorded
        assert len(await answers(store)) == recorded
        assert await standing(store) == ends


def overtaken(store: Store, answer: Any) -> None:
    """Let `answer` come between the next look of `store` and its append."""
    append = store.log.append

    async def late(*entries: Any, **conditions: Any) -> Any:
        store.log.append = append  # type: ignore[method-assign]
        await answer()
        return await append(*entries, **conditions)

    store.log.append = late  # type: ignore[method-assign]


@pytest.mark.parametrize(("first", "second"), [(approve, reject), (reject, approve)])
@in_loop
async def test_whoever_is_overtaken_looks_again_and_is_told(
    path: Path, first: Any, second: Any
) -> None:
    async with open_store(path) as store, open_store(path) as other:
        await append(store, received("a1"), asked())
        overtaken(store, lambda: first(other, R, "a1", by="bob"))
        with pytest.raises(NoApproval, match="already"):
            await second(store, R, "a1", by="ann")
        assert [one.by for one in await answers(store)] == ["bob"]


@in_loop
async def test_whoever_is_overtaken_by_another_consent_of_several_adds_to_it(path: Path) -> None:
    async with open_store(path) as store, open_store(path) as other:
        await append(store, received("a1"), asked(approvers=2))
        overtaken(store, lambda: approve(other, R, "a1", by="bob"))
        assert await approve(store, R, "a1", by="ann") == 0
        assert [one.by for one in await answers(store)] == ["bob", "ann"]
