"""`carstore resume`, `doubts` and `resolve`."""

import asyncio
import json
import time

import pytest

from carstore import connect
from tests.engine.cli.harness import BAD, GOOD, Done, Folder, call, cli, plan, wait_for, write

LATE = plan(
    call("w", "wait", path="began", seconds=0.3, _timeout_ms=50, _failure_behavior="retry"),
    call("after", "double", "w", n=4),
)


@pytest.fixture
def waiting(folder: Folder) -> Folder:
    """`a.db` with the run `w`, which waits for somebody to resolve its action `w`."""
    assert folder.run(LATE, "--run-id", "w").code == 3
    return folder


def test_nothing_to_resume_is_said_and_is_no_failure(ran: Folder) -> None:
    done = cli("resume", "a.db", "--tools", "tools.py")
    assert (done.code, done.stdout) == (0, "Nothing to resume: every run has finished.\n")
    done = cli("resume", "a.db", "--json")
    assert (done.code, done.json) == (0, [])


def test_a_finished_run_gives_its_recorded_result(ran: Folder) -> None:
    done = cli("resume", "a.db", "first", "--json", "--quiet")
    assert done.code == 0
    [result] = done.json
    assert result["status"] == "succeeded"
    ran.run(BAD, "--run-id", "bad")
    assert cli("resume", "a.db", "bad", "--json").code == 1


def test_a_doubt_is_listed_with_the_key_the_tool_was_handed(waiting: Folder) -> None:
    [doubt] = cli("doubts", "a.db", "--json").json
    assert list(doubt) == [
        "run_id",
        "action_id",
        "tool",
        "attempt",
        "idempotency_key",
        "since",
        "origin",
    ]
    assert doubt["origin"] is None
    assert (doubt["run_id"], doubt["action_id"], doubt["tool"]) == ("w", "w", "wait")
    assert len(doubt["idempotency_key"]) == 64
    assert doubt["since"].endswith("Z")
    for_people = cli("doubts", "a.db").stdout
    assert doubt["idempotency_key"] in for_people
    assert "Next: carstore resolve a.db w w --retry" in for_people


def test_no_doubts_is_said(ran: Folder) -> None:
    assert cli("doubts", "a.db").stdout == "Nothing is in doubt.\n"
    assert cli("doubts", "a.db", "--json").json == []


def test_a_run_that_still_waits_ends_with_3(waiting: Folder) -> None:
    done = cli("resume", "a.db", "--tools", "tools.py", "--quiet")
    assert done.code == 3
    assert done.stdout.endswith("Next: carstore doubts a.db\n")


