"""Saves and replays, against eventsourcing."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.comparing import compare, installed, our_steps, rate
from benchmarks.harness import Options, Row, benchmark, folder


@cache
def _aggregate() -> Any:
    """A class with one kind of event; the library finds it by name, so there can be only one."""
    domain = installed("eventsourcing.domain")

    class Steps(domain.Aggregate):  # type: ignore[misc,name-defined]
        @domain.event("Stepped")  # type: ignore[untyped-decorator]
        def step(self, n: int) -> None:
            self.n = n

    return Steps


class Eventsourcing:
    """Its application on SQLite; a context."""

    def __init__(self, path: Path) -> None:
        self._new = _aggregate()
        self._application = installed("eventsourcing.application").Application(
            env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
        )

    def __enter__(self) -> "Eventsourcing":
        return self

    def __exit__(self, *_: object) -> None:
        self._application.close()

    def steps(self, steps: int) -> None:
        """A new aggregate, saved after each of its events."""
        aggregate = self._new()
        for number in range(steps):
            aggregate.step(number)
            self._application.save(aggregate)

    def saved(self, events: int) -> Any:
        """The id of a new aggregate with so many events, saved at once."""
        aggregate = self._new()
        for number in range(events - 1):
            aggregate.step(number)
        self._application.save(aggregate)
        return aggregate.id

    def load(self, aggregate_id: Any) -> Any:
        """The aggregate, replayed."""
        return self._application.repository.get(aggregate_id)


@benchmark("steps-eventsourcing")
def steps_eventsourcing(options: Options) -> list[Row]:
    """Steps in turn, against saves of one event each."""
    steps = 200 if options.quick else 1_000
    with folder(options) as place, Eventsourcing(place / "theirs.db") as theirs:
        ours, reference = asyncio.run(
            compare(
                options,
                place,
                lambda: rate(steps, lambda: theirs.steps(steps)),
                lambda store: our_steps(store, steps),
            )
        )
    return [
        Row(
            case=f"{steps} steps of one run",
            unit="steps/s",
            measured=ours,
            against="eventsourcing, saves of one event",
            reference=reference,
        )
    ]
