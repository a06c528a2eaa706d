"""`carstore rules`: what judges the actions of runs."""

import click
from attrs import frozen

from carstore import Store, canonical
from carstore.errors import NotFound
from carstore.events import ProposalReceived
from carstore.names import Json, RunId
from engine.cli.errors import BadUsage
from engine.cli.meter import Meter
from engine.cli.options import (
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
)
from engine.cli.screen import Cell, brief, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from engine.propose import check_run_id
from engine.results import rfc3339
from projections import RULES, rows
from projections.rules import Rule

__all__ = ["rules"]


@click.command()
@database
@at_option
@click.option("--all", "everything", is_flag=True, help="Also those that were removed.")
@click.option("--run", "run", metavar="RUN", help="Those that judge this run, in force or not.")
@json_option
def rules(database: str, at: int | None, everything: bool, run: str | None, as_json: bool) -> None:
    """List the rules in force in DB, oldest first, since when, and who registered them.

    They judge the runs that begin under them. A run stays bound to those it began under, also when
    they are removed: --run tells which ones these are.
    """
    if run is not None and everything:
        raise BadUsage("--all, --run", "give one of them: --run lists all rules of the run anyway")
    run_id = None if run is None else check_run_id(run)
    found = run_stoppable(_load(database, at, run_id))
    if run_id is None and not everything:
        found = [one for one in found if one.rule is not None and one.rule.removed_at is None]
    if as_json:
        print_json([_json(one) for one in found])
        return
    if not found:
        write(_nothing(at, run_id))
        return
    removed = any(one.rule is not None and one.rule.removed_at is not None for one in found)
    titles = ["RULE", "SINCE", "BY", "WHAT IT SAYS", *(["REMOVED", "BY"] if removed else [])]
    table(titles, [_cells(one, removed=removed) for one in found])


@frozen
class _Found:
    policy: str
    digest: str
    rule: Rule | None
    """None for one that a run names, and of whose registration the log does not tell."""


async def _load(path: str, at: int | None, run_id: RunId | None) -> list[_Found]:
    async with reading(path) as store:
        await check_at(store, at)
        named = None if run_id is None else await _named(store, run_id, at)
        with Meter("rules: folded") as meter:
            held = await rows(store, RULES, at=at, progress=meter)
        known = {(one.policy, one.digest): one for one in held.values()}
        pairs = list(known) if named is None else list(named.items())
        found = [_Found(name, digest, known.get((name, digest))) for name, digest in pairs]
        return sorted(found, key=lambda one: one.rule.position if one.rule else 0)


async def _named(store: Store, run_id: RunId, at: int | None) -> dict[str, str]:
    """Name -> digest of the rules that judge a run.

    Raises:
        NotFound: there is no such run, or there was none at that position.
    """
    async for recorded in store.log.read(run=run_id, kinds=[ProposalReceived.kind], until=at):
        event = recorded.event
        assert isinstance(event, ProposalReceived)
        policies: dict[str, str] = event.policies or {}
        return policies
    raise NotFound("run", run_id, f"{command_line('runs', store.path)} lists them.")


def _nothing(at: int | None, run_id: RunId | None) -> str:
    if run_id is not None:
        return f"No rule judges run {run_id}."
    return "No rule is in force." if at is None else f"No rule was in force at position {at}."


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def _json(one: _Found) -> Json:
    rule = one.rule
    said = None if rule is None or rule.rule is None else canonical.loads_trusted(rule.rule)
    return {
        "policy": one.policy,
        "digest": one.digest,
        "rule": said,
        "registered_at": _time(rule.registered_at) if rule else None,
        "registered_by": rule.registered_by if rule else None,
        "position": rule.position if rule else None,
        "removed_at": _time(rule.removed_at) if rule else None,
        "removed_by": rule.removed_by if rule else None,
    }


def _cells(one: _Found, *, removed: bool) -> list[Cell]:
    rule = one.rule
    if rule is None:
        return [text(one.policy), text(""), text(""), text("not known")] + [text("")] * 2 * removed
    code = rule.rule is None
    cells = [
        text(rule.policy),
        text(rfc3339(rule.registered_at)),
        text(rule.registered_by),
        text("code") if code else text(brief(canonical.loads_trusted(rule.rule or ""))),
    ]
    if removed:
        cells += [text(_time(rule.removed_at) or ""), text(rule.removed_by or "")]
    return cells
