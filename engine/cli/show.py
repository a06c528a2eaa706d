"""`carstore show`: one run, as a tree."""

from collections import Counter
from typing import TYPE_CHECKING

import click
from attrs import define, field, frozen

from carstore.errors import NotFound
from carstore.events import InferenceMetered, ProposalReceived
from carstore.names import RunId
from engine.action_state import ActionState
from engine.cli.options import (
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
)
from engine.cli.result import next_step, resume_command, waits_what
from engine.cli.runs import driver_of
from engine.cli.screen import brief, duration, money, print_json, status_text, text, write
from engine.cli.screen import show as show_tree
from engine.cli.stopping import run_stoppable
from engine.ir import ActionStatus, RunStatus
from engine.propose import check_run_id
from engine.results import cost_of, result_of, rfc3339
from engine.run import Run

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["show"]

MAX_PER_LEVEL = 100
"""Actions of one level that are shown if they simply succeeded or wait for their turn."""


@click.command()
@database
@click.argument("run", metavar="RUN")
@click.option("--all", "everything", is_flag=True, help="Show every action of a large plan.")
@at_option
@json_option
def show(database: str, run: str, everything: bool, at: int | None, as_json: bool) -> None:
    """Show RUN, finished or not: its plan, level by level, with what became of each action."""
    found = run_stoppable(_load(database, check_run_id(run), at))
    if as_json:
        print_json(result_of(found.run).to_dict())
        return
    _headline(found)
    show_tree(_tree(found, everything=everything))
    _tail(database, found)


@define
class _Spent:
    """What one action was metered for."""

    tokens_in: int = 0
    tokens_out: int = 0
    micros: Counter[str] = field(factory=Counter)
    """By currency."""

    def add(self, event: InferenceMetered) -> None:
        self.tokens_in += event.tokens_in
        self.tokens_out += event.tokens_out
        self.micros[event.currency] += event.cost_micros

    def __str__(self) -> str:
        return f"{self.tokens_in:,}+{self.tokens_out:,} tokens {_amounts(self.micros)}"


def _amounts(micros: Counter[str]) -> str:
    """Amounts of each currency; of none, no dollars."""
    told = [money(amount, currency) for currency, amount in sorted(micros.items()) if amount]
    return " and ".join(told) or money(0, "USD")


@frozen
class _Found:
    run: Run
    spent: dict[str, _Spent]
    driver: str | None
    at: int | None
    """The position as of which it is shown; None: now."""


async def _load(path: str, run_id: RunId, at: int | None) -> _Found:
    async with reading(path) as store:
        await check_at(store, at)
        history = [recorded async for recorded in store.log.read(run=run_id, until=at)]
        if not any(recorded.kind == ProposalReceived.kind for recorded in history):
            options = () if at is None else ("--at", str(at))
            hint = f"{command_line('runs', path, *options)} lists them."
            what = "run" if at is None else f"run as of position {at}"
            raise NotFound(what, run_id, hint)
        run = Run.fold(run_id, history)
        spent: dict[str, _Spent] = {}
        for recorded in history:
            if recorded.kind == InferenceMetered.kind:
                event = recorded.event
                assert isinstance(event, InferenceMetered)
                spent.setdefault(event.action_id, _Spent()).add(event)
        if at is not None:  # who drives it is known of now only
            return _Found(run, spent, None, at)
        return _Found(run, spent, await driver_of(store, run_id, run.status.value), at)


def _headline(found: _Found) -> None:
    run = found.run
    write(f"Run {run.run_id} of plan {run.proposal.id}, from {run.received.source}")
    times = [] if run.started_at is None else [f"began {rfc3339(run.started_at)}"]
    if run.ended_at is not None:
        times.append(f"ended {rfc3339(run.ended_at)}")
    write(", ".join([_standing(found), *times]))
    if run.received.replaces is not None:
        write(f"It came in the place of run {run.received.replaces}, which was aborted")
    if run.received.pursuit is not None:
        write(f"A step of pursuit {run.received.pursuit}")
    stopped = result_of(run).stopped
    if stopped is not None:
        write(f"Stopped: {stopped}")


def _standing(found: _Found) -> str:
    status = found.run.status
    if status is RunStatus.WAITING:
        waiting = waits_what(result_of(found.run))
        return waiting if found.at is None else f"waiting at position {found.at}"
    if status is RunStatus.RUNNING:
        if found.at is not None:
            return f"running at position {found.at}"
        return f"running, by {found.driver}" if found.driver else "stopped in the middle"
    return status.value.replace("_", " ")


