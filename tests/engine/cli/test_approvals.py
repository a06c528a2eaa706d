"""`approvals`, `approve` and `reject`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from carstore import Entry, connect
from carstore import events as e
from carstore.blobs import make_blob
from carstore.clock import Clock, ManualClock, SystemClock
from carstore.names import RunId, run_stream
from carstore.redaction import Redaction
from engine.cli.approvals import MAX_SHOWN_CHARS
from engine.results import rfc3339
from tests.engine.cli.harness import Folder, cli, shape
from tests.engine.cli.test_cli_docs import documented
from tests.projections.plausible import completed, received, succeeded

REASONS = [{"policy": "require_approval:mail", "reason": "goes outside"}]
LONG_AGO = 1_700_000_000_000_000
LATE = 4_000_000_000_000_000


def asked(action: str = "mail", **fields: Any) -> e.ApprovalRequested:
    return e.ApprovalRequested(
        **{
            "action_id": action,
            "tool": "mail",
            "binding": "b" * 64,
            "reasons": REASONS,
            "approvers": 1,
            "expires_at": None,
            **fields,
        }
    )


def mailing(**parameters: Any) -> list[e.Event]:
    """A run whose second action takes what the first has found."""
    find = {"id": "find", "tool": "fetch"}
    mail = {"id": "mail", "tool": "mail", "parameters": parameters}
    return [received(find, mail), succeeded("find", output={"to": "ann@x", "key": "s3cret"})]


def put(
    folder: Folder,
    *events: e.Event,
    run: str = "r",
    sensitive: Sequence[str] = (),
    clock: Clock | None = None,
) -> None:
    """Append what a driver would, to `a.db`."""

    async def append() -> None:
        async with connect(
            folder / "a.db",
            durability="crash",
            redaction=Redaction(names=sensitive),
            clock=clock or SystemClock(),
        ) as store:
            run_id = RunId(run)
            entries = [Entry(run_stream(run_id), event, run_id) for event in events]
            await store.log.append(*entries)

    asyncio.run(append())


def test_nothing_waits_in_an_empty_file(folder: Folder) -> None:
    put(folder, received("a"))
    assert cli("approvals", "a.db").stdout == "Nothing waits for consent.\n"
    assert cli("approvals", "a.db", "--json").json == []


def test_who_decides_sees_the_parameters_of_the_call_with_references_replaced(
    folder: Folder,
) -> None:
    put(folder, *mailing(to="$find.output.to", text=["hi", "$$find.output"]))
    put(folder, asked(approvers=2, expires_at=LATE))
    done = cli("approvals", "a.db")
    assert done.code == 0
    title, cells = done.stdout.splitlines()[:2]
    titles = ["RUN", "ACTION", "TOOL", "ASKED", "EXPIRES", "CONSENTS", "WHY"]
    assert title.split() == titles
    assert cells.split()[:3] == ["r", "mail", "mail"]
    assert rfc3339(LATE) in cells
    assert "0 of 2" in cells
    assert cells.endswith("require_approval:mail: goes outside")
    assert '"to": "ann@x"' in done.stdout
    assert '"$find.output"' in done.stdout
    assert f"Next: carstore approve a.db r mail --binding {'b' * 64} (or reject)" in done.stdout
    [found] = cli("approvals", "a.db", "--json").json
    assert found["parameters"] == {"to": "ann@x", "text": ["hi", "$find.output"]}
    assert found["status"] == "open"


def test_the_documented_json_is_what_is_printed(folder: Folder) -> None:
    put(folder, *mailing(to="ann@x", subject="Bill"), asked(approvers=2, expires_at=LATE))
    answer = cli("approve", "a.db", "r", "mail", "--by", "ann", "--json")
    assert shape(answer.json) == documented("approve")
    assert shape(cli("approvals", "a.db", "--json").json) == documented("approvals")
    assert shape(cli("reject", "a.db", "r", "mail", "--json").json) == documented("reject")


def test_sensitive_values_stay_hidden(folder: Folder) -> None:
    put(
        folder,
        *mailing(to="$find.output.to", all="$find.output", password="hunter2"),
        asked(),
        sensitive=["password", "key"],
    )
    for options in ((), ("--json",)):
        done = cli("approvals", "a.db", *options)
        assert done.stdout.count("[sensitive]") == 2
        assert "hunter2" not in done.stdout
        assert "s3cret" not in done.stdout
        assert "ann@x" in done.stdout


def test_large_values_beside_the_log_are_shown(folder: Folder) -> None:
    beside = make_blob({"to": "ann@x", "rows": ["z" * 90_000]}, sensitive=False)

    async def append() -> None:
        async with connect(folder / "a.db", durability="crash") as store:
            run_id = RunId("r")
            done = succeeded("find", output=beside.reference)
            events = [mailing(to="$find.output.to")[0], done, asked()]
            entries = [Entry(run_stream(run_id), event, run_id) for event in events]
            entries[1] = entries[1]._replace(blobs=(beside,))
            await store.log.append(*entries)

    asyncio.run(append())
    [found] = cli("approvals", "a.db", "--json").json
    assert found["parameters"] == {"to": "ann@x"}


def test_a_long_call_is_cut_for_people_and_says_so(folder: Folder) -> None:
    put(folder, *mailing(text="z" * (2 * MAX_SHOWN_CHARS)), asked())
    done = cli("approvals", "a.db")
    assert len(done.stdout) < MAX_SHOWN_CHARS + 1_000
    assert "more characters, which --json prints" in done.stdout
    [found] = cli("approvals", "a.db", "--json").json
    assert found["parameters"] == {"text": "z" * (2 * MAX_SHOWN_CHARS)}


def test_what_a_plan_says_cannot_act_on_a_terminal(folder: Folder) -> None:
    odd = "\x1b[2J\u202e"
    put(folder, *mailing(text=odd), asked(reasons=[{"policy": odd, "reason": odd}, odd]))
    done = cli("approvals", "a.db")
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_consent_is_recorded_and_the_next_command_told(folder: Folder) -> None:
    put(folder, *mailing(to="x"), asked())
    done = cli("approve", "a.db", "r", "mail", "--by", "ann", "--reason", "fine")
    assert done.code == 0
    assert done.stdout.splitlines() == [
        "Recorded for action mail of run r: ann consents",
        "Next: carstore resume a.db r --tools FILE_OR_MODULE",
    ]
    logged = cli("log", "a.db", "--kind", "approval_answered", "--json").json
    assert logged["stream"] == "run/r/inbox"
    assert logged["data"] == {
        "action_id": "mail",
        "approved": True,
        "binding": "b" * 64,
        "by": "ann",
        "reason": "fine",
    }
    [found] = cli("approvals", "a.db", "--json").json
    assert (found["status"], found["given_by"]) == ("approved", ["ann"])
    assert "Next: carstore resume a.db r" in cli("approvals", "a.db").stdout


def test_where_two_have_to_consent_the_second_is_asked_for(folder: Folder) -> None:
    put(folder, *mailing(to="x"), asked(approvers=2))
    first = cli("approve", "a.db", "r", "mail", "--by", "ann")
    assert "1 other person has to consent too: carstore approve a.db r mail" in first.stdout
    assert "1 of 2 (ann)" in cli("approvals", "a.db").stdout
    again = cli("approve", "a.db", "r", "mail", "--by", "ann", "--json")
    assert (again.code, again.json["error"]["code"]) == (2, "no_approval")
    second = cli("approve", "a.db", "r", "mail", "--by", "bob", "--json")
    assert second.json["missing"] == 0
    assert "Next: carstore resume" in second.stderr


def test_a_refusal_is_recorded(folder: Folder) -> None:
    put(folder, *mailing(to="x"), asked())
    done = cli("reject", "a.db", "r", "mail", "--by", "ann", "--reason", "no")
    assert done.stdout.splitlines() == [
        "Recorded for action mail of run r: ann refuses",
        "Next: carstore resume a.db r --tools FILE_OR_MODULE",
    ]
    assert "refused" in cli("approvals", "a.db").stdout


@pytest.mark.parametrize("command", ["approve", "reject"])
def test_who_answers_is_the_user_unless_told(
    folder: Folder, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "eve")
    put(folder, *mailing(to="x"), asked())
    cli(command, "a.db", "r", "mail")
    assert cli("log", "a.db", "--kind", "approval_answered", "--json").json["data"]["by"] == "eve"


def test_an_expired_request_says_so_and_takes_no_answer(folder: Folder) -> None:
    put(folder, *mailing(to="x"), asked(expires_at=LONG_AGO))
    assert "expired" in cli("approvals", "a.db").stdout
    [found] = cli("approvals", "a.db", "--json").json
    assert (found["status"], found["expires_at"]) == ("expired", rfc3339(LONG_AGO))
    refused = cli("approve", "a.db", "r", "mail")
    assert refused.code == 2
    assert "expired" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("r", "find"), "no_approval"),
        (("r", "mail", "--binding", "c" * 64), "no_approval"),
        (("r", "nothing"), "not_found"),
        (("nobody", "mail"), "not_found"),
        (("no/run", "mail"), "invalid_run_id"),
        (("over", "a"), "no_approval"),
        (("r", "mail", "--by", " ann"), "invalid_event"),
        (("r", "mail", "--reason", "x" * 5_000), "invalid_event"),
        (("r",), "usage"),
    ],
)
@pytest.mark.parametrize("command", ["approve", "reject"])
def test_wrong_answers_end_with_2_and_leave_nothing(
    folder: Folder, command: str, arguments: tuple[str, ...], code: str
) -> None:
    put(folder, *mailing(to="x"), asked())
    put(folder, received("a"), asked("a"), completed(), run="over")
    before = cli("head", "a.db").stdout
    done = cli(command, "a.db", *arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    assert cli("head", "a.db").stdout == before


def test_the_list_as_of_a_position_is_what_was_told_then(folder: Folder) -> None:
    put(folder, *mailing(to="$find.output.to"))
    put(folder, asked())
    at = cli("head", "a.db", "--json").json["position"]
    then = cli("approvals", "a.db", "--json").json
    cli("approve", "a.db", "r", "mail")
    put(folder, succeeded("find", output={"to": "bob@x"}), succeeded("mail"))
    assert cli("approvals", "a.db", "--json").json == []
    assert cli("approvals", "a.db", "--at", str(at), "--json").json == then
    assert cli("approvals", "a.db", "--at", "0", "--json").json == []
    assert cli("approvals", "a.db", "--at", "99").code == 2


def test_whether_it_had_expired_is_judged_by_the_time_of_the_position(folder: Folder) -> None:
    clock = ManualClock()
    put(folder, *mailing(to="x"), asked(expires_at=clock.wall + 1), clock=clock)
    at = cli("head", "a.db", "--json").json["position"]
    [then] = cli("approvals", "a.db", "--at", str(at), "--json").json
    [now] = cli("approvals", "a.db", "--json").json
    assert (then["status"], now["status"]) == ("open", "expired")
