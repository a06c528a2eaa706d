"""The program as a process: streams, signals, kills, terminals, files that cannot be written."""

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from tests.engine.cli.harness import (
    BAD,
    GOOD,
    Done,
    Folder,
    call,
    cli,
    command,
    environment,
    plan,
    process,
    wait_for,
    write,
)

pytestmark = pytest.mark.slow

SLOW = plan(
    call("one", "double", n=1),
    call("two", "wait", "one", path="began"),
    call("three", "double", "two", n=3),
)


def begin(folder: Folder, *options: str) -> "subprocess.Popen[bytes]":
    """Start a run, and return when its second action is being called."""
    words = ["run", "a.db", folder.plan(SLOW), "--tools", "tools.py", "--run-id", "s", *options]
    running = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    wait_for(folder / "began")
    return running


def ended(running: "subprocess.Popen[bytes]") -> tuple[int, str, str]:
    out, err = running.communicate(timeout=30)
    return running.returncode, out.decode(), err.decode()


def test_results_go_to_stdout_and_everything_else_to_stderr(folder: Folder) -> None:
    content = plan(call("l", "loud", n=3))
    done = process("run", "a.db", folder.plan(content), "--tools", "tools.py", "--json")
    assert done.code == 0
    assert done.json["results"][0]["output"] == 3
    assert "printed by a tool" in done.stderr
    assert "printed by a program" in done.stderr
    assert "l succeeded" in done.stderr


def test_exit_codes_and_streams(folder: Folder) -> None:
    good, bad = folder.plan(GOOD, "good.json"), folder.plan(BAD, "bad.json")
    assert process("run", "a.db", good, "--tools", "tools.py").code == 0
    assert process("run", "a.db", bad, "--tools", "tools.py").code == 1
    missing = process("runs", "no.db")
    assert (missing.code, missing.stdout) == (2, "")
    assert missing.stderr.startswith("Error: ")
    assert not (folder / "no.db").exists()
    assert process().code in (0, 2)


def test_after_kill_9_the_run_is_resumed_and_nothing_is_done_twice(folder: Folder) -> None:
    running = begin(folder)
    running.kill()
    code, out, err = ended(running)
    assert (code, out) == (-signal.SIGKILL, "")
    assert "carstore resume a.db s --tools tools.py" in err
    assert "stopped" in cli("runs", "a.db").stdout
    assert "Next: carstore resume a.db s --tools FILE_OR_MODULE" in cli("show", "a.db", "s").stdout
    assert cli("show", "a.db", "s", "--json").json["status"] == "running"
    resumed = process("resume", "a.db", "--tools", "tools.py", "--json")
    assert resumed.code == 3
    cli("resolve", "a.db", "s", "two", "--succeeded", '"by hand"')
    resumed = process("resume", "a.db", "s", "--tools", "tools.py", "--json")
    assert resumed.code == 0
    assert [one["output"] for one in resumed.json[0]["results"]] == [2, "by hand", 6]
    kinds = [json.loads(line) for line in cli("log", "a.db", "--json").stdout.splitlines()]
    begun = [one["data"]["action_id"] for one in kinds if one["kind"] == "action_succeeded"]
    assert begun == ["one", "two", "three"]


def test_after_kill_9_the_same_command_goes_on_if_it_names_the_run(folder: Folder) -> None:
    running = begin(folder)
    running.kill()
    ended(running)
    cli("resume", "a.db", "--tools", "tools.py", "--quiet")
    cli("resolve", "a.db", "s", "two", "--succeeded", '"1"')
    assert folder.run(SLOW, "--run-id", "s", "--json").json["status"] == "succeeded"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_puts_the_run_down(folder: Folder, number: int) -> None:
    running = begin(folder)
    running.send_signal(number)
    time.sleep(0.3)
    (folder / "began.go").touch()
    code, out, err = ended(running)
    assert (code, out) == (130, "")
    assert err.endswith(
        "Error: interrupted; run s can go on\nNext: carstore resume a.db s --tools tools.py\n"
    )
    shown = cli("show", "a.db", "s", "--json").json
    assert [one["action_id"] for one in shown["results"]] == ["one", "two"]
    assert process("resume", "a.db", "--tools", "tools.py", "--quiet").code == 0


def test_a_second_signal_gives_the_call_up_and_its_thread_does_not_block_the_end(
    folder: Folder,
) -> None:
    running = begin(folder, "--json")
    running.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    code, out, err = ended(running)
    assert time.monotonic() - began < 4
    assert code == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert json.loads(out)["error"]["path"] == "s"
    assert "Next: carstore resume a.db s --tools tools.py" in err
    [doubt] = cli("doubts", "a.db", "--json").json
    assert doubt["action_id"] == "two"