def _tree(found: _Found, *, everything: bool) -> "Tree":
    from rich.tree import Tree

    run = found.run
    tree = Tree(text(f"{len(run.actions):,} actions"))
    levels = run.graph.levels()
    for number, level in enumerate(levels, 1):
        branch = tree.add(text(f"level {number} of {len(levels)}", "bold"))
        _add(branch, found, level, everything=everything)
    only_undo = [i for i, level in enumerate(run.graph.level_of) if level < 0]
    if only_undo:
        branch = tree.add(text("only to undo", "bold"))
        _add(branch, found, only_undo, everything=everything)
    return tree


def _add(
    branch: "Tree", found: _Found, level: "tuple[int, ...] | list[int]", *, everything: bool
) -> None:
    """Add the actions of a level; of a large one, those of which there is something to say."""
    left: Counter[str] = Counter()
    plain = 0
    for index in level:
        state = found.run.actions[index]
        is_plain = _status(state) in ("succeeded", "not started")
        plain += is_plain
        if is_plain and plain > MAX_PER_LEVEL and not everything:
            left[_status(state)] += 1
            continue
        _add_action(branch, found, index)
    for status, count in left.items():
        branch.add(text(f"... and {count:,} more {status} (--all shows them)"))


def _add_action(branch: "Tree", found: _Found, index: int) -> None:
    from rich.text import Text

    state = found.run.actions[index]
    action = state.action
    parts: list[Text] = [text(action.id, "bold"), text(action.tool or action.type.value)]
    parts.append(status_text(_status(state)))
    if state.duration_us:
        parts.append(text(duration(state.duration_us / 1000)))
    if state.do.number > 1:
        parts.append(text(f"{state.do.number} attempts"))
    if state.deduplicated:
        parts.append(text("remembered"))
    if action.id in found.spent:
        parts.append(text(found.spent[action.id]))
    hard = [found.run.actions[needed].action.id for needed in found.run.graph.hard[index]]
    if hard:
        more = f" and {len(hard) - 3} more" if len(hard) > 3 else ""
        parts.append(text(f"after {', '.join(hard[:3])}{more}", "dim"))
    node = branch.add(Text("  ").join(parts))
    _add_details(node, state)


def _add_details(node: "Tree", state: ActionState) -> None:
    if state.error is not None:
        node.add(text(state.error[:500], "red"))
    for attempts, what in ((state.do, "attempt"), (state.undo, "attempt to undo")):
        if attempts.doubt is not None:
            reason = f"nobody knows what became of {what} {attempts.doubt.attempt}: "
            node.add(text(reason + attempts.doubt.reason, "yellow"))
    if state.undone is not None:
        how = "undone" if state.undone else f"could not be undone: {state.undo_error}"
        node.add(text(how[:500], "magenta" if state.undone else "red"))
    if state.status is ActionStatus.SUCCEEDED and state.output is not None:
        node.add(text(brief(state.output, 100), "dim"))


def _status(state: ActionState) -> str:
    if state.do.doubt is not None or state.undo.doubt is not None:
        return "in doubt"
    if state.rolled_back:
        return "rolled_back"
    if state.status is not None:
        return state.status.value
    if state.do.open:
        return "executing"
    return "retrying" if state.do.retry_at_us is not None else "not started"


def _tail(database: str, found: _Found) -> None:
    result, cost = result_of(found.run), cost_of(found.run)
    for left in result.not_undone:
        write(f"Not undone: {left.action_id}: {left.reason}")
    for conflict in result.conflicts:
        write(f"Left alone, since somebody else has set it: state key {conflict.key!r}")
    total: Counter[str] = Counter()
    for spent in found.spent.values():
        total += spent.micros
    write(
        f"{cost.tool_calls:,} tool calls, {cost.retries:,} retries, "
        f"{duration(cost.total_duration_ms) or '0 ms'} in actions, {_amounts(total)}"
    )
    if found.at is not None:
        return
    if found.run.status is RunStatus.WAITING:
        write(f"Next: {next_step(database, result)}")
    elif found.run.status is RunStatus.RUNNING and found.driver is None:
        write(f"Next: {resume_command(database, found.run.run_id, 'FILE_OR_MODULE')}")
