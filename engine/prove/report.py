"""What was proven, as a page for the documentation. All published figures come from such a page."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from textwrap import wrap

from carstore import __version__
from engine.prove.conduct import Attempted, Conducted
from engine.prove.proof import Figure, Scale

__all__ = [
    "BEGIN",
    "END",
    "PLANTED",
    "done",
    "figure_text",
    "headlines",
    "machine",
    "own_page",
    "page",
]

BEGIN = "<!-- figures of docs/proofs.md: begin -->"
END = "<!-- figures of docs/proofs.md: end -->"
"""Between these two lines stands, wherever figures are published, what `headlines` makes."""

PLANTED = (
    "That the proofs can fail is tried on carstore's own plans only: `carstore prove` without"
    " `--plan`."
)
"""What a proof of somebody's own plan does not tell."""

WIDTH = 100
"""Of the lines of a page, in characters, where they are prose."""

_HEADLINES = (
    (
        "kills",
        "**Killed** at random moments, {processes killed} processes: {acknowledged events lost} of"
        " {events acknowledged} events lost,"
        " {calls repeated after their completion} calls repeated.",
    ),
    (
        "killed at an operation",
        "**Killed** at a chosen write or sync, {processes killed} processes:"
        " {acknowledged events lost} events lost, {appends there in part} appends there in part.",
    ),
    (
        "power loss",
        "**Power lost**, {disk images} disks as they may be then: {acknowledged events lost} events"
        " lost, {corrupt files} corrupt files.",
    ),
    (
        "failing disk",
        "**Failing disks**, {processes on a failing disk} processes:"
        " {processes that crashed or hung} crashed or hung, {promises broken} promises broken.",
    ),
    (
        "many writers",
        "**Shared** by {processes} processes: {acknowledged appends lost} of {appends acknowledged}"
        " appends lost, {failures without a reason} failed without a reason.",
    ),
    (
        "budgets",
        "**Budgets** shared by processes, {processes killed} of them killed: {US cents spent} of"
        " {US cents allowed} cents spent, {promises broken} promises broken.",
    ),
    (
        "people and time",
        "**People** asked {requests for consent} times, {processes killed} processes killed:"
        " {promises broken} calls without consent, signals taken twice, or early wakes.",
    ),
    (
        "bit flips",
        "**Damaged** in one bit, {bits flipped, one at a time} times:"
        " {of them changed or dropped an event} changed an event, {of these not reported} of these"
        " unnoticed.",
    ),
    (
        "restart",
        "**Restarted** with {events in the file} events in the file: at work in"
        " {ready, p95 ms} ms (p95; of the processor, {of the processor, median ms} ms).",
    ),
)
"""Sentences with the figures of a proof, for those who read no table."""


def page(
    conducted: Sequence[Conducted], attempted: Sequence[Attempted], scale: Scale, seed: int
) -> str:
    """The whole page, in Markdown."""
    rows = [f"| {one.proof.name} | {one.proof.promise} | {_verdict(one)} |" for one in conducted]
    parts = [
        "# Proofs",
        "Made by `carstore prove --report`; do not edit. What each promise means stands in\n"
        "[guarantees.md](guarantees.md); how to run the proofs yourself, also on your own plan,\n"
        "in [cli.md](cli.md#carstore-prove).",
        f"Scale `{scale}`, seed {seed}, carstore {__version__}. {machine()}.",
        f"{BEGIN}\n{headlines(conducted)}\n{END}",
        "| proof | promise | holds |\n|---|---|---|\n" + "\n".join(rows),
        "## What was done",
        *[f"### {one.proof.name}\n\n{done(one)}" for one in conducted],
    ]
    if attempted:
        parts += ["## Can the proofs fail?", _CAN_FAIL, _table_of(attempted)]
    return "\n\n".join(parts) + "\n"


def own_page(one: Conducted, scale: Scale, seed: int) -> str:
    """The page of a proof with somebody's own plan. It links nowhere: it stands anywhere."""
    broken = [f"* {line}" for line in one.outcome.broken]
    parts = [
        "# Proof of a plan",
        "Made by `carstore prove --plan --report`.",
        f"Scale `{scale}`, seed {seed}, carstore {__version__}. {machine()}.",
        f"{one.proof.promise} Holds: {_verdict(one)}.",
        *(["## What was found", "\n".join(broken)] if broken else []),
        "## What was done",
        done(one),
        *one.outcome.notes,
        PLANTED,
    ]
    return "\n\n".join(parts) + "\n"


_CAN_FAIL = (
    "A proof that cannot fail proves nothing. So each promise is also broken on purpose, and the\n"
    "proof that is named must notice."
)


def _table_of(attempted: Sequence[Attempted]) -> str:
    rows = []
    for one in attempted:
        caught = "not tried: " + one.skipped if one.skipped else "no" if one.missed else "yes"
        broken = one.breakage
        rows.append(f"| {broken.name} | {broken.what} | {broken.caught_by} | {caught} |")
    return "| broken | how | must be noticed by | noticed |\n|---|---|---|---|\n" + "\n".join(rows)


def headlines(conducted: Sequence[Conducted]) -> str:
    """One sentence for each proof that has one and was run, as a list in Markdown."""
    figures = {one.proof.name: one.outcome.figures for one in conducted if one.outcome.holds}
    lines = []
    for name, sentence in _HEADLINES:
        if name in figures:
            told = {key: figure_text(value) for key, value in figures[name].items()}
            lines += wrap(f"* {sentence.format_map(told)}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def done(one: Conducted) -> str:
    """What a proof did and counted, as a list in Markdown."""
    if one.outcome.skipped is not None:
        return f"skipped: {one.outcome.skipped}"
    return "\n".join(f"* {name}: {figure_text(x)}" for name, x in one.outcome.figures.items())


def figure_text(value: Figure) -> str:
    """A figure for people."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def machine() -> str:
    """On what it was run, without names."""
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), {platform.system()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _verdict(one: Conducted) -> str:
    if one.outcome.skipped is not None:
        return "not tried"
    return "yes" if one.outcome.holds else "**no**"