def test_a_doubt_resolved_as_succeeded_has_that_output(waiting: Folder) -> None:
    done = cli("resolve", "a.db", "w", "w", "--succeeded", '"by hand"')
    assert done.code == 0
    assert done.stdout.endswith("Next: carstore resume a.db w --tools FILE_OR_MODULE\n")
    done = cli("resume", "a.db", "w", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 0
    assert [one["output"] for one in done.json[0]["results"]] == ["by hand", 8]


def test_a_doubt_resolved_as_failed_fails(waiting: Folder) -> None:
    done = cli("resolve", "a.db", "w", "w", "--failed", "not there", "--json")
    assert done.json == {"run_id": "w", "action_id": "w", "resolution": "failed"}
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 1
    assert done.json[0]["results"][0]["error"] == "not there"


def test_a_doubt_can_be_retried(waiting: Folder) -> None:
    (waiting / "began.go").touch()
    assert cli("resolve", "a.db", "w", "w", "--retry").code == 0
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 0
    assert done.json[0]["results"][0]["attempts"] == 2


def test_who_resolved_is_recorded(waiting: Folder) -> None:
    cli("resolve", "a.db", "w", "w", "--retry")
    [line] = cli("log", "a.db", "--kind", "doubt_resolved", "--json").stdout.splitlines()
    assert json.loads(line)["data"]["by"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), "usage"),
        (("--retry", "--failed", "x"), "usage"),
        (("--succeeded", "1", "--failed", "x"), "usage"),
        (("--succeeded", "{1}"), "invalid_json"),
        (("--succeeded", '{"a":1,"a":2}'), "invalid_json"),
        (("--succeeded", "NaN"), "invalid_json"),
    ],
)
def test_resolving_needs_exactly_one_answer(
    waiting: Folder, options: tuple[str, ...], code: str
) -> None:
    before = cli("head", "a.db").stdout
    done = cli("resolve", "a.db", "w", "w", *options, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    assert cli("head", "a.db").stdout == before


@pytest.mark.parametrize(
    ("run", "action", "code"),
    [("w", "after", "no_doubt"), ("w", "zzz", "not_found"), ("v", "w", "not_found")],
)
def test_only_what_is_in_doubt_can_be_resolved(
    waiting: Folder, run: str, action: str, code: str
) -> None:
    done = cli("resolve", "a.db", run, action, "--retry", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)


def test_an_answer_can_be_given_once(waiting: Folder) -> None:
    assert cli("resolve", "a.db", "w", "w", "--retry").code == 0
    done = cli("resolve", "a.db", "w", "w", "--failed", "x", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "no_doubt")


def test_of_several_runs_a_failure_goes_before_one_that_waits(waiting: Folder) -> None:
    waiting.run(BAD, "--run-id", "bad")
    done = cli("resume", "a.db", "w", "bad", "w", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 1
    assert [one["run_id"] for one in done.json] == ["w", "bad"]
    for_people = cli("resume", "a.db", "w", "bad", "--tools", "tools.py", "--quiet").stdout
    assert "Next: carstore doubts a.db" in for_people
    assert "Next: carstore show a.db bad" in for_people


def test_a_run_that_does_not_exist_stops_all(waiting: Folder) -> None:
    head = cli("head", "a.db").stdout
    done = cli("resume", "a.db", "w", "nope", "--tools", "tools.py", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert cli("head", "a.db").stdout == head


def test_tools_that_are_missing_or_changed_stop_all(waiting: Folder) -> None:
    head = cli("head", "a.db").stdout
    done = cli("resume", "a.db", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "tools_changed")
    text = (waiting / "tools.py").read_text().replace("seconds: float = 60.0", "seconds: float")
    (waiting / "others.py").write_text(text)
    done = cli("resume", "a.db", "w", "--tools", "others.py")
    assert done.code == 2
    assert "wait" in done.stderr
    assert cli("head", "a.db").stdout == head


def test_a_run_that_another_process_drives_is_owned(folder: Folder) -> None:
    """The other process is this one: its lease is held while the command runs in a thread."""
    from engine import Runtime
    from engine.tools import load_tools

    content = plan(call("w", "wait", path="began"), write("k", "k", 1))

    async def both() -> None:
        async with connect("a.db") as store:
            runtime = Runtime(store, load_tools("tools.py"))
            task = asyncio.create_task(runtime.execute(content, run_id="mine"))
            await asyncio.to_thread(wait_for, folder / "began")
            for arguments in (("mine",), ()):
                command = ["resume", "a.db", *arguments, "--tools", "tools.py"]
                done = await asyncio.to_thread(cli, *command, "--json", "--quiet")
                assert done.code == 1
                assert done.json["error"]["code"] == "run_owned"
                assert done.json["error"]["path"] == "mine"
                done = await asyncio.to_thread(cli, *command, "--quiet")
                assert (done.code, done.stdout) == (1, "")
                assert "process" in done.stderr
            shown = await asyncio.to_thread(cli, "show", "a.db", "mine")
            assert "running, by process" in shown.stdout
            listed = await asyncio.to_thread(cli, "runs", "a.db")
            assert "running" in listed.stdout
            (folder / "began.go").touch()
            await task

    asyncio.run(both())


def test_several_unfinished_runs_are_all_resumed(waiting: Folder) -> None:
    assert waiting.run(LATE, "--run-id", "v").code == 3
    cli("resolve", "a.db", "w", "w", "--succeeded", '"1"')
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 3
    assert {one["run_id"]: one["status"] for one in done.json} == {
        "w": "succeeded",
        "v": "waiting",
    }


def test_a_resume_tells_only_what_is_new(waiting: Folder) -> None:
    good = waiting.run(GOOD)
    assert good.code == 0
    cli("resolve", "a.db", "w", "w", "--succeeded", '"1"')
    done = cli("resume", "a.db", "--tools", "tools.py")
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["w", "after"]


# --- what waits without a doubt ---

NAP = {"id": "nap", "tool": "sleep", "parameters": {"seconds": 0.3}}
ORDER = {"id": "order", "tool": "wait_signal", "parameters": {"name": "paid"}}


def statuses(done: Done) -> list[str]:
    return [one["status"] for one in done.json[0]["results"]]


def test_a_sleep_goes_on_once_its_time_has_come_and_needs_no_tools(folder: Folder) -> None:
    content = plan({**NAP, "parameters": {"seconds": 3600}}, write("w", "k", 1))
    assert cli("run", "a.db", folder.plan(content), "--run-id", "long", "--quiet").code == 3
    again = cli("resume", "a.db", "--json", "--quiet")
    assert (again.code, statuses(again)) == (3, ["succeeded"])
    assert again.json[0]["waits_for"] == "time"
    content = plan(NAP, {**write("w", "k", 2), "dependencies": ["nap"]})
    assert cli("run", "a.db", folder.plan(content), "--run-id", "short", "--quiet").code == 3
    time.sleep(0.35)
    done = cli("resume", "a.db", "short", "--json", "--quiet")
    assert (done.code, statuses(done)) == (0, ["succeeded", "succeeded"])
    assert cli("state", "a.db", "--json").json == {"k": 2}


def test_looking_at_what_still_waits_records_nothing(folder: Folder) -> None:
    cli("run", "a.db", folder.plan(plan(ORDER)), "--run-id", "w", "--quiet")
    head = cli("head", "a.db").stdout
    for _ in range(2):
        assert cli("resume", "a.db", "w").code == 3
    assert cli("head", "a.db").stdout == head


def test_a_signal_is_the_output_of_what_waited_for_it(folder: Folder) -> None:
    content = plan(ORDER, call("twice", "double", n="$order.output.amount"))
    assert folder.run(content, "--run-id", "w", "--json").json["waits_for"] == "signal"
    assert cli("signal", "a.db", "w", "paid", '{"amount": 7}', "--by", "shop").code == 0
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 0
    assert [one["output"] for one in done.json[0]["results"]] == [{"amount": 7}, 14]


def test_a_run_that_waits_and_is_cancelled_ends_so(folder: Folder) -> None:
    content = plan(
        call("keep", "keep", _reversibility="compensable"), {**ORDER, "dependencies": ["keep"]}
    )
    assert folder.run(content, "--run-id", "w").code == 3
    assert cli("cancel", "a.db", "w", "--compensate", "--reason", "wrong").code == 0
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert (done.code, done.json[0]["stopped"]) == (1, "cancelled: wrong")
    assert done.json[0]["results"][0]["rolled_back"]
    assert statuses(done) == ["succeeded", "skipped"]
