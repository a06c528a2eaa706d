"""`carstore approvals`, `approve`, `reject`: calls that a rule holds back until people consent."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from attrs import frozen

from carstore import Store, canonical, connect
from carstore.blobs import filled, references
from carstore.names import Json, RunId
from engine.approvals import approve as record_consent
from engine.approvals import reject as record_refusal
from engine.begin import resolved
from engine.cli.meter import Meter
from engine.cli.options import (
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
)
from engine.cli.person import person
from engine.cli.result import resume_command, tell_next
from engine.cli.screen import Cell, print_json, status_text, table, text, write
from engine.cli.stopping import run_stoppable
from engine.propose import check_run_id
from engine.results import rfc3339
from engine.rules.references import UnresolvedReference
from engine.rules.sensitive import veiled
from engine.run import Run
from projections import APPROVALS, rows
from projections.approvals import Approval

__all__ = ["approvals", "approve", "by_option", "reason_option", "reject"]

MAX_SHOWN_CHARS = 4_000
"""Characters of one call's parameters that are shown: some screens. `--json` prints all of them."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def by_option(command: _Command) -> _Command:
    """`--by NAME`; the name of the account if it is not given."""
    return click.option("--by", metavar="NAME", default=person, help="Who; else your user name.")(
        command
    )


def reason_option(command: _Command) -> _Command:
    """`--reason TEXT`."""
    return click.option("--reason", metavar="TEXT", default="", help="Why; it is recorded.")(
        command
    )


@frozen
class _Asked:
    """A request, and what whoever answers it has to know."""

    request: Approval
    parameters: Json
    """Of the call, output references replaced and sensitive values veiled."""
    status: str
    """`open`, `approved`, `refused` or `expired`."""


@click.command()
@database
@at_option
@json_option
def approvals(database: str, at: int | None, as_json: bool) -> None:
    """List the calls that a rule holds back until people have consented, with their parameters.

    A request stays in the list until its run has acted on the answer: at once if it is being
    driven, else when it is resumed.
    """
    found = run_stoppable(_load(database, at))
    if as_json:
        print_json([_json(one) for one in found])
        return
    if not found:
        write("Nothing waits for consent." if at is None else f"Nothing did at position {at}.")
        return
    titles = ("RUN", "ACTION", "TOOL", "ASKED", "EXPIRES", "CONSENTS", "WHY")
    table(titles, [_cells(one) for one in found])
    for one in found:
        _show_call(one)
    if at is None:
        tell_next(_next(database, found), as_json=False)


async def _load(path: str, at: int | None) -> list[_Asked]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("approvals: folded") as meter:
            requests = (await rows(store, APPROVALS, at=at, progress=meter)).values()
        now = store.clock.now() if at is None else await _when(store, at)
        found, runs = [], dict[str, Run]()
        for request in sorted(requests, key=lambda one: (one.requested_at, one.run_id)):
            if request.run_id not in runs:
                runs[request.run_id] = await _run(store, RunId(request.run_id), at)
            parameters = await _parameters(store, runs[request.run_id], request.action_id)
            found.append(_Asked(request, parameters, _status(request, now)))
        return found


async def _when(store: Store, at: int) -> int:
    """When the event at a position was recorded, microseconds UTC; 0 for the place before all."""
    async for recorded in store.log.read(after=max(0, at - 1), until=at):
        return recorded.recorded_at
    return 0


async def _run(store: Store, run_id: RunId, at: int | None) -> Run:
    return Run.fold(run_id, [one async for one in store.log.read(run=run_id, until=at)])


async def _parameters(store: Store, run: Run, action_id: str) -> Json:
    """What the action is called with; where a reference leads nowhere, as the plan says it."""
    planned = run.of(action_id).action.parameters
    needed = run.graph.hard[run.index[action_id]]
    sources = [planned, *[run.actions[index].output for index in needed]]
    wanted = {one for source in sources for one in references(source, sensitive=False)}
    values = await store.blobs.read(wanted, sensitive=False) if wanted else {}
    try:
        parameters: Json = resolved(run, planned, values)
    except UnresolvedReference:
        parameters = planned
    return veiled(filled(parameters, values, sensitive=False))


def _status(request: Approval, now: int) -> str:
    expired = request.expires_at is not None and request.expires_at <= now
    return "expired" if request.status == "open" and expired else request.status


def _json(one: _Asked) -> Json:
    request = one.request
    expires_at = request.expires_at
    return {
        "run_id": request.run_id,
        "action_id": request.action_id,
        "tool": request.tool,
        "parameters": one.parameters,
        "binding": request.binding,
        "reasons": canonical.loads_trusted(request.reasons),
        "approvers": request.approvers,
        "given_by": canonical.loads_trusted(request.given_by),
        "requested_at": rfc3339(request.requested_at),
        "expires_at": None if expires_at is None else rfc3339(expires_at),
        "status": one.status,
    }


