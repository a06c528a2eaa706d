"""`carstore prove`: try to break every promise, and say what came of it."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.errors import BadUsage, Interrupted
from engine.cli.exits import Exit
from engine.cli.options import json_option
from engine.cli.screen import print_json, say
from engine.cli.told import Live, noticed, tell, tell_own, to_json, word

if TYPE_CHECKING:
    from engine.prove.conduct import Attempted, Conducted
    from engine.prove.plan import OwnPlan
    from engine.prove.proof import Proof, Scale

__all__ = ["prove"]

MAX_KILLS = 1_000_000


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
    if as_json:
        print_json(to_json(conducted, attempted, scale, drawn))
    elif own is not None:
        tell_own(conducted[0])
    else:
        tell(conducted, attempted)
    if report is not None:
        from engine.prove.report import own_page, page

        told = page(conducted, attempted, scale, drawn)
        if not _written(report, told if own is None else own_page(conducted[0], scale, drawn)):
            return Exit.FAILED
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
    if kills is not None and wanted and "kills" not in wanted:
        raise BadUsage("--kills", "is about the proof kills, which --only leaves out")
    return [one for name, one in known.items() if not wanted or name in wanted]


def _list(names: "dict[str, Proof]") -> str:
    return ", ".join(names)


def _check_writable(report: str | None) -> None:
    """Find out before the work is done, not after."""
    if report is None:
        return
    is_new = not os.path.lexists(report)
    if not is_new and not Path(report).is_file():
        return  # a pipe or the like, which only who writes to it may open
    try:
        with open(report, "ab"):
            pass
    except FileNotFoundError:
        raise BadUsage("--report", f"the folder of {report} does not exist") from None
    except OSError as error:
        raise BadUsage("--report", f"{report} cannot be written: {error.strerror}") from None
    if is_new:
        os.unlink(report)


def _written(report: str, page: str) -> bool:
    """Write the page; that it could not be is told, after the figures have been."""
    try:
        Path(report).write_text(page, encoding="utf-8")
    except OSError as error:
        say(f"Error: {report} could not be written: {error.strerror}. The figures stand above.")
        return False
    return True


# --- the work ---


def _conducted(
    chosen: "Sequence[Proof]", scale: "Scale", seed: int, live: "Live"
) -> "list[Conducted]":
    from engine.prove.conduct import conduct

    found = []
    for proof in chosen:
        live.begin(proof.name)
        one = conduct(proof, scale, seed, live)
        found.append(one)
        live.end(f"{proof.name}: {word(one)} ({one.outcome.seconds:,.1f} s)")
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
        live.end(f"broken on purpose: {breakage.name}: {noticed(one)}")
    return found
