"""Asking whoever proposes what comes next: what it is told, and what it may answer."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

from attrs import define, evolve, field, frozen, setters

from carstore import Store
from carstore.events import PursuitStarted
from carstore.names import Json, Scope
from engine.buffered import Buffer, ContextMisused, Metered
from engine.ir import Proposal, RunResult
from engine.plan_json import check_proposal, parse_proposal
from engine.problems import InvalidProposal
from engine.pursuit import CURRENCY
from engine.rules.budget import Account
from engine.rules.copies import own_copy
from engine.rules.money import units_of

__all__ = ["Done", "Left", "Propose", "Said", "Situation", "answer_of", "ask", "situation_of"]


@frozen(kw_only=True)
class Done:
    """The answer of a proposer that has nothing more to propose."""

    answer: Json = None
    """What came of the goal; any JSON."""
    reason: str | None = None
    """Why it ends, for people."""
    failed: bool = False
    """Whether the goal is given up."""


@frozen(kw_only=True)
class Left:
    """What the limits of a pursuit leave; None: no limit."""

    steps: int
    """Proposals that may still be run. At 0, only `Done` is an answer."""
    cost: Decimal | None
    """US dollars."""
    seconds: float | None
    """Until its deadline."""


@define(kw_only=True, eq=False, on_setattr=setters.frozen)
class Situation:
    """What a proposer is told when it is asked. All values are copies, and may be changed."""

    goal: Json
    step: int
    """The number of the proposal that is asked for, from 1."""
    state: dict[str, Json]
    """The state that the runs read and write, by key, as it is now; in the place of a sensitive
    value stands the reference to it."""
    results: tuple[RunResult, ...]
    """What came of each step before, in order; `format_tool_result` makes text of what is in it."""
    left: Left
    problem: str | None = None
    """What was wrong with the answer before this, if the same step is asked for again."""
    _buffer: Buffer = field(init=False, repr=False, factory=Buffer)
    _over: threading.Event = field(init=False, repr=False, factory=threading.Event)

    @property
    def last(self) -> RunResult | None:
        """What came of the step before this one; None at the first."""
        return self.results[-1] if self.results else None

    def meter(
        self,
        *,
        tokens_in: int = 0,
        tokens_out: int = 0,
        cost_micros: int = 0,
        cost: Decimal | str | None = None,
        currency: str = "USD",
        agent: str | None = None,
        model: str | None = None,
    ) -> None:
        """Say what asking a model took. It is recorded whatever the answer is, also if there is
        none because the proposer raises.

        Args:
            tokens_in: tokens read.
            tokens_out: tokens written.
            cost_micros: millionths of a unit of `currency`.
            cost: units instead, exact; rounded to millionths, half away from zero.
            currency: of what.
            agent: who spent it, if not the source of the proposal.
            model: of what.

        Raises:
            ContextMisused: an amount or a name cannot be used, or the asking is over.
        """
        if self._over.is_set():
            raise ContextMisused("situation.meter", f"step {self.step} is not asked for any more")
        try:
            self._buffer.meter(
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                cost_micros=cost_micros,
                cost=cost,
                currency=currency,
                agent=agent,
                model=model,
            )
        except ContextMisused as misused:
            asked = misused.asked.replace("ctx.", "situation.", 1)
            raise ContextMisused(asked, misused.reason) from None

    def close(self) -> tuple[Metered, ...]:
        """For the engine: end the asking, and take out what was metered."""
        self._over.set()
        return self._buffer.content().metered


Said: TypeAlias = Proposal | Mapping[str, Json] | str | bytes | Done
"""An answer: a proposal, its JSON, or that there is none."""

Propose: TypeAlias = Callable[[Situation], "Said | Awaitable[Said]"]
"""Proposes the next step. A plain function is called in a thread, so it may take its time."""


async def situation_of(
    store: Store,
    scope: Scope,
    started: PursuitStarted,
    goal: Json,
    results: Sequence[RunResult],
    accounts: Sequence[Account],
    problem: str | None,
) -> Situation:
    """What a proposer is told after these results.

    Args:
        accounts: the budgets that the pursuit takes from.
        problem: what was wrong with the answer before.
    """
    fill = partial(store.blobs.fill, sensitive=False)
    shown = [
        evolve(one, results=[evolve(r, output=await fill(own_copy(r.output))) for r in one.results])
        for one in results
    ]
    state = await store.blobs.fill_reads(await store.log.state_of(scope), sensitive=False)
    return Situation(
        goal=own_copy(goal),
        step=len(results) + 1,
        state={str(key): read.value for key, read in state.items()},
        results=tuple(shown),
        left=_left(started, len(results), accounts, store.clock.now()),
        problem=problem,
    )


def _left(started: PursuitStarted, steps: int, accounts: Sequence[Account], now: int) -> Left:
    found = [one.balances.get(CURRENCY) for one in accounts]
    amounts = [one.remaining for one in found if one is not None and one.remaining is not None]
    return Left(
        steps=started.max_steps - steps,
        cost=Decimal(units_of(min(amounts))) if amounts else None,
        seconds=None if started.ends_at is None else (started.ends_at - now) / 1e6,
    )


async def ask(
    propose: Propose, situation: Situation, threads: Executor
) -> Proposal | Done | InvalidProposal | None:
    """What `propose` says, or what is wrong with it; None if the time was over before.

    A thread that has not answered by then goes on, and nobody waits for it.

    Raises:
        TypeError: it said something that is no answer.
        Exception: what it raised.
    """
    try:
        async with asyncio.timeout(situation.left.seconds) as limit:
            said = await answer_of(propose, situation, threads)
    except TimeoutError:
        if not limit.expired():
            raise
        return None
    if not isinstance(said, Proposal | Mapping | str | bytes | Done):
        found = type(said).__name__
        raise TypeError(f"a proposer returns a Proposal, its JSON, or Done(...), not {found}")
    if isinstance(said, Done):
        return said
    try:
        return check_proposal(said) if isinstance(said, Proposal) else parse_proposal(said)
    except InvalidProposal as refused:
        return refused


async def answer_of(proposer: Callable[[Any], object], told: object, threads: Executor) -> object:
    """What a proposer says of what it is told. A plain function is called in a thread, so that it
    holds up nothing else."""
    call = getattr(proposer, "__call__", None)  # noqa: B004 - of an object whose class defines it
    if inspect.iscoroutinefunction(proposer) or inspect.iscoroutinefunction(call):
        said = proposer(told)
    else:
        work = partial(_in_thread, proposer, told)
        said = await asyncio.get_running_loop().run_in_executor(threads, work)
    return await said if inspect.isawaitable(said) else said


def _in_thread(proposer: Callable[[Any], object], told: object) -> object:
    try:
        return proposer(told)
    except StopIteration as error:  # which a future cannot hold
        raise RuntimeError("the proposer raised StopIteration") from error
