"""Budgets that several processes draw on at once, while some of them are killed.

Each call notes outside what it really spends. The ledger is folded here anew, from what the file
holds and by a fold of its own, and has to tell the same.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from carstore import connect
from carstore.store import Store
from engine.context import ToolContext
from engine.declare import Tool, tool
from engine.ir import Action, FailureBehavior, Proposal
from engine.ledger import balances, set_budget
from engine.prove.crowd import (
    Round,
    Told,
    call_faults,
    calls_of,
    crowd_proof,
    drive,
    note_call,
    opened_by_one,
    story_of,
)
from engine.prove.workload import Place, note, notes
from engine.rules.budget import Budget, BudgetExhausted
from engine.runtime import Runtime

__all__ = ["SPENDING"]

DRIVERS = 3
RUNS = 12
KILLS = 10
CALLS = ("buy", "order", "browse", "order", "buy")
"""The calls of one run: one that must not be repeated, one that may, one that charges."""

MOST = 100_000
"""Millionths that `buy` and `order` declare to spend at most."""

CHARGE = 30_000
"""Millionths that `browse` spends at a time, beyond what it has declared."""

LIMITS = {"firm": 2_000_000, "team 0": 1_300_000, "team 1": 1_300_000}
"""Millionths: less than the runs would spend, and the teams together want more than the firm has."""

UNIT = "USD"


def spend(folder: str) -> None:
    """The life of one process."""
    place = Place(Path(folder))

    def made(store: Store) -> Runtime:
        return Runtime(store, _tools(place), schedule="eager")

    asyncio.run(_drive_all(place, made))
