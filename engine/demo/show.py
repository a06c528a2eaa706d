"""What people see of the demonstration: how it goes, on standard error, and what came of it."""

import os
import shlex
import shutil
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from engine.cli import screen
from engine.demo.calls import Kill
from engine.demo.outcome import Outcome
from engine.demo.plan import RUN_ID
from engine.demo.walk import Listing

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Progressing", "show_outcome", "try_next"]

REPORT_LINES = 12
"""First lines of the report that are shown."""


class Progressing:
    """Tells how it goes: with a bar on a terminal, else in a line for each thing that happens."""

    def __init__(self, actions: int) -> None:
        self._actions = actions
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._is_first = True

    def __enter__(self) -> "Progressing":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("starting", total=self._actions)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, pid: int) -> None:
        what = f"process {pid} {'begins' if self._is_first else 'resumes'} the run"
        self._is_first = False
        self._describe(f"process {pid}")
        self._say(what)

    def progressed(self, settled: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=settled)

    def killed(self, kill: Kill) -> None:
        done = len(kill.completed)
        share = f"{done} of {self._actions} actions, {100 * done // self._actions} %"
        self._say(f"process {kill.pid} killed with SIGKILL at {share}", "bold red")

    def _describe(self, what: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what)

    def _say(self, line: str, style: str = "") -> None:
        if self._bar is None:
            screen.say(line)
        else:
            self._bar.console.print(screen.text(line, style), highlight=False)


def show_outcome(outcome: Outcome, listing: Listing, seconds: float) -> None:
    """Print the result."""
    verdict, verification = outcome.verdict, outcome.verification
    of_how_many = f" of {listing.seen:,}" if listing.beyond or listing.is_cut else ""
    or_more = " or more" if listing.is_cut else ""
    settled = " and ".join(str(len(kill.completed)) for kill in outcome.kills)
    repeatable = ", all of tools that say they can be repeated" if verdict.made_again else ""
    chain = f"verified, {verification.head.position:,} events" if verification.ok else "FAULTY"
    files = f"{len(listing.files):,}{of_how_many}{or_more} files"
    screen.write(f"{outcome.actions} actions over {files} of {listing.root}")
    screen.write("")
    _fact("killed with SIGKILL", f"{len(outcome.kills)} times, after {settled} actions")
    _fact("completed actions run again", str(len(verdict.run_again)), is_good=not verdict.run_again)
    _fact("calls in flight when killed, made again", f"{verdict.made_again}{repeatable}")
    _fact("chain", chain, is_good=verification.ok)
    _fact("run", f"{outcome.status} in {seconds:.1f} s", is_good=outcome.status == "succeeded")
    _fact("report", str(outcome.place.report))
    screen.write("")
    _show_report(outcome)
    _show_costs(outcome)
    for sentence in outcome.broken:
        _fact("BROKEN", sentence, is_good=False)
    screen.write("try next")
    for command in try_next(outcome):
        screen.write(f"  {command}")


def try_next(outcome: Outcome) -> list[str]:
    """Three commands on the file that was left, to be pasted into a shell."""
    database = str(outcome.place.database)
    if database.startswith("-"):
        database = f"./{database}"
    first = outcome.kills[0].position if outcome.kills else outcome.verification.head.position
    return [
        command_line("why", database, "files/looked_into"),
        command_line("state", database, "--at", str(first)),
        command_line("show", database, RUN_ID),
    ]


def command_line(*words: str) -> str:
    """A command for this very program, as it can be called from here."""
    called, found = sys.argv[0], shutil.which("carstore")
    if os.path.basename(called) == "carstore" and os.path.exists(called):
        is_found = found is not None and os.path.samefile(found, called)
        return shlex.join(["carstore" if is_found else called, *words])
    return shlex.join([sys.executable, "-m", "engine.cli", *words])


def _fact(name: str, value: str, is_good: bool | None = None) -> None:
    from rich.text import Text

    style = {None: "", True: "bold green", False: "bold red"}[is_good]
    screen.show(Text.assemble(f"  {name}: ", screen.text(value, style)))


def _show_report(outcome: Outcome) -> None:
    try:
        lines = outcome.place.report.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # that there is none is told among the broken promises
    from rich.text import Text

    for line in lines[:REPORT_LINES]:
        screen.show(Text.assemble("  | ", screen.text(line, "dim")))
    screen.write("")


def _show_costs(outcome: Outcome) -> None:
    cells = [
        [
            f"  {cost.agent}",
            f"{cost.calls:,}",
            f"{cost.tokens_in:,}",
            f"{cost.tokens_out:,}",
            screen.money(cost.cost_micros, cost.currency),
        ]
        for cost in outcome.costs
    ]
    titles = ["  agent", ">calls", ">tokens in", ">tokens out", ">cost"]
    screen.write("cost by agent")
    screen.table(titles, [list(map(screen.text, row)) for row in cells])
    screen.write("")
