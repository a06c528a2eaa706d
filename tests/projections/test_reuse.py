"""Results that may be taken over."""

from carstore.events import ActionRolledBack
from projections import REUSE, fold
from projections.reuse import Remembered
from tests.projections.plausible import failed, record, succeeded

FORGET = ActionRolledBack(action_id="a1", reuse_key="x")


def test_a_success_under_a_key_is_remembered() -> None:
    assert fold(REUSE, record(succeeded(output={"n": 1}, reuse_key="x"))) == {
        ("x",): Remembered(reuse_key="x", position=1, run_id="r1", action_id="a1", output='{"n":1}')
    }


def test_what_asked_for_no_reuse_is_not() -> None:
    assert fold(REUSE, record(succeeded(), failed())) == {}


def test_what_belongs_to_no_run_is_not() -> None:
    assert fold(REUSE, record(succeeded(reuse_key="x"), run=None)) == {}


def test_the_newest_success_counts() -> None:
    rows = fold(REUSE, record(("r1", succeeded(reuse_key="x")), ("r2", succeeded(reuse_key="x"))))
    assert (rows[("x",)].run_id, rows[("x",)].position) == ("r2", 2)


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
    assert rows[("x",)].position == 3
