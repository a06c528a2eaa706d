"""How far something long is."""

import io
import sys

import pytest

from engine.cli.meter import Meter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_once_a_second_and_not_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Meter("view costs: folded", clock=clock) as meter:
        for tenth in range(25):
            clock.now = tenth / 10
            meter(tenth * 1000, 24_000)
    assert capsys.readouterr().err.splitlines() == [
        "view costs: folded 10,000 of 24,000 events, 10,000 a second, 1 s left",
        "view costs: folded 20,000 of 24,000 events, 10,000 a second, 0 s left",
    ]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("checked") as meter:
        meter(1, 2)
        meter(2, 2)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    clock = Clock()
    with Meter("view \x1b[31m: folded", clock=clock) as meter:
        meter(0, 24_000)
        assert terminal.getvalue() == ""
        for tenth in range(10, 25):
            clock.now = tenth / 10
            meter(tenth * 1000, 24_000)
    written = terminal.getvalue()
    assert "24000/24000" in written.replace(",", "")
    assert "\\x1b[31m" in written, "what is in a name does not act on the terminal"
    assert "\x1b[2K" in written.rpartition("24000")[2], "the line is cleared at the end"
