"""`python -m tests.proofs`: run the proofs at length and print their figures.

Exit code 1 if a promise was broken, or if a breakage on purpose was not caught.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.proofs.broken import BREAKAGES, Breakage
from tests.proofs.kill_loop import Figures, campaign
from tests.proofs.short import PROOFS, prove

PROMISES = {
    "lost": "acknowledged events lost",
    "partial": "appends there in part",
    "gap": "gaps, or breaks in the chain",
    "chain": "problems found by verify",
    "views": "view rows that differ from a rebuild",
    "repeated": "calls repeated after their completion",
    "no intent": "calls without a durable intent",
    "resumed twice": "runs driven by two at once",
    "compensation": "runs undone otherwise than once, in reverse",
    "outcome": "runs that ended otherwise than planned",
}
"""What the kill loop counts; all must be 0."""


def main() -> int:
    options = _options()
    console = Console()
    with console.status("killing processes") as status:

        def progress(figures: Figures) -> None:
            status.update(f"killing processes: {figures.kills:,} of {options.kills:,}")

        figures = campaign(options.kills, seed=options.seed, progress=progress)
    console.print(_table(figures, options.seed))
    for text in figures.broken[:20]:
        console.print(text, markup=False, highlight=False)
    ok = not figures.broken
    checks = Table("proof", "holds", title="Without kills", title_justify="left")
    for name in PROOFS:
        found = _short(name)
        ok = ok and not found
        checks.add_row(name, "; ".join(found) or "yes")
    console.print(checks)
    if not options.no_broken:
        ok = _broken(console, options.seed) and ok
    return 0 if ok else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000, help="processes to kill (1,000)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the moments")
    parser.add_argument("--no-broken", action="store_true", help="leave out the broken variants")
    return parser.parse_args()


def _table(figures: Figures, seed: int) -> Table:
    table = Table("what", "figure", title=f"SIGKILL at random moments (seed {seed})")
    table.title_justify = "left"
    for what, figure in (
        ("processes killed", figures.kills),
        ("  of them while recovering", figures.while_recovering),
        ("  of them while a run was on its way back", figures.while_compensating),
        ("rounds with two processes at once", figures.two_at_once),
        ("files", figures.files),
        ("runs finished", figures.runs),
        ("events acknowledged", figures.acknowledged),
        ("tool calls", figures.calls),
        ("attempts in doubt", figures.in_doubt),
    ):
        table.add_row(what, f"{figure:,}")
    table.add_row("seconds", f"{figures.seconds:,.0f}", end_section=True)
    for name, what in PROMISES.items():
        table.add_row(
            what, f"{figures.counts[name]:,}", style="red" if figures.counts[name] else ""
        )
    return table


def _short(name: str) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="carstore-proof-") as folder:
        return prove(name, Path(folder))


def _broken(console: Console, seed: int) -> bool:
    table = Table(
        "broken on purpose", "how", "caught by", title="Can the proofs fail?", title_justify="left"
    )
    caught_all = True
    for breakage in BREAKAGES.values():
        how = _caught(breakage, seed)
        caught_all = caught_all and bool(how)
        table.add_row(breakage.name, breakage.what, how or "[red]not caught[/red]")
    console.print(table)
    return caught_all


def _caught(breakage: Breakage, seed: int) -> str:
    if breakage.caught_by == "kills":
        figures = campaign(300, seed=seed, broken=breakage.name, alone=True, most_seconds=60)
        names = ", ".join(PROMISES[name] for name in figures.counts)
        return f"{figures.kills} kills: {names}" if names else ""
    with breakage.applied():
        return breakage.caught_by if _short(breakage.caught_by) else ""


if __name__ == "__main__":
    sys.exit(main())
