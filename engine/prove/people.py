"""Processes and stores as a proof wants them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import define, field

from carstore import connect
from carstore.clock import Clock, SystemClock
from carstore.holders import Holder, SystemProcesses
from carstore.store import Store

__all__ = ["People", "opened"]


@define
class People:
    """Each opened store is a process of its own, which lives until it is told dead."""

    dead: set[str] = field(factory=set)
    known: list[Holder] = field(factory=list)

    def current(self, instance: str) -> Holder:
        holder = SystemProcesses().current(instance)
        self.known.append(holder)
        return holder

    def is_gone(self, holder: Holder) -> bool:
        return holder.incarnation in self.dead

    def all_die(self) -> None:
        """Whoever has opened a store so far is provably gone."""
        self.dead.update(holder.incarnation for holder in self.known)


@asynccontextmanager
async def opened(
    path: Path, people: People | None = None, clock: Clock | None = None
) -> AsyncIterator[Store]:
    """A store that believes of time and processes what it is told; its commits are quick."""
    async with connect(
        path,
        durability="crash",
        processes=people or SystemProcesses(),
        clock=clock or SystemClock(),
    ) as store:
        yield store
