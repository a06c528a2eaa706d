"""`carstore backup`, `restore`, `fork`, `export` and `import`, and `resume --accept-copy`."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engine.cli.harness import (
    Folder,
    call,
    cli,
    command,
    environment,
    plan,
    process,
    shape,
    wait_for,
)
from tests.engine.cli.test_cli_docs import documented

SLOW = plan(
    call("one", "wait", path="began", seconds=60.0),
    call("two", "double", "one", n=3),
)


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.db`, in which the run `s` has ended, and copies that were taken while its
    first call was under way: `b.db`, a backup, and `f.db`, a fork."""
    folder = Folder(tmp_path_factory.mktemp("taken"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        words = ["run", "a.db", folder.plan(SLOW), "--tools", "tools.py", "--run-id", "s"]
        running = subprocess.Popen(
            command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        wait_for(folder / "began")
        at = cli("backup", "a.db", "b.db", "--json").json["position"]
        assert cli("fork", "a.db", "f.db", "--at", str(at)).code == 0
        (folder / "began.go").touch()
        out, err = running.communicate(timeout=30)
    assert running.returncode == 0, (out, err)
    return folder.path


@pytest.fixture
def copied(folder: Folder, taken: Path) -> Folder:
    """A working directory with the same files."""
    for name in ("a.db", "b.db", "f.db", "plan.json"):
        shutil.copy2(taken / name, folder / name)
    return folder


def next_commands(text: str) -> list[list[str]]:
    found = [line.partition("Next: ")[2] for line in text.splitlines() if "Next: " in line]
    return [shlex.split(line)[1:] for line in found]


# --- making copies ---


def test_a_backup_prints_the_head_it_has(ran: Folder) -> None:
    made = cli("backup", "a.db", "b.db", "--json").json
    assert {"position": made["position"], "hash": made["hash"]} == cli(
        "head", "a.db", "--json"
    ).json
    assert made["path"] == str(ran / "b.db")
    assert made["bytes"] == (ran / "b.db").stat().st_size
    head = f"{made['position']}:{made['hash']}"
    assert cli("verify", "b.db", "--head", head).code == 0
    for_people = cli("backup", "a.db", "c.db").stdout
    assert for_people.startswith(f"Made {ran / 'c.db'}: {made['position']:,} events, ")
    assert for_people.rstrip().endswith(f"head {made['position']} {made['hash']}")


def test_documents_have_the_documented_shape(copied: Folder) -> None:
    made = cli("backup", "a.db", "again.db", "--json").json
    assert shape(made) == documented("backup")
    restored = cli("restore", "b.db", "r.db", "--json")
    assert shape(restored.json) == documented("restore")
    assert list(restored.json) == list(documented("restore"))
    forked = cli("fork", "a.db", "g.db", "--at", "4", "--json")
    assert shape(forked.json) == documented("restore")
    assert shape(cli("export", "a.db", "x.jsonl", "--json").json) == documented("backup")
    imported = cli("import", "x.jsonl", "i.db", "--json").json
    assert {**shape(imported), "held": ["value"]} == documented("restore")


def test_one_ctrl_c_ends_waiting_for_a_pipe(ran: Folder) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:  # until there is no room
            os.write(writing, b" " * 4096)
    os.set_blocking(writing, True)
    empty, unused = os.pipe()
    started = [
        subprocess.Popen(
            command(*words), stdin=empty, stdout=writing, stderr=subprocess.PIPE, env=environment()
        )
        for words in (("import", "-", "i.db"), ("export", "a.db", "-"))
    ]
    time.sleep(2.5)
    for one in started:
        assert one.poll() is None
        one.send_signal(signal.SIGINT)
    for one in started:
        _, err = one.communicate(timeout=10)
        assert one.returncode == 130, err
    for file in (reading, writing, empty, unused):
        os.close(file)
    assert sorted(ran.path.glob("*.part")) == []
    assert not (ran / "i.db").exists()


def test_what_is_missing_is_not_told_to_be_made_by_a_run(copied: Folder) -> None:
    for words in (
        ("backup", "none.db", "n.db"),
        ("restore", "none.db", "n.db"),
        ("doubts", "f.db", "--origin", "none.db"),
        ("resume", "f.db", "--origin", "none.db"),
    ):
        done = cli(*words)
        assert done.code == 2
        assert "there is no database 'none.db'" in done.stderr
        assert "carstore run" not in done.stderr


def test_a_log_goes_through_a_pipe_and_back(ran: Folder) -> None:
    written = process("export", "a.db", "-")
    assert written.code == 0
    assert written.stderr.startswith("Written: ")
    back = process("import", "-", "i.db", "--json", stdin=written.stdout.encode())
    assert back.code == 0
    assert back.json["origin"]["path"] is None
    assert (
        cli("show", "i.db", "first", "--json").json == cli("show", "a.db", "first", "--json").json
    )


def test_what_stands_there_is_not_overwritten_unless_forced(ran: Folder) -> None:
    (ran / "there").write_text("mine")
    cli("export", "a.db", "x.jsonl")
    for name, source in (
        ("backup", "a.db"),
        ("export", "a.db"),
        ("restore", "a.db"),
        ("import", "x.jsonl"),
    ):
        done = cli(name, source, "there", "--json")
        assert done.code == 2
        assert done.json["error"]["code"] == "already_there"
    assert (ran / "there").read_text() == "mine"
    for name in ("backup", "export"):
        assert cli(name, "a.db", "there", "--force").code == 0


def test_wrong_input_ends_with_2_and_makes_nothing(ran: Folder) -> None:
    before = set(os.listdir(ran.path))
    for words, code in (
        (("fork", "a.db", "n.db"), "usage"),
        (("fork", "a.db", "n.db", "--at", "0"), "usage"),
        (("fork", "a.db", "n.db", "--at", "9999"), "not_found"),
        (("fork", "a.db", "n.db", "--at", str(2**63)), "usage"),
        (("export", "a.db", "n", "--at", str(2**63)), "usage"),
        (("backup", "none.db", "n.db"), "not_found"),
        (("backup", "tools.py", "n.db"), "not_a_database"),
        (("restore", "none.db", "n.db"), "not_found"),
        (("import", "tools.py", "n.db"), "invalid_export"),
        (("import", "none", "n.db"), "not_found"),
        (("export", "a.db", "-"), "usage"),
        (("export", "a.db", "n", "--at", "9999"), "not_found"),
        (("backup", "a.db", "no/n.db"), "not_found"),
    ):
        done = cli(*words, "--json")
        assert (done.code, done.json["error"]["code"]) == (2, code), words
    assert set(os.listdir(ran.path)) == before


def test_a_changed_export_is_refused_with_its_line(ran: Folder) -> None:
    cli("export", "a.db", "x.jsonl")
    lines = (ran / "x.jsonl").read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace("first", "First")
    (ran / "x.jsonl").write_text("".join(lines))
    done = cli("import", "x.jsonl", "n.db")
    assert done.code == 2
    assert "x.jsonl, line 4: " in done.stderr
    assert not (ran / "n.db").exists()


def test_a_backup_is_asked_but_not_written(copied: Folder) -> None:
    assert cli("runs", "b.db", "--json").json[0]["status"] == "running"
    for words in (
        ("resume", "b.db"),
        ("rebuild", "b.db"),
        ("run", "b.db", "plan.json", "--tools", "tools.py"),
    ):
        done = cli(*words)
        assert done.code == 1
        assert "b.db cannot be opened: it is read-only, as a backup is" in done.stderr
        assert "carstore restore b.db NEW" in done.stderr


# --- going on in a copy ---


def test_a_copied_run_is_held_and_the_command_to_accept_it_works(copied: Folder) -> None:
    made = cli("restore", "b.db", "r.db")
    assert "1 run was not finished" in made.stdout
    [follow] = next_commands(made.stdout)
    assert follow == ["resume", str(copied / "r.db")]
    held = cli(*follow)
    assert held.code == 3
    assert "copied unfinished, waiting until somebody accepts that it goes on here" in held.stdout
    assert "--origin FILE tells how it went on there" in held.stdout
    [accept] = next_commands(held.stdout)
    expected = ["resume", str(copied / "r.db"), "s", "--tools", "FILE_OR_MODULE", "--accept-copy"]
    assert accept == expected
    words = [word.replace("FILE_OR_MODULE", "tools.py") for word in accept]
    accepted = cli(*words, "--by", "anna", "--quiet")
    assert accepted.code == 3
    assert next_commands(accepted.stdout) == [["doubts", str(copied / "r.db")]]
    assert not (copied / "began").exists(), "the call was made again"
    events = cli("log", "r.db", "--kind", "copy_accepted", "--json").json
    assert events["data"] == {"by": "anna", "epoch": 1}


def test_doubts_tell_how_the_call_ended_in_the_origin(copied: Folder, taken: Path) -> None:
    [doubt] = cli("doubts", "f.db", "--json").json
    assert doubt["origin"]["succeeded"] is True
    assert doubt["origin"]["output"] == "waited"
    said = cli("doubts", "f.db").stdout
    assert f"In the origin ({taken / 'a.db'}), run s, action one succeeded" in said
    [answer] = next_commands(said)
    assert answer == ["resolve", "f.db", "s", "one", "--succeeded", '"waited"']
    held = cli("resume", "f.db", "s")
    assert next_commands(held.stdout) == [answer]
    assert "--retry" not in held.stdout + said
    assert next_commands(cli("resume", "f.db", "s", "--json").stderr) == [answer]
    assert cli(*answer).code == 0
    held = cli("resume", "f.db", "s")
    assert held.code == 3
    assert f"In the origin ({taken / 'a.db'}), run s ended: succeeded." in held.stdout
    assert "action one succeeded at position" in held.stdout
    done = cli("resume", "f.db", "--accept-copy", "--tools", "tools.py", "--quiet", "--json")
    assert done.code == 0
    [result] = done.json
    assert [one["output"] for one in result["results"]] == ["waited", 6]
    assert "waits_for" not in result


def test_the_origin_can_be_named(copied: Folder) -> None:
    cli("restore", "b.db", "r.db")
    assert cli("doubts", "r.db", "--json").json[0]["origin"] is None
    assert "--origin FILE" in cli("doubts", "r.db").stdout
    [doubt] = cli("doubts", "r.db", "--origin", "a.db", "--json").json
    assert doubt["origin"]["output"] == "waited"
    said = cli("resume", "r.db", "s", "--origin", "a.db", "--json")
    assert said.json[0]["waits_for"] == "acceptance"
    assert said.json[0]["origin"] == {
        "path": "a.db",
        "status": "succeeded",
        "calls": said.json[0]["origin"]["calls"],
    }
    first = said.json[0]["origin"]["calls"][0]
    assert {"action_id": "one", "undo": False, "attempt": 1, **doubt["origin"]} == first
    assert cli("resume", "r.db", "s", "--json").json[0]["origin"] is None
    assert "run s ended: succeeded" in said.stderr
    cli("new", "hello")
    other = cli("backup", "f.db", "other.db")
    assert other.code == 0
    for wrong, code in (("none.db", "not_found"), ("tools.py", "not_a_database")):
        done = cli("doubts", "r.db", "--origin", wrong, "--json")
        assert (done.code, done.json["error"]["code"]) == (2, code)
    cli("fork", "a.db", "early.db", "--at", "1")
    done = cli("doubts", "r.db", "--origin", "early.db", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "usage")


def test_a_held_run_without_a_doubt_is_told_too(copied: Folder) -> None:
    received = cli("log", "a.db", "--kind", "proposal_received", "--json").json["position"]
    assert cli("fork", "a.db", "g.db", "--at", str(received)).code == 0
    said = cli("doubts", "g.db").stdout
    assert "Nothing is in doubt." in said
    assert said.rstrip().endswith("carstore resume g.db")
    assert "copied unfinished" not in cli("doubts", "a.db").stdout


def test_all_held_runs_are_accepted_at_once(copied: Folder) -> None:
    accepted = cli("resume", "f.db", "--accept-copy", "--tools", "tools.py", "--json", "--quiet")
    assert accepted.code == 3
    assert [one["waits_for"] for one in accepted.json] == ["answer"]