def test_following_ends_with_130(ran: Folder) -> None:
    following = subprocess.Popen(
        command("log", "a.db", "--follow", "--json"), stdout=subprocess.PIPE, env=environment()
    )
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["position"] == 1
    assert process("run", "a.db", ran.plan(GOOD), "--tools", "tools.py", "--run-id", "2").code == 0
    for line in following.stdout:
        if json.loads(line)["run_id"] == "2":
            break
    following.send_signal(signal.SIGINT)
    following.stdout.close()
    assert following.wait(timeout=20) == 130


def test_following_goes_on_from_the_tail_to_the_position_that_was_named(ran: Folder) -> None:
    head = int(cli("head", "a.db").stdout.split()[0])
    options = ("--tail", "2", "--at", str(head + 3), "--follow", "--json")
    following = subprocess.Popen(
        command("log", "a.db", *options), stdout=subprocess.PIPE, env=environment()
    )
    assert following.stdout is not None
    first = [json.loads(following.stdout.readline())["position"] for _ in range(2)]
    assert process("run", "a.db", ran.plan(GOOD), "--tools", "tools.py", "--run-id", "2").code == 0
    rest = [json.loads(line)["position"] for line in following.stdout]
    following.stdout.close()
    assert first + rest == list(range(head - 1, head + 4))
    assert following.wait(timeout=20) == 0


