"""The ways in which promises about decisions are broken on purpose: budgets, reuse, people, clocks
and stops. `engine.prove.broken` lists them."""

import asyncio
from typing import Any

from carstore import events as e
from engine import begin, dispatch, run_events, waits
from engine import run as engine_run
from engine.accounts import Ledger
from engine.action_state import Approval
from engine.drive import Driver
from engine.forward import advance
from engine.journal import Journal
from engine.prove.sabotage import Patches
from engine.purse import Purse

__all__ = [
    "ask_nobody",
    "claim_late",
    "count_twice",
    "forgive",
    "free_deaths",
    "no_claim",
    "one_more",
    "oversell",
    "take_again",
    "wake_early",
]

SLOW_SECONDS = 0.02
"""Between a look and what rests on it, so that others come in between."""


# --- budgets ---


def oversell(patches: Patches) -> None:
    reserve = Purse.reserve

    async def reserving(self: Purse, name: str, amounts: Any) -> Any:
        entries, _ = await reserve(self, name, amounts)
        await asyncio.sleep(SLOW_SECONDS)
        return entries, {}

    patches.put(Purse, "reserve", reserving)


def count_twice(patches: Patches) -> None:
    settle = Ledger.settle

    def settling(self: Ledger, chain: Any, name: str, given: Any, spent: Any, run: Any) -> Any:
        twice = {unit: 2 * amount for unit, amount in spent.items()}
        return settle(self, chain, name, given, twice, run)

    patches.put(Ledger, "settle", settling)


def free_deaths(patches: Patches) -> None:
    patches.put(Purse, "forfeit", lambda self, name: self.settle(name))


# --- reuse ---


def no_claim(patches: Patches) -> None:
    async def granted(*_: Any) -> bool:
        return True

    patches.put(Journal, "claim", granted)


def claim_late(patches: Patches) -> None:
    """There is time between the look for a result and the claim, and nobody looks again."""
    served = dispatch._served

    async def once(desk: Any, state: Any, tool: Any, key: str) -> Any:
        if any(one.condition.lease == begin.flight(key) for one in desk.journal.claims):
            return None
        found = await served(desk, state, tool, key)
        await asyncio.sleep(SLOW_SECONDS)
        return found

    patches.put(dispatch, "_served", once)


# --- people and time ---


def ask_nobody(patches: Patches) -> None:
    patches.put(begin, "_with_consent", lambda _, ready, *__: ready)


def forgive(patches: Patches) -> None:
    patches.put(Approval, "refusal", property(lambda _: None))
    patches.put(Approval, "granted", property(lambda self: bool(self.answers)))


def take_again(patches: Patches) -> None:
    handlers = {**run_events.HANDLERS, e.SignalTaken: lambda *_: None}
    patches.put(engine_run, "HANDLERS", handlers)


def wake_early(patches: Patches) -> None:
    due = waits.due
    hour_us = 3_600_000_000
    patches.put(waits, "due", lambda run, state, now: due(run, state, now + hour_us))


# --- stops ---


def one_more(patches: Patches) -> None:
    way = Driver._way

    def on(self: Driver) -> Any:
        found = way(self)
        return found if self._desk.run.aborting else advance

    patches.put(Driver, "_way", on)
