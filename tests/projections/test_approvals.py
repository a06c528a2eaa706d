"""Requests for consent, and who has answered them."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.events import (
    ActionDeduplicated,
    ActionRejected,
    ActionSkipped,
    ActionValidated,
    ApprovalAnswered,
    ApprovalRequested,
    Event,
)
from carstore.log import Recorded
from projections import APPROVALS, fold
from projections.approvals import Approval
from tests.projections.plausible import at, executing, failed, record, succeeded

REASONS = [{"policy": "require_approval:mail", "reason": "goes outside"}]
REUSED = ActionDeduplicated(
    action_id="a1",
    output=None,
    reuse_key="x",
    original_position=1,
    original_run_id="r0",
    original_action_id="a1",
)


def asked(
    action: str = "a1", *, binding: str = "b", approvers: int = 1, expires_at: int | None = None
) -> ApprovalRequested:
    return ApprovalRequested(
        action_id=action,
        tool="mail",
        binding=binding,
        reasons=REASONS,
        approvers=approvers,
        expires_at=expires_at,
    )


def answered(
    by: str = "ann", *, approved: bool = True, action: str = "a1", binding: str = "b"
) -> ApprovalAnswered:
    return ApprovalAnswered(
        action_id=action, binding=binding, approved=approved, by=by, reason="why"
    )


def standing(events: Iterable[Event]) -> tuple[str, int, str]:
    """Of the one request that there is."""
    [request] = fold(APPROVALS, record(*events)).values()
    return request.status, request.given, request.given_by


def test_a_request_is_listed_with_all_that_whoever_answers_needs() -> None:
    assert fold(APPROVALS, record(asked(approvers=2, expires_at=at(99)))) == {
        ("r1", "a1"): Approval(
            run_id="r1",
            action_id="a1",
            tool="mail",
            binding="b",
            reasons='[{"policy":"require_approval:mail","reason":"goes outside"}]',
            approvers=2,
            given=0,
            given_by="[]",
            expires_at=at(99),
            requested_at=at(1),
            status="open",
        )
    }


def test_one_consent_decides_if_one_is_asked_for() -> None:
    assert standing([asked(), answered()]) == ("approved", 1, '["ann"]')


def test_only_different_people_count() -> None:
    twice = [asked(approvers=2), answered(), answered()]
    assert standing(twice) == ("open", 1, '["ann"]')
    assert standing([*twice, answered("bob")]) == ("approved", 2, '["ann","bob"]')


def test_one_refusal_decides_also_of_somebody_who_had_consented() -> None:
    assert standing([asked(approvers=2), answered(), answered(approved=False)]) == (
        "refused",
        1,
        '["ann"]',
    )


@pytest.mark.parametrize("first", [True, False])
def test_what_comes_after_the_decision_changes_nothing(*, first: bool) -> None:
    decided = [asked(), answered(approved=first)]
    assert standing([*decided, answered("bob", approved=not first)]) == standing(decided)


def test_an_answer_about_other_parameters_does_not_count() -> None:
    assert standing([asked(), answered(binding="other")]) == ("open", 0, "[]")


def test_an_answer_does_not_count_from_the_moment_at_which_the_request_expires() -> None:
    assert standing([asked(expires_at=at(2) + 1), answered()])[0] == "approved"
    assert standing([asked(expires_at=at(2)), answered()])[0] == "open"
    assert standing([asked(expires_at=at(2)), answered(approved=False)])[0] == "open"


def test_a_request_made_again_begins_anew() -> None:
    again = [asked(approvers=2), answered(), asked(binding="c", approvers=2)]
    assert standing(again) == ("open", 0, "[]")
    assert standing([*again, answered(binding="c")]) == ("open", 1, '["ann"]')


@pytest.mark.parametrize(
    "event",
    [
        ActionValidated(action_id="a1"),
        executing(),
        succeeded(),
        failed(),
        ActionRejected(action_id="a1", error="refused by ann"),
        ActionSkipped(action_id="a1", reason="no"),
        REUSED,
    ],
    ids=lambda event: event.kind,
)
def test_it_goes_when_the_action_is_called_or_settled(event: Event) -> None:
    assert fold(APPROVALS, record(asked(), answered(), event)) == {}


@pytest.mark.parametrize("event", [answered(action="a2"), succeeded("a2"), ("r2", succeeded())])
def test_what_concerns_something_else_leaves_it(event: Event | tuple[str, Event]) -> None:
    assert list(fold(APPROVALS, record(asked(), event))) == [("r1", "a1")]


def test_an_answer_to_nothing_makes_no_row() -> None:
    assert fold(APPROVALS, record(answered())) == {}


_answers = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=10)


@given(st.integers(1, 4), _answers)
def test_it_stands_as_a_tally_of_the_answers_says(
    approvers: int, answers: list[tuple[str, bool, bool]]
) -> None:
    """The first refusal, or the consent of the last different person, whichever comes first."""
    events: list[Recorded] = record(
        asked(approvers=approvers),
        *[
            answered(by, approved=consents, binding="b" if about_this else "other")
            for by, consents, about_this in answers
        ],
    )
    names: list[str] = []
    status = "open"
    for by, consents, about_this in answers:
        if status == "open" and about_this:
            if consents and by not in names:
                names.append(by)
            status = "refused" if not consents else status
            status = "approved" if len(names) == approvers else status
    [request] = fold(APPROVALS, events).values()
    assert (request.status, request.given) == (status, len(names))
