"""`carstore log`: the events themselves."""

from collections.abc import AsyncIterator, Collection

import click
from attrs import define, field

from carstore import Store
from carstore.canonical import loads_trusted
from carstore.events import InferenceMetered, ProposalReceived
from carstore.log import Recorded
from carstore.names import Json, RunId
from engine.cli.options import (
    check_run,
    checked_kinds,
    database,
    json_option,
    kind_option,
    reading,
)
from engine.cli.screen import gone, print_json_line, write
from engine.cli.stopping import run_stoppable
from engine.propose import check_run_id
from engine.results import rfc3339

__all__ = ["log"]

MAX_DATA_CHARS = 300
"""Characters of an event's data on its line; `--json` prints all."""


@click.command()
@database
@click.option("--run", metavar="RUN", help="Only events of this run.")
@kind_option
@click.option("--agent", metavar="AGENT", help="Only events of this agent.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Only events after position N.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N events.")
@click.option("--follow", is_flag=True, help="Wait for new events, until Ctrl-C.")
@json_option
def log(
    database: str,
    run: str | None,
    kinds: tuple[str, ...],
    agent: str | None,
    after: int,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the events of DB in order, one a line.

    The agent of an event is the source of its run's proposal; of inference_metered, whoever was
    metered.
    """
    wanted = Wanted(
        run=None if run is None else check_run_id(run),
        kinds=checked_kinds(kinds),
        agent=agent,
        after=after,
    )
    run_stoppable(_print(database, wanted, limit, follow=follow, as_json=as_json))


@define
class Wanted:
    """Which events to print."""

    run: RunId | None
    kinds: Collection[str] | None
    agent: str | None
    after: int
    _sources: dict[RunId, str | None] = field(factory=dict)

    async def includes(self, store: Store, recorded: Recorded) -> bool:
        """Whether an event of a wanted kind is of the wanted run and agent."""
        if self.run is not None and recorded.run_id != self.run:
            return False
        if self.agent is None:
            return True
        if recorded.kind == InferenceMetered.kind:
            return bool(loads_trusted(recorded.data).get("agent") == self.agent)
        if recorded.run_id is None:
            return False
        if recorded.run_id not in self._sources:
            self._sources[recorded.run_id] = await source_of(store, recorded.run_id)
        return self._sources[recorded.run_id] == self.agent


async def source_of(store: Store, run_id: RunId) -> str | None:
    """Who proposed a run; None if it is not known."""
    async for recorded in store.log.read(run=run_id, kinds=[ProposalReceived.kind]):
        event = recorded.event
        assert isinstance(event, ProposalReceived)
        return event.source
    return None


async def _print(
    path: str, wanted: Wanted, limit: int | None, *, follow: bool, as_json: bool
) -> None:
    async with reading(path) as store:
        if wanted.run is not None:
            await check_run(store, wanted.run)
        printed = 0
        async for recorded in _events(store, wanted, follow=follow):
            if not await wanted.includes(store, recorded):
                continue
            if as_json:
                print_json_line(_json(recorded))
            else:
                write(_line(recorded))
            printed += 1
            if printed == limit or gone():
                return


def _events(store: Store, wanted: Wanted, *, follow: bool) -> AsyncIterator[Recorded]:
    if follow:
        return store.log.follow(after=wanted.after, kinds=wanted.kinds)
    return store.log.read(after=wanted.after, run=wanted.run, kinds=wanted.kinds)


def _json(recorded: Recorded) -> Json:
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "kind": recorded.kind,
        "schema_version": recorded.schema_version,
        "recorded_at": rfc3339(recorded.recorded_at),
        "run_id": recorded.run_id,
        "scope": recorded.scope,
        "key": recorded.key,
        "data": loads_trusted(recorded.data),
        "hash": recorded.hash,
    }


def _line(recorded: Recorded) -> str:
    data = recorded.data
    if len(data) > MAX_DATA_CHARS:
        data = f"{data[:MAX_DATA_CHARS]}..."
    key = "" if recorded.key is None else f" {recorded.scope}:{recorded.key}"
    return (
        f"{recorded.position:>6}  {rfc3339(recorded.recorded_at)}  {recorded.stream}  "
        f"{recorded.kind}{key}  {data}"
    )