def _cells(one: _Asked) -> list[Cell]:
    request = one.request
    return [
        text(request.run_id),
        text(request.action_id),
        text(request.tool),
        text(rfc3339(request.requested_at)),
        text("never" if request.expires_at is None else rfc3339(request.expires_at)),
        _consents(one),
        text(_why(canonical.loads_trusted(request.reasons))),
    ]


def _consents(one: _Asked) -> Cell:
    request = one.request
    if one.status != "open":
        return status_text(one.status)
    names = ", ".join(canonical.loads_trusted(request.given_by))
    return text(f"{request.given} of {request.approvers}" + (f" ({names})" if names else ""))


def _why(reasons: Json) -> str:
    """The reasons of the rules on one line, whatever the log holds."""
    said = []
    for one in reasons if isinstance(reasons, list) else [reasons]:
        match one:
            case {"policy": policy, "reason": reason}:
                said.append(f"{policy}: {reason}" if reason else str(policy))
            case _:
                said.append(canonical.dumps(one))
    return "; ".join(said)


def _show_call(one: _Asked) -> None:
    request = one.request
    shown = json.dumps(one.parameters, ensure_ascii=False, indent=2, sort_keys=True)
    write("")
    write(f"Action {request.action_id} of run {request.run_id}: {request.tool}, with")
    for line in shown[:MAX_SHOWN_CHARS].split("\n"):
        write(f"  {line}")
    if len(shown) > MAX_SHOWN_CHARS:
        left = len(shown) - MAX_SHOWN_CHARS
        write(f"  ... and {left:,} more characters, which --json prints")


def _next(database: str, found: Sequence[_Asked]) -> str:
    """The command that answers the oldest open request; if all are decided, that goes on."""
    for one in found:
        if one.status == "open":
            request = one.request
            return _approve_command(database, request.run_id, request.action_id, request.binding)
    return resume_command(database, found[0].request.run_id, "FILE_OR_MODULE")


def _approve_command(database: str, run_id: str, action_id: str, binding: str | None) -> str:
    about = ("--binding", binding) if binding is not None else ()
    return f"{command_line('approve', database, run_id, action_id, *about)} (or reject)"


def _answering(command: _Command) -> _Command:
    """What `approve` and `reject` take."""
    for decorate in (
        json_option,
        click.option(
            "--binding",
            metavar="HEX",
            help="What was looked at, as `approvals` tells it: refuse if the call is another now.",
        ),
        reason_option,
        by_option,
        click.argument("action", metavar="ACTION"),
        click.argument("run", metavar="RUN"),
        database,
    ):
        command = decorate(command)
    return command


@click.command()
@_answering
def approve(
    database: str,
    run: str,
    action: str,
    by: str,
    reason: str,
    binding: str | None,
    as_json: bool,
) -> None:
    """Consent that ACTION of RUN is called with the parameters that `carstore approvals` shows."""
    run_id = check_run_id(run)

    async def record() -> int:
        async with connect(database, create=False, instance="carstore approve") as store:
            return await record_consent(
                store, run_id, action, by=by, reason=reason, binding=binding
            )

    missing = run_stoppable(record())
    if as_json:
        print_json({"run_id": run_id, "action_id": action, "approved": True, "missing": missing})
    else:
        write(f"Recorded for action {action} of run {run_id}: {by} consents")
    if missing:
        others = "1 other person has" if missing == 1 else f"{missing:,} other people have"
        again = _approve_command(database, run_id, action, binding)
        tell_next(f"{others} to consent too: {again}", as_json=as_json)
    else:
        tell_next(resume_command(database, run_id, "FILE_OR_MODULE"), as_json=as_json)


@click.command()
@_answering
def reject(
    database: str,
    run: str,
    action: str,
    by: str,
    reason: str,
    binding: str | None,
    as_json: bool,
) -> None:
    """Refuse that ACTION of RUN is called: it ends as rejected, whoever has consented before."""
    run_id = check_run_id(run)

    async def record() -> None:
        async with connect(database, create=False, instance="carstore reject") as store:
            await record_refusal(store, run_id, action, by=by, reason=reason, binding=binding)

    run_stoppable(record())
    if as_json:
        print_json({"run_id": run_id, "action_id": action, "approved": False})
    else:
        write(f"Recorded for action {action} of run {run_id}: {by} refuses")
    tell_next(resume_command(database, run_id, "FILE_OR_MODULE"), as_json=as_json)
