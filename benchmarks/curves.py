"""Two curves: the rate of appends against the length of the history, and what a producer waits for
against how many there are."""

import asyncio

from benchmarks.append import EVENTS, WARM_UPS, appender, produce
from benchmarks.harness import Options, Row, benchmark, folder, interleaved, median
from benchmarks.plans import grow_mixed
from carstore import connect

HISTORIES = (0, 1_000, 10_000, 100_000, 1_000_000)
"""Events that stand in the log already."""

PRODUCERS = (1, 3, 10, 30, 100, 300, 1_000)
"""Tasks of one process that each await their append."""


@benchmark("curve-history")
def history(options: Options) -> list[Row]:
    """100 producers, on logs of growing length."""
    return asyncio.run(by_history(options, HISTORIES[:-1] if options.quick else HISTORIES))


async def by_history(
    options: Options, histories: tuple[int, ...], appends: int = EVENTS[100]
) -> list[Row]:
    """The same, of these lengths, each with so many appends in one repetition."""
    producers, rows = 100, []
    events_each = max(1, appends // producers)
    with folder(options) as place:
        async with connect(place / "grows.db") as store, connect(place / "new.db") as new:
            grown = 0
            for length in histories:
                await grow_mixed(store, length - grown)
                grown = length
                ours, alone = map(
                    median,
                    await interleaved(
                        min(5, options.repetitions),
                        lambda: produce(appender(store.log), producers, events_each),
                        lambda: produce(appender(new.log), producers, events_each),
                        warm_ups=WARM_UPS,
                    ),
                )
                rows.append(
                    Row(
                        case=f"{length:,} events of history",
                        unit="events/s",
                        measured=ours.per_second,
                        against="a new log",
                        reference=alone.per_second,
                        details={"history": length, "p50_ms": ours.p50_ms, "p99_ms": ours.p99_ms},
                    )
                )
    return rows


@benchmark("curve-producers")
def producers(options: Options) -> list[Row]:
    """Rate and waiting time of one append, by how many producers there are."""
    return asyncio.run(by_producers(options, PRODUCERS))


async def by_producers(
    options: Options, numbers: tuple[int, ...], appends: int = 10_000
) -> list[Row]:
    """The same, of so many producers; few of them make a tenth of the appends."""
    rows = []
    with folder(options) as place:
        async with connect(place / "log.db") as store:
            for number in numbers:
                events_each = max(10, appends // number // (1 if number > 10 else 10))
                [runs] = await interleaved(
                    min(5, options.repetitions),
                    lambda number=number, each=events_each: produce(  # type: ignore[misc]
                        appender(store.log), number, each
                    ),
                    warm_ups=2,
                )
                found = median(runs)
                rows.append(
                    Row(
                        case=f"{number:,} producers",
                        unit="events/s",
                        measured=found.per_second,
                        details={
                            "producers": number,
                            "p50_ms": found.p50_ms,
                            "p99_ms": found.p99_ms,
                        },
                    )
                )
    return rows
