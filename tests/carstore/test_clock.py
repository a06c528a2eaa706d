"""Clocks."""

import time

from carstore.clock import ManualClock, SystemClock


def test_the_wall_clock_tells_microseconds_since_1970() -> None:
    before, now, after = time.time(), SystemClock().now(), time.time()
    assert before - 0.001 <= now / 1e6 <= after + 0.001


def test_the_clock_of_the_boot_never_steps_back() -> None:
    clock = SystemClock()
    readings = [clock.boot() for _ in range(1000)]
    assert readings == sorted(readings)
    time.sleep(0.01)
    assert 10_000 <= clock.boot() - readings[-1] < 5_000_000


def test_a_manual_clock_moves_when_told_to() -> None:
    clock = ManualClock(wall=100, booted=7)
    assert (clock.now(), clock.boot()) == (clock.now(), clock.boot()) == (100, 7)
    clock.advance(5)
    assert (clock.now(), clock.boot()) == (105, 12)
    clock.wall -= 50
    assert (clock.now(), clock.boot()) == (55, 12)
