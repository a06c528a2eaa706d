"""`carstore check`: what can be known of a plan before it runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
from attrs import field, frozen

from carstore.blobs import references
from carstore.names import MAIN_SCOPE, Json, Scope, StateKey
from engine.checks import (
    Conflict,
    KeyForecast,
    Report,
    Severity,
    Simulation,
    Unknown,
    simulate,
    transaction_check,
    verify,
)
from engine.checks.sharing import footprint
from engine.cli.errors import BadUsage
from engine.cli.exits import Exit
from engine.cli.options import at_option, check_at, json_option, reading, tools
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.run import read_plan
from engine.cli.screen import Cell, brief, print_json, show, table, text, write
from engine.cli.stopping import run_stoppable
from engine.ir import Action, Proposal
from engine.plan_json import parse_proposal
from engine.policy_file import load_permissions, load_policies
from engine.rules.capabilities import CapabilitySet
from engine.rules.policies import Policy
from engine.tools import Tools, load_tools

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["check"]

MAX_PER_LEVEL = 20
"""Actions of one level that are named; `--json` names all."""

MAX_KEYS = 200
"""Keys whose state is told; `--json` tells all."""

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


@click.command()
@click.argument("plan", metavar="PLAN")
@tools
@click.option(
    "--db",
    "database",
    metavar="DB",
    type=click.Path(),
    help="The database whose state the plan would meet; without it, no state is known.",
)
@at_option
@click.option(
    "--scope",
    default=str(MAIN_SCOPE),
    show_default=True,
    metavar="S",
    help="Which state of DB.",
)
@click.option(
    "--with",
    "others",
    metavar="PLAN",
    multiple=True,
    help="Another plan that is to run at the same time; repeatable.",
)
@click.option(
    "--policies",
    "policy_files",
    metavar="FILE",
    multiple=True,
    help="A file of policies that will judge the actions; repeatable.",
)
@click.option("--permissions", metavar="FILE", help="A file of permissions of who proposes.")
@json_option
def check(
    plan: str,
    tools: str | None,
    database: str | None,
    at: int | None,
    scope: str,
    others: tuple[str, ...],
    policy_files: tuple[str, ...],
    permissions: str | None,
    as_json: bool,
) -> int:
    """Tell every problem of PLAN, a JSON file or - for standard input, that can be known now.

    Nothing is called and nothing is written. Exit code 1 if the plan cannot succeed as it is, or
    does not go together with the others or the state.
    """
    proposals = [parse_proposal(read_plan(one)) for one in (plan, *others)]
    if at is not None and database is None:
        raise BadUsage("--at", "it is a position of a database. Say which: --db DB")
    policies = [policy for name in policy_files for policy in load_policies(name)]
    capabilities = None if permissions is None else load_permissions(permissions)
    met = _Met()
    if database is not None:
        met = run_stoppable(_met(database, Scope(scope), at, proposals))
    with tools_print_to_stderr():
        known = None if tools is None else load_tools(tools)
    found = _looked_at(proposals, known, met, policies, capabilities)
    if as_json:
        print_json(found.to_dict())
    else:
        _tell(found)
    return Exit.DONE if found.valid else Exit.FAILED


@frozen
class _Met:
    """The state that a plan would meet; None: nobody knows."""

    state: Mapping[str, Json] | None = None
    positions: Mapping[str, int] | None = None


@frozen(kw_only=True)
class _Found:
    proposal: Proposal
    report: Report
    simulation: Simulation
    conflicts: list[Conflict] = field(factory=list)

    @property
    def valid(self) -> bool:
        return self.report.valid and not self.conflicts

    def to_dict(self) -> dict[str, Json]:
        return {
            "valid": self.valid,
            "issues": [issue.to_dict() for issue in self.report.issues],
            "levels": [list(level) for level in self.report.levels],
            "simulated_state": {
                key: forecast.to_dict() for key, forecast in self.simulation.state.items()
            },
            "conflicts": [conflict.to_dict() for conflict in self.conflicts],
        }


def _looked_at(
    proposals: Sequence[Proposal],
    tools: Tools | None,
    met: _Met,
    policies: Sequence[Policy],
    capabilities: CapabilitySet | None,
) -> _Found:
    """What there is to say of the first plan, and of it together with the others."""
    return _Found(
        proposal=proposals[0],
        report=verify(
            proposals[0],
            tools=tools,
            state=met.state,
            positions=met.positions,
            policies=policies,
            capabilities=capabilities,
        ),
        simulation=simulate(proposals[0], met.state, tools=tools),
        conflicts=transaction_check(proposals, positions=met.positions, state=met.state),
    )


async def _met(path: str, scope: Scope, at: int | None, proposals: Sequence[Proposal]) -> _Met:
    """The state of a file, with the position of the newest change of each key that exists or that a
    plan assumes something about. Sensitive values are not known, so that none is shown."""
    assumed = {
        StateKey(one.key)
        for proposal in proposals
        for action in proposal.actions
        for one in action.assumptions
    }
    async with reading(path) as store:
        await check_at(store, at)
        found = await store.log.state_of(scope, at=at)
        state: dict[str, Json] = {}
        for key, read in found.items():
            value = read.value
            if any(references(value)):
                value = await store.blobs.fill(value, sensitive=False)
            hidden = any(references(value))
            state[key] = Unknown("is sensitive or too large") if hidden else value
        reads = {**found, **await store.log.state(scope, assumed, at=at)}
        return _Met(state, {key: read.position for key, read in reads.items()})


# --- for people ---


def _tell(found: _Found) -> None:
    report, simulation = found.report, found.simulation
    if report.issues:
        rows = [
            [
                text(issue.severity.value, _STYLES[issue.severity]),
                text(issue.action_id or "the plan", "bold"),
                text(issue.code.value),
                text(issue.message),
                text(issue.derived, "dim"),
            ]
            for issue in report.issues
        ]
        table(("SEVERITY", "ACTION", "CODE", "MESSAGE", "DERIVED"), rows)
        write("")
    for conflict in found.conflicts:
        write(f"conflict {conflict.kind.value} on {conflict.key}: {conflict.message}")
    show(_tree(found))
    named = {key for action in found.proposal.actions for key in _keys(action)}
    items = [(key, one) for key, one in simulation.state.items() if key in named]
    if items:
        write("")
        table(("KEY", "WOULD BE", "WHY"), [_row(key, one) for key, one in items[:MAX_KEYS]])
        if len(items) > MAX_KEYS:
            write(f"... and {len(items) - MAX_KEYS:,} more (--json tells them)")
    counts = Counter(issue.severity for issue in report.issues)
    write("")
    write(
        f"{'ok' if found.valid else 'not ok'}: {counts[Severity.ERROR]:,} errors, "
        f"{counts[Severity.WARNING]:,} warnings, {len(found.conflicts):,} conflicts"
    )


def _keys(action: Action) -> frozenset[str]:
    touched = footprint(action)
    return touched.reads | touched.writes


def _row(key: str, forecast: KeyForecast) -> list[Cell]:
    if forecast.exists is None:
        value = text("not known", "yellow")
    elif not forecast.exists:
        value = text("absent")
    elif isinstance(forecast.value, Unknown):
        value = text(forecast.value.why, "yellow")
    else:
        value = text(brief(forecast.to_dict()["value"]))
    return [text(key, "bold"), value, text(forecast.why, "dim")]


def _tree(found: _Found) -> "Tree":
    from rich.tree import Tree

    wrong = {issue.action_id: issue.severity for issue in reversed(found.report.issues)}
    calls = {action.id: action.tool or action.type.value for action in found.proposal.actions}
    levels = found.report.levels
    tree = Tree(text(f"{len(found.proposal.actions):,} actions"))
    for number, level in enumerate(levels, 1):
        branch = tree.add(text(f"level {number} of {len(levels)}", "bold"))
        for name in level[:MAX_PER_LEVEL]:
            severity = wrong.get(name)
            style = "" if severity is None else _STYLES[severity]
            branch.add(text(f"{name}  {calls[name]}", style))
        if len(level) > MAX_PER_LEVEL:
            branch.add(text(f"... and {len(level) - MAX_PER_LEVEL:,} more"))
    return tree
