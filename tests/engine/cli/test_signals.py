"""`waits`, `signal` and `cancel`."""

import json
from typing import Any

import pytest

from carstore import events as e
from engine.results import rfc3339
from tests.engine.cli.harness import Folder, cli, shape
from tests.engine.cli.test_approvals import LATE, put
from tests.engine.cli.test_cli_docs import documented
from tests.projections.plausible import completed, received, succeeded


def started(
    action: str = "a", *, due_at: int | None = None, signal: str | None = None
) -> e.WaitStarted:
    return e.WaitStarted(action_id=action, attempt=1, due_at=due_at, signal=signal)


def inbox(kind: str) -> Any:
    """The one event of a kind, as `log` prints it."""
    found = cli("log", "a.db", "--kind", kind, "--json").json
    assert found["stream"] == "run/r/inbox"
    return found["data"]


def test_what_waits_is_listed_until_it_is_settled(folder: Folder) -> None:
    put(folder, received("a", "b"))
    assert cli("waits", "a.db").stdout == "Nothing waits.\n"
    put(folder, started(signal="paid", due_at=LATE), started("b", due_at=LATE))
    at = cli("head", "a.db", "--json").json["position"]
    done = cli("waits", "a.db")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["RUN", "ACTION", "SIGNAL", "UNTIL", "SINCE"]
    assert lines[1].split()[:4] == ["r", "a", "paid", rfc3339(LATE)]
    assert lines[2].split()[:3] == ["r", "b", rfc3339(LATE)]
    assert lines[3] == "Next: carstore signal a.db r paid JSON"
    then = cli("waits", "a.db", "--json").json
    assert shape(then) == documented("waits")
    assert [one["signal"] for one in then] == ["paid", None]
    put(folder, succeeded("a"))
    assert [one["action_id"] for one in cli("waits", "a.db", "--json").json] == ["b"]
    until = f"Next: carstore resume a.db r --tools FILE_OR_MODULE (from {rfc3339(LATE)})"
    assert cli("waits", "a.db").stdout.splitlines()[-1] == until
    assert cli("waits", "a.db", "--at", str(at), "--json").json == then


@pytest.mark.parametrize("value", ["null", "7", '{"amount": 7, "by": ["card"]}'])
def test_a_signal_is_recorded_with_its_value(folder: Folder, value: str) -> None:
    put(folder, received("a"))
    done = cli("signal", "a.db", "r", "paid", value, "--by", "shop")
    assert done.code == 0
    assert done.stdout.splitlines() == [
        "Sent to run r: paid",
        "Next: carstore resume a.db r --tools FILE_OR_MODULE",
    ]
    assert inbox("signal_sent").keys() == {"signal", "value", "by"}
    assert inbox("signal_sent")["by"] == "shop"
    put(folder, received("a"), run="other")
    again = cli("signal", "a.db", "other", "paid", value, "--json")
    assert shape(again.json).keys() == documented("signal").keys()
    assert again.json["value"] == json.loads(value)
    assert "Next: carstore resume a.db other" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("r", "paid", "{"), "invalid_json"),
        (("r", "paid", "NaN"), "invalid_json"),
        (("r", "two words", "1"), "invalid_event"),
        (("r", "paid", "1", "--by", ""), "invalid_event"),
        (("nobody", "paid", "1"), "not_found"),
        (("over", "paid", "1"), "run_over"),
        (("r", "paid"), "usage"),
    ],
)
def test_wrong_signals_end_with_2_and_leave_nothing(
    folder: Folder, arguments: tuple[str, ...], code: str
) -> None:
    put(folder, received("a"))
    put(folder, received("a"), completed(), run="over")
    before = cli("head", "a.db").stdout
    done = cli("signal", "a.db", *arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    assert cli("head", "a.db").stdout == before


def test_a_run_is_asked_to_stop_once_and_then_to_undo(folder: Folder) -> None:
    put(folder, received("a"))
    done = cli("cancel", "a.db", "r", "--by", "ann", "--reason", "wrong customer")
    assert (done.code, done.stdout.splitlines()) == (
        0,
        ["Run r is asked to stop", "Next: carstore resume a.db r --tools FILE_OR_MODULE"],
    )
    assert inbox("cancel_requested") == {
        "by": "ann",
        "compensate": False,
        "reason": "wrong customer",
    }
    again = cli("cancel", "a.db", "r", "--json")
    assert (again.code, again.json["recorded"]) == (0, False)
    assert shape(again.json) == documented("cancel")
    more = cli("cancel", "a.db", "r", "--compensate")
    assert more.stdout.startswith("Run r is asked to stop, and undo what was done\n")
    assert "had been asked already" in cli("cancel", "a.db", "r").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nobody",), "not_found"),
        (("over",), "run_over"),
        (("over", "--compensate"), "run_over"),
        (("no/run",), "invalid_run_id"),
        (("r", "--by", "a\tb"), "invalid_event"),
    ],
)
def test_wrong_requests_to_stop_end_with_2_and_leave_nothing(
    folder: Folder, arguments: tuple[str, ...], code: str
) -> None:
    put(folder, received("a"))
    put(folder, received("a"), completed(), run="over")
    before = cli("head", "a.db").stdout
    done = cli("cancel", "a.db", *arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    assert cli("head", "a.db").stdout == before