def test_a_reader_that_goes_away_is_no_error(folder: Folder) -> None:
    many = plan(*[call(f"d{n}", "double", n=n) for n in range(400)])
    assert folder.run(many).code == 0
    log = subprocess.Popen(
        command("log", "a.db", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert log.stdout is not None
    assert log.stderr is not None
    log.stdout.readline()
    log.stdout.close()
    assert log.wait(timeout=20) == 0
    assert log.stderr.read() == b""
    log.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk to write to")
def test_a_result_that_cannot_be_told_is_no_success(ran: Folder) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("runs", "a.db"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr


def test_a_process_without_streams_still_tells_by_its_exit_code(ran: Folder) -> None:
    for words, code in ((("runs", "a.db"), 0), (("runs", "no.db"), 2)):
        line = f"exec {shlex.join(command(*words))} >&- 2>&-"
        done = subprocess.run(["sh", "-c", line], env=environment(), timeout=60)
        assert done.returncode == code


def test_an_encoding_that_lacks_a_character_is_no_error(folder: Folder) -> None:
    assert folder.run(plan(write("w", "k", "é✓"))).code == 0
    done = process("state", "a.db", PYTHONIOENCODING="ascii")
    assert done.code == 0
    assert "\\xe9\\u2713" in done.stdout


def test_an_interrupted_resume_can_be_resumed(folder: Folder) -> None:
    running = begin(folder)
    running.kill()
    ended(running)
    cli("resume", "a.db", "--tools", "tools.py", "--quiet")
    cli("resolve", "a.db", "s", "two", "--retry")
    for words in (("s",), ()):
        (folder / "began").unlink()
        resuming = subprocess.Popen(
            command("resume", "a.db", *words, "--tools", "tools.py"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        wait_for(folder / "began")
        resuming.send_signal(signal.SIGINT)
        time.sleep(0.3)
        resuming.send_signal(signal.SIGINT)
        code, out, err = ended(resuming)
        assert (code, out) == (130, "")
        again = " ".join(["carstore", "resume", "a.db", *words, "--tools", "tools.py"])
        assert err.endswith(f"Next: {again}\n")
        assert cli("resolve", "a.db", "s", "two", "--retry").code == 0
    (folder / "began.go").touch()
    assert process("resume", "a.db", "--tools", "tools.py").code == 0


# --- a terminal ---


def on_terminal(*arguments: str, **more: str) -> tuple[int, str, str]:
    """Exit code, standard output (a pipe) and what a terminal on standard error received."""
    master, slave = pty.openpty()
    running = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=slave, env=environment(**more)
    )
    os.close(slave)
    received = b""
    while True:
        try:
            if select.select([master], [], [], 30)[0]:
                received += os.read(master, 65536)
            else:
                raise AssertionError("the terminal got nothing for 30 seconds")
        except OSError:  # the other side is closed
            break
    os.close(master)
    assert running.stdout is not None
    out = running.stdout.read()
    running.stdout.close()
    return running.wait(timeout=20), out.decode(), received.decode()


NAPS = plan(
    *[call(f"nap{n}", "nap", *([f"nap{n - 1}"] if n else []), ms=120) for n in range(5)],
    call("bad", "boom", "nap1", text="\x1b[41mbad", _failure_behavior="skip"),
)


def test_on_a_terminal_a_bar_shows_how_far_the_run_is(folder: Folder) -> None:
    name = folder.plan(NAPS)
    code, out, seen = on_terminal("run", "a.db", name, "--tools", "tools.py", "--json")
    assert code == 0
    assert json.loads(out)["status"] == "succeeded"
    shown = {int(found) for found in re.findall(r"(\d+)/6", re.sub(r"\x1b\[[0-9;?]*m", "", seen))}
    assert len(shown) >= 3
    assert "\\x1b[41mbad" in seen
    assert "\x1b[41m" not in seen
    assert seen.rstrip().endswith("\x1b[2K") or "\x1b[2K" in seen  # the bar is taken away


def test_quiet_is_quiet_on_a_terminal_too(folder: Folder) -> None:
    name = folder.plan(NAPS)
    code, _, seen = on_terminal("run", "a.db", name, "--tools", "tools.py", "--json", "--quiet")
    assert (code, seen) == (0, "")


def stdout_on_terminal(*arguments: str, **more: str) -> str:
    master, slave = pty.openpty()
    running = subprocess.Popen(command(*arguments), stdout=slave, env=environment(**more))
    os.close(slave)
    received = b""
    try:
        while data := os.read(master, 65536):
            received += data
    except OSError:
        pass
    os.close(master)
    assert running.wait(timeout=20) == 0
    return received.decode()


def test_colour_is_for_terminals_that_want_it(ran: Folder) -> None:
    assert "\x1b[32m" in stdout_on_terminal("runs", "a.db")
    assert "\x1b[32m" not in stdout_on_terminal("runs", "a.db", NO_COLOR="1")
    assert "\x1b" not in process("runs", "a.db", FORCE_COLOR="1").stdout


# --- files that cannot be written ---


def without_rights(*commands: tuple[str, ...]) -> list[Done]:
    """Call each in a process in which rights on files bind: those of root do not."""
    code = (
        "import attrs, json, sys\n"
        "from tests.engine.cli.harness import cli\n"
        "done = [attrs.asdict(cli(*words)) for words in json.loads(sys.argv[1])]\n"
        "print(json.dumps(done))"
    )
    words = [sys.executable, "-c", code, json.dumps(commands)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root can write any file, and there is no setpriv")
        words = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *words]
    called = subprocess.run(words, capture_output=True, env=environment(), timeout=60)
    assert called.returncode == 0, called.stderr
    return [Done(**done) for done in json.loads(called.stdout)]


def test_what_only_reads_works_where_nothing_can_be_written(ran: Folder) -> None:
    place = ran / "readonly"
    place.mkdir()
    shutil.copy(ran / "a.db", place / "a.db")
    (place / "a.db").chmod(0o444)
    place.chmod(0o555)
    name = str(place / "a.db")
    reading: list[tuple[str, ...]] = [
        ("runs", name, "--json"),
        ("show", name, "first"),
        ("log", name, "--limit", "1"),
        ("state", name, "--at", "5"),
        ("costs", name),
        ("why", name, "n"),
        ("doubts", name),
        ("verify", name),
        ("head", name),
    ]
    try:
        *read, refused = without_rights(*reading, ("rebuild", name, "--json"))
        for words, done in zip(reading, read, strict=True):
            assert (done.code, done.stderr) == (0, ""), words
            assert done.stdout
        assert refused.code == 1
        assert refused.json["error"]["code"] == "cannot_open"
        assert [path.name for path in place.iterdir()] == ["a.db"]
    finally:
        place.chmod(0o755)


def test_asking_works_while_another_process_writes(folder: Folder) -> None:
    running = begin(folder)
    try:
        for words in (
            ("runs", "a.db"),
            ("show", "a.db", "s"),
            ("log", "a.db"),
            ("state", "a.db"),
            ("costs", "a.db"),
            ("doubts", "a.db"),
            ("verify", "a.db"),
            ("head", "a.db"),
        ):
            assert cli(*words).code == 0, words
    finally:
        (folder / "began.go").touch()
        assert ended(running)[0] == 0


def test_asking_works_while_another_program_holds_the_write_lock(ran: Folder) -> None:
    other = sqlite3.connect(ran / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        began = time.monotonic()
        for words in (("runs", "a.db"), ("show", "a.db", "first"), ("costs", "a.db")):
            assert cli(*words).code == 0
        assert time.monotonic() - began < 5
    finally:
        other.execute("ROLLBACK")
        other.close()


# Before there is a command.

STOPPED_AT_AN_IMPORT = """
import os, runpy, signal, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

wanted = sys.argv.pop(1)
assert wanted not in sys.modules
sys.meta_path.insert(0, Stop())
runpy.run_module("engine", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module",
    [
        "engine.cli.app", "click", "engine.cli.leaving", "engine.cli.run", "carstore",
        "asyncio", "carstore.sqlite.database", "engine.runtime", "projections", "engine.ir",
    ],
)  # fmt: skip
def test_ctrl_c_while_the_program_is_still_being_imported(folder: Folder, module: str) -> None:
    words = ["run", "a.db", folder.plan(GOOD), "--tools", "tools.py"]
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AT_AN_IMPORT, module, *words],
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (130, b""), done.stderr
    assert done.stderr.endswith(b"Error: interrupted\n")
    assert b"Traceback" not in done.stderr
    assert not (folder / "a.db").exists()


def test_importing_the_program_imports_nothing_heavy() -> None:
    program = "import sys, engine.cli; print([m for m in ('asyncio', 'attrs') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert done.stdout == "[]\n", done.stderr
