"""All that commands print goes through here.

What is printed comes from plans, tools and files, so it may hold anything. `safe` is the one
function that makes it harmless for a terminal; JSON is printed in ASCII, which is harmless too.
Standard output carries results and nothing else; whatever is said about the work goes to standard
error. A reader that has gone away (`carstore log DB | head`) is no error: the rest is not printed.
"""

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, TextIO, TypeAlias

from carstore import canonical
from carstore.names import Json
from engine.cli.leaving import silence
from engine.problems import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

__all__ = [
    "Cell",
    "brief",
    "dollars",
    "duration",
    "gone",
    "print_csv",
    "print_json",
    "print_json_line",
    "safe",
    "say",
    "show",
    "status_text",
    "table",
    "text",
    "to_terminal",
    "write",
]

Cell: TypeAlias = "Text"
"""What stands in a table; made by `text`."""

MAX_VALUE_CHARS = 200
"""Characters shown of one value in a table; `--json` prints all of it."""

MAX_FITTED_ROWS = 1_000
"""Rows of a table that is fitted to the terminal, which takes a third of a millisecond a row."""

PIPE_COLUMNS = 4_000
"""Width for what does not go to a terminal: nothing there is wrapped for the eye."""

_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "rejected": "red",
    "cancelled": "red",
    "partially_compensated": "red",
    "rolled_back": "magenta",
    "skipped": "yellow",
    "waiting": "yellow",
    "in doubt": "yellow",
    "running": "cyan",
}


def safe(value: object) -> str:
    """`value` as text in which nothing can act on a terminal: controls, escape sequences, marks
    that turn the direction of writing, and line ends are written as `\\x1b`, `\\u202e`, `\\n`."""
    return printable(str(value))


def brief(value: Json, chars: int = MAX_VALUE_CHARS) -> str:
    """A JSON value on one line, safe, and cut if it is long."""
    found = safe(canonical.dumps(value))
    return found if len(found) <= chars else f"{found[: chars - 3]}..."


def text(value: object, style: str = "") -> "Text":
    """`value` for tables and trees: safe, and never read as markup."""
    from rich.text import Text

    return Text(safe(value), style=style)


def status_text(status: str) -> "Text":
    """A status in its colour."""
    return text(status, _STYLES.get(status, ""))


def duration(milliseconds: float | None) -> str:
    """A duration for people; nothing for none, or one that is not known."""
    if not milliseconds:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds / 1000:.2f} s"


def dollars(micros: int) -> str:
    """Millionths of a US dollar as dollars, exactly."""
    sign, whole = ("-" if micros < 0 else ""), abs(micros)
    return f"{sign}${whole // 1_000_000}.{whole % 1_000_000:06d}"


def money(micros: int, currency: str) -> str:
    """Millionths of a unit of some currency, exactly: `$1.500000`, or `1.50 EUR`."""
    if currency == "USD":
        return dollars(micros)
    sign, whole = ("-" if micros < 0 else ""), abs(micros)
    cents, rest = divmod(whole % 1_000_000, 10_000)
    decimals = f"{cents:02d}" + (f"{rest:04d}".rstrip("0") if rest else "")
    return f"{sign}{whole // 1_000_000}.{decimals} {currency}"


# --- standard output ---


def print_json(document: Json) -> None:
    """Print one JSON document, in ASCII."""
    write_raw(_ascii(document, indent=2))


def print_json_line(document: Json) -> None:
    """The same on one line."""
    write_raw(_ascii(document, indent=None))


def print_csv(titles: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> None:
    """Print CSV (RFC 4180, but for line ends), a line of titles first. On a terminal each text is
    made safe; elsewhere it is exactly what it is, for programs."""
    terminal = sys.stdout.isatty()
    for row in [titles, *rows]:
        cells = [safe(cell) if terminal and isinstance(cell, str) else cell for cell in row]
        line = StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(cells)
        write_raw(line.getvalue().removesuffix("\r\n"))


def write(line: str) -> None:
    """Print a line of text for people."""
    write_raw(safe(line))


def show(renderable: "RenderableType") -> None:
    """Print a table, a tree or a text whose parts were made by `text`."""
    console = _console(sys.stdout)
    console.print(renderable)
    assert isinstance(console.file, StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    write_raw("\n".join(lines))


def table(titles: Sequence[str], rows: "Iterable[Sequence[Cell]]") -> None:
    """Print a table. Titles that begin with `>` are those of columns of numbers."""
    held = list(rows)
    if sys.stdout.isatty() and len(held) <= MAX_FITTED_ROWS:
        _fitted_table(titles, held)
    else:
        _plain_table(titles, held)


def _fitted_table(titles: Sequence[str], rows: "Sequence[Sequence[Cell]]") -> None:
    """As wide as the terminal; what does not fit is broken within its column."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        right = title.startswith(">")
        made.add_column(
            title.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*row)
    show(made)


def _plain_table(titles: Sequence[str], rows: "Sequence[Sequence[Cell]]") -> None:
    """As wide as it needs to be, a line for each row."""
    from rich.cells import cell_len

    lines = [[title.removeprefix(">") for title in titles]]
    lines += [[cell.plain for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = []
        for title, width, value in zip(titles, widths, line, strict=True):
            blank = " " * (width - cell_len(value))
            padded.append(blank + value if title.startswith(">") else value + blank)
        write_raw("  ".join(padded).rstrip())


def write_raw(line: str) -> None:
    """Print a line that is known to be safe."""
    _print(sys.stdout, f"{line}\n")


def to_terminal() -> bool:
    """Whether standard output is a terminal: colour says something only there."""
    return sys.stdout.isatty()


def gone() -> bool:
    """Whether nobody reads standard output any more."""
    return bool(_without_reader)


# --- standard error ---


def say(message: str) -> None:
    """Say something about the work, in one or several lines."""
    _print(sys.stderr, "".join(f"{safe(line)}\n" for line in message.split("\n")))


# --- parts ---

_without_reader: set[int] = set()
"""File numbers of standard output that nobody reads any more; one at most."""


def _print(stream: TextIO, lines: str) -> None:
    try:
        stream.write(lines)
        stream.flush()
    except BrokenPipeError:
        if stream is sys.stdout:
            _without_reader.add(stream.fileno())
        silence(stream)


def _ascii(document: Json, indent: int | None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    # DEL is the one control character of ASCII that JSON does not escape.
    return json.dumps(document, indent=indent, separators=separators).replace("\x7f", "\\u007f")


def _console(stream: TextIO) -> "Console":
    """Renders as `stream` needs it, into memory, so that only `_print` meets the stream."""
    from rich.console import Console

    terminal = stream.isatty()
    return Console(
        file=StringIO(),
        force_terminal=terminal,
        force_jupyter=False,
        width=shutil.get_terminal_size().columns if terminal else PIPE_COLUMNS,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
