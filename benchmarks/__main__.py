"""`python -m benchmarks [NAME ...] [--quick] [--long] [--folder DIR] [--json FILE]`"""

import json
import os
import pkgutil
import platform
import sqlite3
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import click
from attrs import asdict
from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.harness import BENCHMARKS, Options, Row, Skipped
from benchmarks.report import figure


def find() -> None:
    """Import every module of this package, so that its benchmarks register."""
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name != "__main__":
            import_module(f"benchmarks.{module.name}")


def machine() -> dict[str, str]:
    """Where the figures come from."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }


def _processor() -> str:
    """Its model, where the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def table(name: str, rows: list[Row]) -> Table:
    """The rows of one benchmark for people."""
    drawn = Table(title=name, title_justify="left", title_style="bold")
    drawn.add_column("case")
    drawn.add_column("", justify="right")
    drawn.add_column("against", justify="right")
    for heading in ("ratio", "goal"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    details = list(dict.fromkeys(key for row in rows for key in row.details))
    for key in details:
        drawn.add_column(key.replace("_", " "), justify="right")
    for row in rows:
        colour = {None: "default", True: "green", False: "red"}[row.is_met]
        drawn.add_row(
            row.case,
            f"{figure(row.measured)} {row.unit}".strip(),
            f"{figure(row.reference)} {row.against}".strip(),
            f"[{colour}]{figure(row.ratio)}[/]",
            f"[{colour}]{row.goal or ''}[/]",
            *[figure(row.details.get(key)) for key in details],
        )
    return drawn


@click.command()
@click.argument("names", nargs=-1)
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; noisier.")
@click.option("--long", "long_", is_flag=True, help="Also what takes minutes to prepare.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the database files go. Default: a temporary folder.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures there."
)
def main(
    names: tuple[str, ...], quick: bool, long_: bool, folder: Path | None, json_file: Path | None
) -> None:
    """Measure NAMES, or everything, and print how it compares."""
    find()
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise click.BadParameter(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    options = Options(quick=quick, long=long_, folder=folder)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    figures: dict[str, list[Row]] = {}
    for name in names or sorted(BENCHMARKS):
        try:
            rows = BENCHMARKS[name](options)
        except Skipped as missing:
            console.print(f"{name}: skipped, {missing}")
            continue
        figures[name] = rows
        console.print(table(name, rows))
    if json_file:
        asked = {"quick": quick, "long": long_}  # not where: a folder is nobody's business
        report = {"machine": machine(), "options": asked, "benchmarks": _plain(figures)}
        json_file.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


def _plain(figures: dict[str, list[Row]]) -> dict[str, list[dict[str, object]]]:
    return {
        name: [{**asdict(row), "ratio": row.ratio, "met": row.is_met} for row in rows]
        for name, rows in figures.items()
    }


if __name__ == "__main__":
    main()
