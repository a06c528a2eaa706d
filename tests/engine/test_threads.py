"""A call gets a thread at once, whatever the others do."""

import threading
import time

import pytest

from engine import threads as module
from engine.threads import Threads


def test_no_call_waits_for_another() -> None:
    pool, gate = Threads(), threading.Event()
    stuck = [pool.submit(gate.wait, 10) for _ in range(100)]
    assert pool.submit(lambda: 7).result(5) == 7
    gate.set()
    assert all(future.result(5) for future in stuck)


def test_threads_are_used_again() -> None:
    pool = Threads()
    first = pool.submit(threading.get_ident).result(5)
    for _ in range(100):
        time.sleep(0.001)
        if pool.submit(threading.get_ident).result(5) == first:
            return
    raise AssertionError("each call got a thread of its own")


def test_what_a_call_raises_is_told_and_the_thread_goes_on() -> None:
    pool = Threads()
    for error in (ValueError("no"), KeyboardInterrupt(), SystemExit(3)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            pool.submit(fail).result(5)
    assert pool.submit(lambda: 1).result(5) == 1


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    before = threading.active_count()
    pool = Threads()
    for future in [pool.submit(time.sleep, 0.01) for _ in range(5)]:
        future.result(5)
    for _ in range(500):
        if threading.active_count() == before:
            return
        time.sleep(0.01)
    raise AssertionError("idle threads stay")


def test_a_stuck_thread_does_not_keep_the_program_alive() -> None:
    Threads().submit(threading.Event().wait, 60)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "carstore tool")
