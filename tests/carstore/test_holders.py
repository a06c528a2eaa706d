"""Who is provably gone: with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve, fields

from carstore import holders
from carstore.errors import InvalidEvent
from carstore.holders import Holder, SystemProcesses
from carstore.names import Json

PROCESSES = SystemProcesses()
CHILD = """
import json, sys
from carstore.holders import SystemProcesses
print(json.dumps(SystemProcesses().current("child").to_json()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], Holder]]:
    """A process that waits, and what it says of itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(holders.__file__).parents[1],
    )
    assert process.stdout is not None
    try:
        yield process, Holder.from_json(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_process_is_not_gone_for_itself() -> None:
    me = PROCESSES.current("me")
    assert me.pid == os.getpid()
    assert not PROCESSES.is_gone(me)


def test_each_incarnation_is_another_holder() -> None:
    one, two = PROCESSES.current("me"), PROCESSES.current("me")
    assert one != two
    assert evolve(one, incarnation=two.incarnation) == two


def test_a_holder_comes_back_from_its_json() -> None:
    me = PROCESSES.current("me")
    assert Holder.from_json(json.loads(json.dumps(me.to_json()))) == me
    assert str(me) == f"process {os.getpid()} on {me.host}"


def test_a_living_process_is_not_gone(child: tuple[subprocess.Popen[str], Holder]) -> None:
    process, holder = child
    assert holder.pid == process.pid
    assert not PROCESSES.is_gone(holder)


def test_a_stopped_process_is_not_gone(child: tuple[subprocess.Popen[str], Holder]) -> None:
    """It may go on at any moment, and will believe that it still holds what it held."""
    process, holder = child
    os.kill(process.pid, signal.SIGSTOP)
    try:
        time.sleep(0.05)
        assert not PROCESSES.is_gone(holder)
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_killed_process_is_gone_before_its_parent_has_buried_it(
    child: tuple[subprocess.Popen[str], Holder],
) -> None:
    process, holder = child
    process.kill()
    wait_until(lambda: PROCESSES.is_gone(holder))
    os.kill(process.pid, 0)  # its rest is still there
    process.wait()
    assert PROCESSES.is_gone(holder)


def test_a_process_that_ended_is_gone(child: tuple[subprocess.Popen[str], Holder]) -> None:
    process, holder = child
    process.communicate("")
    assert process.returncode == 0
    assert PROCESSES.is_gone(holder)


def test_another_process_under_the_same_id_does_not_count(
    child: tuple[subprocess.Popen[str], Holder],
) -> None:
    _, holder = child
    assert PROCESSES.is_gone(evolve(holder, started=f"{holder.started}0"))


def test_everything_of_an_earlier_boot_is_gone() -> None:
    assert PROCESSES.is_gone(evolve(PROCESSES.current("me"), boot="an earlier one"))


@pytest.mark.parametrize("place", [{"machine": "another"}, {"machine": ""}])
def test_nothing_is_known_of_another_machine(place: dict[str, str]) -> None:
    elsewhere = evolve(PROCESSES.current("me"), boot="x", pid=2**22 + 1, **place)
    assert not PROCESSES.is_gone(elsewhere)


def test_nothing_is_known_of_another_namespace() -> None:
    elsewhere = evolve(PROCESSES.current("me"), pid_namespace="pid:[1]", pid=2**22 + 1)
    assert not PROCESSES.is_gone(elsewhere)


# What cannot be read proves nothing.


def test_a_living_process_that_may_not_be_looked_at_is_not_gone(
    child: tuple[subprocess.Popen[str], Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proc` can be mounted so that it hides the processes of other users."""
    _, holder = child
    hidden = f"/proc/{holder.pid}/"
    read = holders._text_of
    monkeypatch.setattr(
        holders, "_text_of", lambda path: "" if path.startswith(hidden) else read(path)
    )
    assert not PROCESSES.is_gone(holder)


def test_a_boot_that_cannot_be_told_proves_nothing(
    child: tuple[subprocess.Popen[str], Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, holder = child
    monkeypatch.setattr(holders, "_boot", lambda: "")
    assert not PROCESSES.is_gone(holder)
    monkeypatch.undo()
    assert not PROCESSES.is_gone(evolve(holder, boot=""))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_name_of_a_program_may_hold_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in parentheses within the line that tells the start."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        before, _, after = file.read().rpartition(")")
    started = after.split()[19]
    line = f"{before.partition('(')[0]}(a) Z 1 (b) ){after}"
    monkeypatch.setattr(holders, "_text_of", lambda _: line.strip())
    assert holders._started(os.getpid()) == started


# What is written down of a holder.


def test_a_holder_comes_back() -> None:
    me = PROCESSES.current("me")
    assert Holder.from_json(json.loads(json.dumps(me.to_json()))) == me


def test_what_a_newer_program_says_besides_is_passed_over() -> None:
    me = PROCESSES.current("me")
    assert Holder.from_json({**me.to_json(), "container": {"id": "c"}, "": None}) == me


@pytest.mark.parametrize("field", [field.name for field in fields(Holder)])
def test_a_field_that_is_missing_or_of_another_type_is_named(field: str) -> None:
    known = PROCESSES.current("me").to_json()
    without = {name: value for name, value in known.items() if name != field}
    others: tuple[Json, ...] = (None, [], 1.5, True)
    for data in (without, *[{**known, field: wrong} for wrong in others]):
        with pytest.raises(InvalidEvent, match=f"holder: {field}: missing") as refused:
            Holder.from_json(data)
        assert refused.value.code == "invalid_event"


@pytest.mark.parametrize("data", [None, 5, "me", [], ["instance"], True])
def test_what_is_no_object_is_no_holder(data: object) -> None:
    with pytest.raises(InvalidEvent, match="instance, incarnation, machine"):
        Holder.from_json(data)
