"""What a runtime gives to the drivers of its runs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor

from attrs import frozen

from carstore.names import Json
from engine.accounts import Ledger
from engine.rates import Rates
from engine.rules.retries import Backoff
from engine.rules.schedule import SCHEDULES, ScheduleFactory
from engine.tools import ToolExecutor, Tools

__all__ = ["Equipment", "Remembered"]


@frozen(kw_only=True)
class Remembered:
    """A result that an equal action had before: where it stands, and what it was."""

    position: int
    run_id: str
    action_id: str
    output: Json
    at: int
    """When it succeeded, microseconds UTC."""


@frozen(kw_only=True)
class Equipment:
    """What a runtime gives to the drivers of its runs."""

    tools: Tools
    executor: ToolExecutor | None
    threads: Executor
    backoff: Backoff
    recall: Callable[[str], Awaitable[Remembered | None]]
    """Finds the result that is remembered under a reuse key."""
    rates: Rates
    ledger: Ledger
    ledger_locks: dict[str, asyncio.Lock]
    cache_ttls: Mapping[str, int]
    """Tool -> seconds for which its results are served again, where a runtime says so."""
    schedules: Mapping[str, ScheduleFactory] = SCHEDULES
    """By the name under which a run may have been begun."""
