"""`carstore log`: the events themselves."""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

import click
from attrs import define, field

from carstore import Store
from carstore.canonical import loads_trusted
from carstore.events import InferenceMetered, ProposalReceived
from carstore.log import Recorded
from carstore.names import Json, RunId, StreamName
from engine.cli.errors import BadUsage
from engine.cli.options import (
    COUNT,
    POSITION,
    check_at,
    check_kinds,
    check_run,
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

LOOK_BACK_EVENTS = 1_000
"""How far `--tail` looks back at first; if it finds too few, twice as far each time."""


@click.command()
@database
@click.option("--run", metavar="RUN", help="Only events of this run.")
@kind_option
@click.option("--stream", metavar="STREAM", help="Only events of this stream.")
@click.option("--agent", metavar="AGENT", help="Only events of this agent.")
@click.option(
    "--after",
    type=POSITION,
    default=0,
    metavar="N",
    help="Only events after position N.",
)
@click.option(
    "--at",
    type=POSITION,
    metavar="N",
    help="Only events up to position N; with --follow, end there.",
)
@click.option("--tail", type=POSITION, metavar="N", help="Only the last N events.")
@click.option("--limit", type=COUNT, metavar="N", help="At most N events.")
@click.option("--follow", is_flag=True, help="Then wait for new events, until Ctrl-C.")
@json_option
def log(
    database: str,
    run: str | None,
    kinds: tuple[str, ...],
    stream: str | None,
    agent: str | None,
    after: int,
    at: int | None,
    tail: int | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the events of DB in order, one a line.

    The agent of an event is the source of its run's proposal; of inference_metered, whoever was
    metered.
    """
    if run is not None and stream is not None:
        raise BadUsage("--stream", "together with --run: a run is a few streams already")
    wanted = Wanted(
        run=None if run is None else check_run_id(run),
        kinds=kinds or None,
        stream=None if stream is None else StreamName(stream),
        agent=agent,
        after=after,
        until=at,
    )
    run_stoppable(_print(database, wanted, tail, limit, follow=follow, as_json=as_json))


@define(kw_only=True)
class Wanted:
    """Which events to print."""

    run: RunId | None
    kinds: Collection[str] | None
    stream: StreamName | None
    agent: str | None
    after: int
    until: int | None
    _sources: dict[RunId, str | None] = field(factory=dict)

    async def includes(self, store: Store, recorded: Recorded) -> bool:
        """Whether an event is of the wanted kind, stream, run and agent."""
        if self.kinds is not None and recorded.kind not in self.kinds:
            return False
        if self.stream is not None and recorded.stream != self.stream:
            return False
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

    async def read(
        self, store: Store, after: int, until: int | None
    ) -> AsyncGenerator[Recorded, None]:
        """Those from the events after a position until another one."""
        found = store.log.read(
            after=after, until=until, kinds=self.kinds, stream=self.stream, run=self.run
        )
        async for recorded in found:
            if await self.includes(store, recorded):
                yield recorded

    async def last(self, store: Store, count: int, until: int) -> list[Recorded]:
        """The last `count` of those up to a position, in order."""
        found: list[Recorded] = []
        length = LOOK_BACK_EVENTS
        while until > self.after and len(found) < count:
            start = max(self.after, until - length)
            found = [one async for one in self.read(store, start, until)] + found
            until, length = start, length * 2
        return found[len(found) - count :] if len(found) > count else found

    async def follow(self, store: Store, after: int) -> AsyncGenerator[Recorded, None]:
        """Those after a position, and each new one; until the last position that is wanted."""
        if self.until is None:
            found = store.log.follow(
                after=after, kinds=self.kinds, stream=self.stream, run=self.run
            )
        elif after < self.until:  # each event is looked at, since the last one may be another's
            found = store.log.follow(after=after)
        else:
            return
        async with aclosing(found):
            async for recorded in found:
                if await self.includes(store, recorded):
                    yield recorded
                if recorded.position == self.until:
                    return


async def source_of(store: Store, run_id: RunId) -> str | None:
    """Who proposed a run; None if it is not known."""
    async for recorded in store.log.read(run=run_id, kinds=[ProposalReceived.kind]):
        event = recorded.event
        assert isinstance(event, ProposalReceived)
        return event.source
    return None


async def _print(
    path: str, wanted: Wanted, tail: int | None, limit: int | None, *, follow: bool, as_json: bool
) -> None:
    async with reading(path) as store:
        await check_kinds(store, wanted.kinds or ())
        if wanted.run is not None:
            await check_run(store, wanted.run)
        if not follow:
            await check_at(store, wanted.until)
        printed = 0
        async with aclosing(_events(store, wanted, tail, follow=follow)) as events:
            async for recorded in events:
                if as_json:
                    print_json_line(_json(recorded))
                else:
                    write(_line(recorded))
                printed += 1
                if printed == limit or gone():
                    return


async def _events(
    store: Store, wanted: Wanted, tail: int | None, *, follow: bool
) -> AsyncGenerator[Recorded, None]:
    after = wanted.after
    if tail is not None:
        head = (await store.log.head()).position
        until = head if wanted.until is None else min(head, wanted.until)
        for recorded in await wanted.last(store, tail, until):
            yield recorded
        after = max(after, until)
    if follow:
        rest = wanted.follow(store, after)
    elif tail is None:
        rest = wanted.read(store, after, wanted.until)
    else:
        return
    async with aclosing(rest):
        async for recorded in rest:
            yield recorded


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
