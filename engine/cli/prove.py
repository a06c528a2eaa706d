"""`carstore prove`: try to break every promise, and say what came of it."""

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import define

from carstore.names import Json
from engine.cli.errors import BadUsage, Interrupted
from engine.cli.exits import Exit
from engine.cli.options import json_option
from engine.cli.screen import print_json, say, table, text, write

if TYPE_CHECKING:
    from engine.prove.conduct import Attempted, Conducted
    from engine.prove.plan import OwnPlan
    from engine.prove.proof import Proof, Scale

__all__ = ["prove"]

MAX_KILLS = 1_000_000

SAY_SECONDS = 10.0
"""How often a proof says what it is at, where there is no terminal."""

MAX_TOLD = 20
"""Broken promises of one proof that are told; each is the same mistake again, most likely."""


@click.command()
@click.option("--plan", metavar="FILE", help="Prove it on a plan of your own: a JSON file.")
@click.option("--tools", metavar="FILE_OR_MODULE", help="The tools of that plan.")
@click.option(
    "--scale",
    type=click.Choice(["short", "normal", "long"]),
    default="normal",
    show_default=True,
    help="How much is tried: about a minute, some minutes, or an hour.",
)
@click.option(
    "--kills",
    type=click.IntRange(1, MAX_KILLS),
    metavar="N",
    help="How many processes are killed at random moments, instead of what the scale says.",
)
@click.option(
    "--on-doubt",
    type=click.Choice(["hold", "fail", "retry"]),
    default="hold",
    show_default=True,
    help="With --plan: what to do about a call whose outcome nobody knows.",
)
@click.option("--seed", type=int, metavar="S", help="Of all that is random; drawn if not given.")
@click.option("--only", metavar="NAME", multiple=True, help="Only this proof; may be repeated.")
@click.option(
    "--no-broken", is_flag=True, help="Leave out the question whether the proofs can fail."
)
@json_option
@click.option(
    "--report", metavar="FILE", type=click.Path(dir_okay=False), help="Write a page of Markdown."
)
def prove(
    plan: str | None,
    tools: str | None,
    scale: "Scale",
    kills: int | None,
    on_doubt: str,
    seed: int | None,
    only: tuple[str, ...],
    no_broken: bool,
    as_json: bool,
    report: str | None,
) -> int:
    """Try to break what is promised, with real processes and files, and print the figures.

    Processes are killed, stopped and starved, disks fail, clocks jump, bits flip. Then each promise
    is broken on purpose, to see that the proofs can fail. With --plan and --tools it is your own
    plan that is killed and resumed; its tools are really called, many times.

    There is no DB: every proof makes files of its own and removes them. Ends with 1 if a promise
    was broken; then the files are kept.
    """
    drawn = random.randrange(10**6) if seed is None else seed
    own = _own_plan(plan, tools, on_doubt, kills, only)
    chosen = _chosen(only, kills) if own is None else _own(own)
    _check_writable(report)
    live = Live()
    say(f"seed {drawn}" + ("" if own is None else "; the plan's tools are really called"))
    try:
        conducted = _conducted(chosen, scale, drawn, live)
        attempted = [] if no_broken or own else _attempted(chosen, drawn, live)
    except KeyboardInterrupt:
        live.end()
        raise Interrupted(None, "interrupted; the processes of the proof are ended") from None
    if report is not None:
        from engine.prove.report import page

        Path(report).write_text(page(conducted, attempted, scale, drawn), encoding="utf-8")
    if as_json:
        print_json(_json(conducted, attempted, scale, drawn))
    elif own is not None:
        _tell_own(conducted[0])
    else:
        _tell(conducted, attempted)
    held = not any(one.outcome.broken for one in conducted)
    return Exit.DONE if held and not any(one.missed for one in attempted) else Exit.FAILED


# --- what is asked for ---


def _own_plan(
    plan: str | None, tools: str | None, on_doubt: str, kills: int | None, only: Sequence[str]
) -> "OwnPlan | None":
    """What --plan and --tools name, checked.

    Raises:
        BadUsage, NotFound, InvalidProposal, InvalidTool, ToolsNotFound
    """
    if plan is None and tools is None:
        if on_doubt != "hold":
            raise BadUsage("--on-doubt", "needs --plan and --tools; it says how that plan goes on")
        return None
    if plan is None or tools is None:
        raise BadUsage(
            "--plan" if plan is None else "--tools",
            "--plan FILE and --tools FILE.py belong together",
        )
    if only:
        raise BadUsage("--only", "names a proof of carstore itself; leave it out with --plan")
    from engine.cli.redirect import tools_print_to_stderr
    from engine.cli.run import read_plan
    from engine.plan_json import parse_proposal
    from engine.propose import tools_named
    from engine.prove.plan import OwnPlan
    from engine.tools import load_tools

    content = read_plan(plan)
    proposal = parse_proposal(content)
    with tools_print_to_stderr():
        known = load_tools(tools)
    missing = sorted(set(tools_named(proposal.actions, known)) - set(known.names()))
    if missing:
        raise BadUsage("--tools", f"{tools} has no tool {', '.join(missing[:5])}")
    path = Path(tools)
    spec = str(path.resolve()) if path.is_file() else tools
    return OwnPlan(plan=content, tools=spec, on_doubt=on_doubt, kills=kills)


