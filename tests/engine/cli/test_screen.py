"""What is printed cannot act on a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli import screen
from tests.engine.cli.harness import Folder, call, cli, plan, write

NASTY = "a\x1b[31m\x07\r\n\x9b\u202e\u2066\x7f\u2028[bold]b[/bold]:smile:"


def is_harmless(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp") for c in text)


@given(st.text())
def test_safe_text_holds_nothing_that_acts(text: str) -> None:
    assert is_harmless(screen.safe(text))


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert screen.safe(text) == text


def test_escapes_are_written_out() -> None:
    assert screen.safe("\x1b\n\u202e\x7f") == "\\x1b\\n\\u202e\\x7f"


def test_text_is_no_markup() -> None:
    assert screen.text("[bold]x[/bold] :smile:").plain == "[bold]x[/bold] :smile:"


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_json_is_printable_ascii_and_says_the_same(value: object) -> None:
    text = screen._ascii(value, indent=None)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


def test_long_values_are_cut() -> None:
    assert len(screen.brief("x" * 10_000)) == screen.MAX_VALUE_CHARS
    assert screen.brief([1, {"a": None}]) == '[1,{"a":null}]'


@pytest.mark.parametrize(
    ("micros", "said"),
    [(0, "$0.000000"), (1, "$0.000001"), (-1, "-$0.000001"), (12_345_678, "$12.345678")],
)
def test_money_is_exact(micros: int, said: str) -> None:
    assert screen.dollars(micros) == said
    assert screen.money(micros, "USD") == said


@pytest.mark.parametrize(
    ("micros", "said"),
    [
        (0, "0.00 EUR"),
        (1_500_000, "1.50 EUR"),
        (1, "0.000001 EUR"),
        (-1_050_000, "-1.05 EUR"),
        (12_345_670, "12.34567 EUR"),
    ],
)
def test_other_currencies_are_named_and_exact_too(micros: int, said: str) -> None:
    assert screen.money(micros, "EUR") == said


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(None, ""), (0, ""), (0.04, "0.0 ms"), (12.34, "12.3 ms"), (61_234, "61.23 s")],
)
def test_durations(milliseconds: float | None, said: str) -> None:
    assert screen.duration(milliseconds) == said


def test_no_command_prints_what_a_plan_smuggled_in(folder: Folder) -> None:
    content = plan(
        write("w", "k", NASTY),
        call("f", "boom", "w", text=NASTY, _failure_behavior="skip"),
    )
    name = folder.plan(content)
    outputs = [cli("run", "a.db", name, "--tools", "tools.py", "--run-id", "x")]
    for command in (("runs",), ("show", "x"), ("log",), ("state",), ("why", "k"), ("costs",)):
        words = (command[0], "a.db", *command[1:])
        outputs += [cli(*words), cli(*words, "--json")]
    outputs.append(cli("state", "a.db", "--scope", NASTY))
    outputs.append(cli("show", "a.db", NASTY))
    outputs.append(cli("log", "a.db", "--kind", NASTY))
    outputs.append(cli("run", NASTY, name, "--tools", NASTY))
    outputs.append(cli("runs", f"{NASTY}.db"))
    outputs.append(cli(NASTY))
    outputs.append(cli("runs", f"--{NASTY}"))
    for done in outputs:
        for line in (done.stdout + done.stderr).split("\n"):
            assert is_harmless(line), line
    assert cli("state", "a.db", "--json").json == {"k": NASTY}
    assert "[bold]b[/bold]:smile:" in outputs[0].stdout
