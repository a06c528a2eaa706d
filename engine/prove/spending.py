"""Budgets that several processes draw on at once, while some of them are killed.

Each call notes outside what it really spends. The ledger is folded here anew, from what the file
holds and by a fold of its own, and has to tell the same.
"""

import asyncio
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from carstore.store import Store
from engine.context import ToolContext
from engine.declare import Tool, tool
from engine.ir import Action, FailureBehavior, Proposal
from engine.ledger import balances, set_budget
from engine.prove.crowd import (
    Round,
    Told,
    call_faults,
    crowd_proof,
    drive,
    note_call,
    opened_by_one,
    story_of,
)
from engine.prove.workload import Place, note, notes
from engine.rules.budget import Budget, BudgetExhausted
from engine.rules.money import units_of
from engine.runtime import Runtime

__all__ = ["SPENDING"]

DRIVERS = 3
RUNS = 24
KILLS = 12

CALLS = ("buy", "order", "browse", "order", "buy")
"""Calls of one run: `buy` must not be repeated, `order` may be, `browse` charges on its way."""

CENT = 10_000
"""Millionths."""

MOST = 100_000
"""Millionths that one call declares to spend at most."""

CHARGE = 30_000
"""Millionths that `browse` spends at a time, beyond what it has declared."""

UNIT = "USD"

LIMITS = {"firm": 5_000_000, "team-0": 3_000_000, "team-1": 3_000_000}
"""Millionths. The runs want more than the firm has, and the teams together do too."""

OWN = 350_000
"""Millionths that each third run has at most for itself."""


def spend(folder: str) -> None:
    """The life of one process."""
    place = Place(Path(folder))
    plans = {f"r{n}": _plan(n) for n in range(RUNS)}
    budgets = {f"r{n}": _budget(n) for n in range(RUNS)}

    def made(store: Store) -> Runtime:
        return Runtime(store, _tools(place), schedule="eager")

    asyncio.run(drive(place, plans, made, budgets))


def _plan(n: int) -> Proposal:
    actions = [
        Action(id=f"a{i}", tool=name, failure_behavior=FailureBehavior.SKIP)
        for i, name in enumerate(CALLS)
    ]
    return Proposal(id=f"p{n}", actions=actions)


def _budget(n: int) -> Budget:
    own = {UNIT: units_of(OWN)} if n % 3 == 0 else {}
    return Budget(costs=own, parent=f"team-{n % 2}")


