"""Actions that wait for a time or a signal."""

import pytest

from carstore.events import (
    ActionRejected,
    ActionRetrying,
    ActionSkipped,
    Event,
    SignalSent,
    SignalTaken,
    WaitStarted,
)
from projections import WAITS, fold
from projections.waits import Wait
from tests.projections.plausible import at, failed, record, succeeded


def started(
    action: str = "a1", *, due_at: int | None = None, signal: str | None = "go"
) -> WaitStarted:
    return WaitStarted(action_id=action, attempt=1, due_at=due_at, signal=signal)


def test_a_wait_is_listed_with_what_ends_it() -> None:
    assert fold(WAITS, record(started(due_at=at(9)))) == {
        ("r1", "a1"): Wait(run_id="r1", action_id="a1", due_at=at(9), signal="go", since=at(1))
    }


@pytest.mark.parametrize(
    "event",
    [
        succeeded(),
        failed(),
        ActionRejected(action_id="a1", error="no"),
        ActionSkipped(action_id="a1", reason="the run was cancelled"),
    ],
    ids=lambda event: event.kind,
)
def test_it_goes_when_the_action_is_settled(event: Event) -> None:
    assert fold(WAITS, record(started(), event)) == {}


@pytest.mark.parametrize(
    "event",
    [
        SignalSent(signal="go", value=1, by="ann"),
        SignalTaken(action_id="a1", signal="go", number=1),
        succeeded("a2"),
        ("r2", succeeded()),
    ],
)
def test_nothing_else_ends_it(event: Event | tuple[str, Event]) -> None:
    assert list(fold(WAITS, record(started(), event))) == [("r1", "a1")]


def test_another_attempt_waits_anew() -> None:
    retrying = ActionRetrying(action_id="a1", attempt=2, delay_ms=0)
    [wait] = fold(WAITS, record(started(), failed(), retrying, started(signal=None))).values()
    assert (wait.signal, wait.since) == (None, at(4))
