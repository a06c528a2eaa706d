"""`carstore demo`"""

import json
from pathlib import Path

import click

from carstore.clock import SystemClock
from engine.cli import screen
from engine.cli.errors import BadUsage
from engine.cli.exits import Exit
from engine.cli.options import json_option
from engine.cli.stopping import run_stoppable
from engine.demo.outcome import Outcome, look_back
from engine.demo.place import Place, taken
from engine.demo.plan import make_plan
from engine.demo.show import Progressing, show_outcome, try_next
from engine.demo.walk import Listing, list_folder
from engine.demo.watch import TooFast, run_and_kill
from engine.plan_json import proposal_to_dict

__all__ = ["demo"]

SLOWER = 4
"""How many times slower the stubs of models are the second time, where the first was too fast."""


@click.command()
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--keep",
    metavar="DIR",
    default="carstore-demo",
    show_default=True,
    type=click.Path(),
    help="Where the database and the report go. Must be new, empty, or of a former demo.",
)
@json_option
def demo(folder: str, keep: str, as_json: bool) -> int:
    """Watch a large plan be killed and go on.

    Hashes and counts the files of FOLDER (default: the current one), finds duplicates and the
    largest files, and writes a report, as a plan of several hundred actions. The process that runs
    it is killed twice with SIGKILL and started again. Every call is written into a journal outside
    of the database, so that you can see what was run again: nothing that was completed, only calls
    that were in flight.

    FOLDER is only read. Ends with 1 if a promise was broken.
    """
    clock = SystemClock()
    began = clock.boot()
    listing = _list(folder, keep)
    with taken(Path(keep)) as place:
        outcome = _demonstrate(listing, place)
    if as_json:
        screen.print_json({**outcome.to_dict(), "next": try_next(outcome)})
    else:
        show_outcome(outcome, listing, (clock.boot() - began) / 1_000_000)
    return Exit.FAILED if outcome.broken else Exit.DONE


def _list(folder: str, keep: str) -> Listing:
    for name, path in (("FOLDER", folder), ("--keep", keep)):
        try:
            str(Path(path).resolve()).encode()
        except UnicodeEncodeError:
            raise BadUsage(name, "is not Unicode; plans and reports are") from None
    try:
        return list_folder(Path(folder), without=Path(keep))
    except OSError as error:
        raise BadUsage("FOLDER", f"{folder} cannot be read: {error.strerror}") from error


def _demonstrate(listing: Listing, place: Place) -> Outcome:
    try:
        return _once(listing, place, slowness=1)
    except TooFast as error:
        screen.say(f"{error.message}: now, slower.")
        place.clear()
        return _once(listing, place, slowness=SLOWER)


def _once(listing: Listing, place: Place, slowness: int) -> Outcome:
    plan = make_plan(listing, str(place.report.resolve()), slowness=slowness)
    text = json.dumps(proposal_to_dict(plan), indent=1, ensure_ascii=False)
    place.plan.write_text(text + "\n", encoding="utf-8")
    actions = len(plan.actions)

    async def work() -> Outcome:
        with Progressing(actions) as progress:
            kills = await run_and_kill(place, actions, progress)
        return await look_back(place, actions, kills)

    return run_stoppable(work(), "Stopping; the process that works is killed.")
