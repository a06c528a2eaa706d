"""`carstore verify`."""

import sqlite3

import pytest

from tests.engine.cli.harness import Folder, cli


def test_a_good_file_is_ok(ran: Folder) -> None:
    done = cli("verify", "a.db", "--json")
    assert done.code == 0
    head = cli("head", "a.db", "--json").json
    assert done.json == {"ok": True, "head": head, "problems": []}
    assert cli("verify", "a.db").stdout.startswith("ok: ")


@pytest.mark.parametrize("joint", [":", " "])
def test_a_head_that_was_kept_proves_the_log(ran: Folder, joint: str) -> None:
    position, digest = cli("head", "a.db").stdout.split()
    assert cli("verify", "a.db", "--head", f"{position}{joint}{digest}").code == 0


def test_a_log_shorter_than_a_kept_head_is_a_fault(ran: Folder) -> None:
    head = cli("head", "a.db", "--json").json
    kept = f"{head['position'] + 1}:{head['hash']}"
    done = cli("verify", "a.db", "--head", kept, "--json")
    assert done.code == 1
    assert not done.json["ok"]
    [problem] = done.json["problems"]
    assert list(problem) == ["position", "code", "message"]
    other = f"{head['position']}:{'0' * 64}"
    done = cli("verify", "a.db", "--head", other)
    assert done.code == 1
    assert "head_mismatch" in done.stdout


@pytest.mark.parametrize("kept", ["", "1", "1:abc", f"x:{'0' * 64}", f"1:{'0' * 65}"])
def test_a_head_that_is_none_is_refused(ran: Folder, kept: str) -> None:
    done = cli("verify", "a.db", "--head", kept, "--json")
    assert (done.code, done.json["error"]["path"]) == (2, "--head")


def test_a_changed_event_is_found(ran: Folder) -> None:
    connection = sqlite3.connect(ran / "a.db")
    connection.execute("DROP TRIGGER events_update")
    changed = connection.execute(
        "UPDATE events SET data = replace(data, '20', '21') WHERE kind = 'state_changed'"
    )
    assert changed.rowcount
    connection.commit()
    connection.close()
    done = cli("verify", "a.db", "--json")
    assert done.code == 1
    assert {problem["code"] for problem in done.json["problems"]} >= {"hash", "schema"}
    assert cli("verify", "a.db").code == 1


def test_a_stored_row_that_the_log_does_not_make_is_found(ran: Folder) -> None:
    assert cli("rebuild", "a.db").code == 0
    assert cli("verify", "a.db").code == 0
    connection = sqlite3.connect(ran / "a.db")
    connection.execute("UPDATE view_costs_v2 SET calls = 99")
    connection.commit()
    connection.close()
    done = cli("verify", "a.db", "--json")
    assert done.code == 1
    assert {problem["code"] for problem in done.json["problems"]} == {"view"}
    assert cli("rebuild", "a.db").code == 0
    assert cli("verify", "a.db").code == 0


def test_a_file_too_damaged_to_open_is_checked_all_the_same(ran: Folder) -> None:
    content = bytearray((ran / "a.db").read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    (ran / "a.db").write_bytes(content)
    done = cli("verify", "a.db", "--json")
    assert done.code == 1
    assert done.json["problems"]


@pytest.mark.parametrize(
    "damage", [b"\xff" * 16, bytes(100), b"no SQLite at all" * 256], ids=["mark", "header", "page"]
)
def test_a_file_without_its_first_page_is_examined(ran: Folder, damage: bytes) -> None:
    events = cli("head", "a.db", "--json").json["position"]
    content = bytearray((ran / "a.db").read_bytes())
    content[: len(damage)] = damage
    (ran / "a.db").write_bytes(content)
    done = cli("verify", "a.db", "--json")
    assert done.code == 1
    assert {problem["code"] for problem in done.json["problems"]} == {"unreadable"}
    assert f"hold {events} events" in done.json["problems"][-1]["message"]
    assert "carstore salvage" in cli("verify", "a.db").stdout
    assert (ran / "a.db").read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"", b"text", b"text" * 5000, b"SQLite format 3\0" + bytes(9000)]
)
def test_a_file_without_events_is_no_database(folder: Folder, content: bytes) -> None:
    (folder / "x.db").write_bytes(content)
    done = cli("verify", "x.db", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_a_database")


def test_one_problem_is_one(ran: Folder) -> None:
    connection = sqlite3.connect(ran / "a.db")
    connection.execute("DROP TRIGGER events_update")
    connection.close()
    assert cli("verify", "a.db").stdout.endswith("\n1 problem\n")