def _own(own: "OwnPlan") -> "list[Proof]":
    from engine.prove.plan import plan_proof

    return [plan_proof(own)]


def _chosen(only: Sequence[str], kills: int | None) -> "list[Proof]":
    from engine.prove.catalog import proofs

    known = {one.name: one for one in proofs(kills)}
    wanted = [name.replace("-", " ") for name in only]
    for name in wanted:
        if name not in known:
            raise BadUsage("--only", f"there is no proof {name!r:.80}; there are: {_list(known)}")
    return [one for name, one in known.items() if not wanted or name in wanted]


def _list(names: "dict[str, Proof]") -> str:
    return ", ".join(names)


def _check_writable(report: str | None) -> None:
    """Find out before the work is done, not after."""
    if report is not None and not Path(report).resolve().parent.is_dir():
        raise BadUsage("--report", f"the folder of {report} does not exist")


# --- the work ---


def _conducted(chosen: "Sequence[Proof]", scale: "Scale", seed: int, live: "Live") -> "list[Conducted]":
    from engine.prove.conduct import conduct

    found = []
    for proof in chosen:
        live.begin(proof.name)
        one = conduct(proof, scale, seed, live)
        found.append(one)
        live.end(f"{proof.name}: {_word(one)} ({one.outcome.seconds:,.1f} s)")
    return found


def _attempted(chosen: "Sequence[Proof]", seed: int, live: "Live") -> "list[Attempted]":
    from engine.prove.broken import BREAKAGES
    from engine.prove.conduct import attempt

    by_name = {one.name: one for one in chosen}
    found = []
    for breakage in BREAKAGES.values():
        if breakage.caught_by not in by_name:
            continue
        live.begin(f"broken on purpose: {breakage.name}")
        one = attempt(breakage, by_name, seed, live)
        found.append(one)
        live.end(f"broken on purpose: {breakage.name}: {_noticed(one)}")
    return found


# --- telling ---


def _word(one: "Conducted") -> str:
    if one.outcome.skipped is not None:
        return "skipped"
    return "holds" if one.outcome.holds else "BROKEN"


def _noticed(one: "Attempted") -> str:
    if one.skipped is not None:
        return "skipped"
    return "NOT NOTICED" if one.missed else "noticed"


def _tell(conducted: "Sequence[Conducted]", attempted: "Sequence[Attempted]") -> None:
    from engine.prove.report import done

    rows = [
        [text(one.proof.name), text(_word(one)), text(one.proof.promise), text(done(one))]
        for one in conducted
    ]
    table(("PROOF", "HOLDS", "PROMISE", "WHAT WAS DONE"), rows)
    for one in conducted:
        _tell_broken(one)
    if attempted:
        write("")
        write("Can the proofs fail? Each promise, broken on purpose:")
        lines = [
            [
                text(one.breakage.name),
                text(_noticed(one)),
                text(one.breakage.caught_by),
                text((one.found or one.skipped or "")[:100]),
            ]
            for one in attempted
        ]
        table(("BROKEN", "WAS", "BY", "AS"), lines)


def _tell_own(one: "Conducted") -> None:
    from engine.prove.report import figure_text

    rows = [[text(name), text(figure_text(value))] for name, value in one.outcome.figures.items()]
    table(("WHAT", ">FIGURE"), rows)
    for line in one.outcome.notes:
        write(line)
    _tell_broken(one)
    if one.outcome.holds:
        write(f"Holds: {one.proof.promise}")


def _tell_broken(one: "Conducted") -> None:
    for line in list(one.outcome.broken)[:MAX_TOLD]:
        write(f"BROKEN: {one.proof.name}: {line}")
    if one.kept is not None:
        write(f"The files are kept in {one.kept}")


def _json(
    conducted: "Sequence[Conducted]", attempted: "Sequence[Attempted]", scale: str, seed: int
) -> Json:
    from engine.prove.report import machine

    return {
        "ok": not any(one.outcome.broken for one in conducted)
        and not any(one.missed for one in attempted),
        "scale": scale,
        "seed": seed,
        "machine": machine(),
        "proofs": [
            {
                "name": one.proof.name,
                "promise": one.proof.promise,
                "holds": None if one.outcome.skipped else not one.outcome.broken,
                "skipped": one.outcome.skipped,
                "figures": dict(one.outcome.figures),
                "broken": list(one.outcome.broken),
                "notes": list(one.outcome.notes),
                "seconds": round(one.outcome.seconds, 3),
                "kept": None if one.kept is None else str(one.kept),
            }
            for one in conducted
        ],
        "broken_on_purpose": [
            {
                "name": one.breakage.name,
                "what": one.breakage.what,
                "by": one.breakage.caught_by,
                "noticed": None if one.skipped else not one.missed,
                "found": one.found,
            }
            for one in attempted
        ],
    }


@define
class Live:
    """Says on standard error what a proof is at; on a terminal, in one line."""

    _said_at: float = 0.0
    _open: bool = False

    def begin(self, what: str) -> None:
        self._said_at = time.monotonic()
        if sys.stderr.isatty():
            self._line(what)

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        if sys.stderr.isatty():
            if now - self._said_at >= 0.1:
                self._said_at = now
                self._line(what)
        elif now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            say(what)

    def end(self, said: str = "") -> None:
        """Finish the line, and say how it went."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            self._open = False
        if said:
            say(said)

    def _line(self, what: str) -> None:
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()
        self._open = True