def _tools(place: Place) -> list[Tool]:
    """Each notes what it spends at the moment at which it does."""

    async def spends(ctx: ToolContext, effect: str) -> None:
        chance = random.Random(f"{ctx.run_id} {ctx.action_id} {ctx.attempt}")
        price = chance.randrange(MOST // 4, MOST + 1)
        note_call(place, ctx, effect, price=price)
        await asyncio.sleep(chance.uniform(0.002, 0.02))
        ctx.meter(cost_micros=price, currency=UNIT)

    most = {UNIT: units_of(MOST)}

    @tool(max_cost=most)
    async def buy(ctx: ToolContext) -> None:
        await spends(ctx, "once")

    @tool(max_cost=most, idempotent=True)
    async def order(ctx: ToolContext) -> None:
        await spends(ctx, "idempotent")

    @tool(max_cost=most, idempotent=True)
    async def browse(ctx: ToolContext) -> None:
        await spends(ctx, "idempotent")
        for _ in range(2):
            try:
                await ctx.charge(UNIT, units_of(CHARGE))
            except BudgetExhausted:
                return
            note(place.acks, name=_name(ctx.run_id, ctx.action_id, ctx.attempt), price=CHARGE)
            await asyncio.sleep(0.002)

    return [buy, order, browse]


def _name(run: Any, action: str, attempt: int) -> str:
    """The reservation of a call, as the documentation spells it."""
    return f"{run}/{action}/do/{attempt}"


# --- the ledger, once more ---


@frozen
class _Held:
    """What was set aside under one name in one budget, and what became of that: millionths."""

    reserved: int = 0
    given: int = 0
    spent: int = 0


@define
class _Books:
    """The budgets as their events tell them."""

    limits: dict[str, int | None] = field(factory=dict)
    reserved: Counter[str] = field(factory=Counter)
    spent: Counter[str] = field(factory=Counter)
    of: dict[str, dict[str, _Held]] = field(factory=lambda: defaultdict(dict))
    """Budget -> reservation -> what became of it."""
    broken: list[str] = field(factory=list)

    def take(self, told: Told) -> None:
        data, name = told.data, told.data.get("budget", "")
        if told.kind == "budget_set":
            self.limits[name] = data["limits"].get(UNIT)
        elif told.kind == "budget_reserved":
            self._moved(name, data["reservation"], _Held(reserved=data["amounts"].get(UNIT, 0)))
        elif told.kind == "budget_settled":
            given, spent = data["reserved"].get(UNIT, 0), data["spent"].get(UNIT, 0)
            self._moved(name, data["reservation"], _Held(given=given, spent=spent))
        else:
            return
        limit, taken = self.limits[name], self.reserved[name] + self.spent[name]
        if limit is not None and taken > limit:
            self.broken.append(f"event {told.position} takes {taken:,} of the {limit:,} of {name}")

    def _moved(self, name: str, reservation: str, by: _Held) -> None:
        before = self.of[name].get(reservation, _Held())
        self.of[name][reservation] = _Held(
            before.reserved + by.reserved, before.given + by.given, before.spent + by.spent
        )
        self.reserved[name] += by.reserved - by.given
        self.spent[name] += by.spent


@define
class _Calls:
    """What became of each call, by the name of its reservation."""

    ended: set[str] = field(factory=set)
    """The process that made it has recorded its outcome."""
    doubted: set[str] = field(factory=set)
    happened: set[str] = field(factory=set)
    """Those in doubt of which a person has said that they were carried out."""

    def take(self, told: Told) -> None:
        if "attempt" not in told.data:
            return
        name = _name(told.run, told.action, told.data["attempt"])
        if told.kind == "action_in_doubt":
            self.doubted.add(name)
        elif told.kind == "doubt_resolved" and told.data["resolution"] == "succeeded":
            self.happened.add(name)
        elif told.kind in ("action_succeeded", "action_failed"):
            self.ended.add(name)

    def due(self, name: str, held: _Held, really: int) -> int:
        """What the call has to count for: what it spent, or all that it might have."""
        if name in self.doubted:
            return held.reserved if name in self.happened else 0
        return really if name in self.ended else held.reserved


def _judge(one: Round) -> None:
    books, calls, story = _Books(), _Calls(), story_of(one.place)
    for told in story:
        books.take(told)
        calls.take(told)
    really: Counter[str] = Counter()
    for said in notes(one.place.journal) + notes(one.place.acks):
        name = said.get("name") or _name(said["run"], said["action"], said["attempt"])
        really[name] += said["price"]
    one.broken += books.broken
    for budget, all_held in books.of.items():
        for name, held in all_held.items():
            what = f"{name} in {budget}"
            if held.reserved != held.given:
                one.broken.append(f"{what}: {held.reserved:,} reserved, {held.given:,} given back")
            due = calls.due(name, held, really[name])
            if held.spent != due:
                one.broken.append(f"{what}: counts for {held.spent:,}, not for {due:,}")
            if really[name] > held.spent:
                one.broken.append(f"{what}: {really[name]:,} spent, {held.spent:,} counted")
    limit = LIMITS["firm"]
    if really.total() > limit:
        one.broken.append(f"{really.total():,} millionths were spent, of {limit:,}")
    firm = books.of["firm"]
    one.broken += [f"{name} spent what nobody had reserved" for name in really if name not in firm]
    one.broken += asyncio.run(_differences(one.place, books))
    made = notes(one.place.journal)
    one.broken += call_faults(made)
    one.counts += Counter({
        "runs finished": RUNS,
        "calls": len(made),
        "US cents allowed": limit // CENT,
        "US cents spent": round(really.total() / CENT),
        "calls that died, counted in full": len(firm.keys() - calls.ended - calls.doubted)
        + len(calls.happened),
        "runs stopped by a budget": sum(told.kind == "run_stopping" for told in story),
    })  # fmt: skip


async def _differences(place: Place, books: _Books) -> list[str]:
    """Where the program tells another balance than the events do."""
    found = []
    async with opened_by_one(place) as store:
        for name in books.limits:
            told = (await balances(store, name)).get(UNIT)
            if told is None:
                continue
            ours = (books.limits[name], books.reserved[name], books.spent[name])
            if (told.limit, told.reserved, told.spent) != ours:
                found.append(f"{name} is told as {told}, and its events make {ours}")
    return found


# --- the proof ---


def _spending(one: Round) -> None:
    asyncio.run(_open_budgets(one.place))
    one.live([(spend, ())] * DRIVERS, KILLS)
    _judge(one)


async def _open_budgets(place: Place) -> None:
    async with opened_by_one(place) as store:
        for name, micros in LIMITS.items():
            parent = None if name == "firm" else "firm"
            await set_budget(store, name, {UNIT: units_of(micros)}, parent=parent)


SPENDING = crowd_proof(
    "budgets",
    "Processes that draw on one budget, and are killed at it, never spend more than it allows; each"
    " call counts once, by what it spent, or in full if its process died.",
    _spending,
    (2, 15, 80),
)
