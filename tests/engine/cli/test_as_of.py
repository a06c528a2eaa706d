"""`--at N` on every command that reads: the same as asking when the log had ended there."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cli.harness import BAD, GOOD, ROLLED_BACK, Folder, call, cli, plan

LATE = plan(call("late", "wait", path="began", seconds=0.3, _timeout_ms=50), source="other")
COMMANDS = [
    ("runs",),
    ("show", "first"),
    ("show", "late"),
    ("state",),
    ("costs",),
    ("doubts",),
    ("approvals",),
    ("waits",),
    ("why", "n"),
    ("view", "runs"),
    ("view", "actions"),
    ("view", "leases"),
    ("head",),
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Copies of a file, by the position at which it ended then."""
    made = Folder(tmp_path_factory.mktemp("grown"))
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.path)
        for name, content in (
            ("first", GOOD),
            ("bad", BAD),
            ("late", LATE),
            ("back", ROLLED_BACK),
        ):
            made.run(content, "--run-id", name)
            position = cli("head", "a.db", "--json").json["position"]
            found[position] = made / f"{position}.db"
            shutil.copy(made / "a.db", found[position])
    return found


def asked(command: tuple[str, ...], path: Path, *options: str) -> tuple[int, Any]:
    done = cli(command[0], str(path), *command[1:], *options, "--json")
    return done.code, done.json if done.code == 0 else done.json["error"]["code"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_as_of_a_position_is_what_was_told_then(
    grown: dict[int, Path], command: tuple[str, ...]
) -> None:
    newest = grown[max(grown)]
    answers = []
    for position, then in grown.items():
        answer = asked(command, newest, "--at", str(position))
        assert answer == asked(command, then), position
        answers.append(answer)
    assert answers[-1] == asked(command, newest)


@pytest.mark.parametrize("command", [*COMMANDS, ("view", "state")], ids=" ".join)
def test_a_position_beyond_the_end_is_refused(
    grown: dict[int, Path], command: tuple[str, ...]
) -> None:
    head = max(grown)
    done = cli(command[0], str(grown[head]), *command[1:], "--at", str(head + 1), "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert f"The log ends at {head}." in done.json["error"]["message"]


def test_the_head_before_the_first_event_is_no_event(grown: dict[int, Path]) -> None:
    head = cli("head", str(grown[max(grown)]), "--at", "0", "--json").json
    assert head == {"position": 0, "hash": "0" * 64}


def test_a_run_in_the_middle_is_shown_as_it_was(grown: dict[int, Path]) -> None:
    first, *_ = grown
    path = str(grown[max(grown)])
    statuses = []
    for at in range(3, first + 1):
        found = cli("show", path, "first", "--at", str(at), "--json").json
        statuses.append((found["status"], len(found["results"])))
    assert statuses == sorted(statuses, key=lambda one: one[1])
    assert statuses[0] == ("running", 0)
    assert statuses[-1] == ("succeeded", 4)
    shown = cli("show", path, "first", "--at", str(first - 3)).stdout
    assert f"running at position {first - 3}" in shown
    assert "carstore resume" not in shown, "what was to be done then is past"


def test_a_run_that_had_not_begun_is_not_there(grown: dict[int, Path]) -> None:
    path = str(grown[max(grown)])
    done = cli("show", path, "late", "--at", "5", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert "as of position 5" in done.json["error"]["message"]


def test_what_was_in_doubt_then_is_told_and_nothing_is_asked_for(grown: dict[int, Path]) -> None:
    first, *_ = grown
    path = str(grown[max(grown)])
    assert cli("doubts", path, "--at", str(first)).stdout == (
        f"Nothing was in doubt at position {first}.\n"
    )
    assert "carstore resolve" in cli("doubts", path).stdout
    then = cli("doubts", path, "--at", str(max(grown))).stdout
    assert "late" in then
    assert "carstore resolve" not in then
    assert "position 2" in cli("why", path, "n", "--at", "2").stdout


def test_a_run_that_waits_says_for_what(folder: Folder) -> None:
    done = folder.run(LATE, "--run-id", "late")
    assert done.code == 3
    row = next(line for line in done.stdout.splitlines() if line.startswith("late"))
    assert "in doubt" in row
    assert "wait: " in row
    [doubt] = cli("doubts", "a.db", "--json").json
    assert f"idempotency key {doubt['idempotency_key']}" in row
    commands = "--retry (or --succeeded JSON, or --failed TEXT)"
    assert f"  carstore resolve a.db late late {commands}\n" in done.stdout
    again = cli("resume", "a.db", "late", "--tools", "tools.py", "--quiet")
    assert (again.code, row in again.stdout.splitlines()) == (3, True)
