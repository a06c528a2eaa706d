"""`python -m benchmarks.report FIGURES.json FILE.md`: the figures as a page, and two plots.

The page is nothing but the figures in another form, so a test can compare the two. The plots need
matplotlib; they go to the folder `images` beside the page.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

TITLES = {
    "append": "Appending",
    "append-history": "Appending with a long history",
    "curve-history": "Rate of appends against the length of the history",
    "curve-producers": "Waiting time of an append against the number of producers",
    "read": "Folding and reading",
    "fold-eventsourcing": "Folding, against eventsourcing",
    "follow": "Following",
    "views": "Views",
    "plans": "Plans of state",
    "scheduler": "The scheduler alone",
    "stages": "The stages of an action alone",
    "syncs": "Syncs",
    "resume": "After a kill",
    "imports": "Imports",
    "steps-dbos": "Steps, against DBOS",
    "steps-langgraph": "Steps, against LangGraph",
    "steps-durabl": "Steps, against durabl",
    "steps-eventsourcing": "Saves, against eventsourcing",
}
"""In the order of the page; what is not here comes last, under its own name."""

PLOTS = {
    "curve-history": ("history.svg", "Rate of appends by length of the history"),
    "curve-producers": ("producers.svg", "Waiting time by number of producers"),
}


def page(figures: dict[str, Any]) -> str:
    """The page that says what `figures` do."""
    machine = figures["machine"]
    named = ", ".join(f"{name} {value}" for name, value in machine.items() if name != "system")
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench ARGS='--long --json docs/benchmarks.json'` and",
        "`python -m benchmarks.report docs/benchmarks.json docs/benchmarks.md`. Absolute figures",
        "are those of one machine; ratios are to what was measured in the same run, in turn.",
        "",
        f"Measured on: {machine['system']}, {named}.",
        "",
    ]
    benchmarks = figures["benchmarks"]
    for name in [*TITLES, *sorted(set(benchmarks) - set(TITLES))]:
        if name in benchmarks:
            lines += [*_section(name, benchmarks[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"## {TITLES.get(name, name)}", ""]
    if name in PLOTS:
        file, caption = PLOTS[name]
        lines += [f"![{caption}](images/{file})", ""]
    details = list(dict.fromkeys(key for row in rows for key in row["details"]))
    shown = [key for key in details if key not in ("history", "producers")]
    heads = ["Case", "Measured", "Against", "Ratio", "Goal", "Met", *map(_words, shown)]
    lines += [_line(heads), _line(["---", *["---:"] * 3, "---", "---", *["---:"] * len(shown)])]
    for row in rows:
        met = {None: "", True: "yes", False: "no"}[row["met"]]
        lines.append(
            _line(
                [
                    row["case"],
                    f"{figure(row['measured'])} {row['unit']}",
                    f"{figure(row['reference'])} {row['against']}".strip(),
                    figure(row["ratio"]),
                    _goal(row["goal"]),
                    met,
                    *[figure(row["details"].get(key)) for key in shown],
                ]
            )
        )
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _words(name: str) -> str:
    return name.replace("_", " ")


def figure(number: float | None) -> str:
    """A number for people: three digits, or all of those before the point."""
    if number is None:
        return ""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _goal(goal: dict[str, float | None] | None) -> str:
    if goal is None:
        return ""
    signs = (("at_least", "at least"), ("at_most", "at most"))
    return ", ".join(f"{words} {goal[name]:g}" for name, words in signs if goal[name] is not None)


def plot(figures: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what the curves measured; the files made."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "carstore", "font.size": 9, "svg.fonttype": "none"})
    drawn = []
    for name, draw in (("curve-history", _history), ("curve-producers", _producers)):
        if name in figures["benchmarks"]:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / PLOTS[name][0]
            made = draw(figures["benchmarks"][name])
            made.savefig(path, metadata={"Date": None, "Creator": None})
            drawn.append(path)
    return drawn


def _history(rows: Sequence[dict[str, Any]]) -> Any:
    made, axes = _axes("events in the log", "events/s")
    lengths = [max(1, row["details"]["history"]) for row in rows]
    axes.plot(lengths, [row["measured"] for row in rows], marker="o", label="on this log")
    axes.plot(
        lengths, [row["reference"] for row in rows], marker=".", ls="--", label="on a new log"
    )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _in_plain_numbers(axes)
    return made


def _producers(rows: Sequence[dict[str, Any]]) -> Any:
    made, axes = _axes("producers", "milliseconds for one append")
    numbers = [row["details"]["producers"] for row in rows]
    for key, label in (("p50_ms", "median"), ("p99_ms", "99th percentile")):
        axes.plot(numbers, [row["details"][key] for row in rows], marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    _in_plain_numbers(axes)
    return made


def _in_plain_numbers(axes: Any) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda number, _: f"{number:,.10g}")


def _axes(across: str, up: str) -> Any:
    from matplotlib.figure import Figure

    made = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = made.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return made, axes


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def main(source: Path, target: Path) -> None:
    """Write the page TARGET and its plots from the figures in SOURCE."""
    figures = json.loads(source.read_text(encoding="utf-8"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(figures), encoding="utf-8")
    for path in plot(figures, target.parent / "images"):
        click.echo(f"drawn: {path}")


if __name__ == "__main__":
    main()
