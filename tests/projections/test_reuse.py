"""Results that may be taken over."""

from carstore.events import ActionRolledBack
from projections import REUSE, fold
from projections.reuse import Remembered
from tests.projections.plausible import at, failed, record, succeeded

FORGET = ActionRolledBack(action_id="a1", reuse_key="x")


def test_a_success_under_a_key_is_remembered() -> None:
    assert fold(REUSE, record(succeeded(output={"n": 1}, reuse_key="x"))) == {
        ("x", "r1", "a1"): Remembered(
            reuse_key="x", position=1, run_id="r1", action_id="a1", at=at(1), output='{"n":1}'
        )
    }


def test_what_asked_for_no_reuse_is_not() -> None:
    assert fold(REUSE, record(succeeded(), failed())) == {}


def test_what_belongs_to_no_run_is_not() -> None:
    assert fold(REUSE, record(succeeded(reuse_key="x"), run=None)) == {}


def test_each_action_of_a_run_has_a_row_and_so_the_newest_can_be_told() -> None:
    first, second = ("r1", succeeded(reuse_key="x")), ("r2", succeeded(reuse_key="x"))
    rows = fold(REUSE, record(first, second))
    assert [(row.run_id, row.position, row.at) for row in rows.values()] == [
        ("r1", 1, at(1)),
        ("r2", 2, at(2)),
    ]
    assert fold(REUSE, record(first, second, ("r2", FORGET))) == fold(REUSE, record(first))


def test_a_rollback_forgets_what_its_own_action_left() -> None:
    remembered = ("r1", succeeded(reuse_key="x"))
    assert fold(REUSE, record(remembered, ("r1", FORGET))) == {}
    assert len(fold(REUSE, record(remembered, ("r2", FORGET)))) == 1
    other = ActionRolledBack(action_id="a2", reuse_key="x")
    assert len(fold(REUSE, record(remembered, ("r1", other)))) == 1
    without = ActionRolledBack(action_id="a1")
    assert len(fold(REUSE, record(remembered, ("r1", without)))) == 1


def test_a_forgotten_result_can_be_remembered_again() -> None:
    rows = fold(REUSE, record(succeeded(reuse_key="x"), FORGET, succeeded(reuse_key="x")))
    assert rows["x", "r1", "a1"].position == 3
