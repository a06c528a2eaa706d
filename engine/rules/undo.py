"""How what an action did is undone, when its run rolls back."""

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from carstore.log import StateRead
from carstore.names import Json
from engine.declare import Tool
from engine.ir import Action, ActionRef, ActionType, Reversibility, ToolCompensation

__all__ = ["Irreversible", "NothingToUndo", "Restored", "Undo", "UndoCall", "restore", "undo_of"]


@frozen
class UndoCall:
    """Call a tool, with output references resolved."""

    tool: str
    parameters: dict[str, Json]


@frozen
class Irreversible:
    """It cannot be undone, and the result has to say so."""

    reason: str


@frozen
class NothingToUndo:
    """Undoing its changes of state is all there is to do."""


Undo: TypeAlias = UndoCall | Irreversible | NothingToUndo


def undo_of(
    action: Action,
    output: Json,
    tool: Tool | None,
    named: Callable[[str], Action],
    resolve: Callable[[dict[str, Json]], dict[str, Json]],
) -> Undo:
    """How to undo a succeeded action: its own compensation goes before its tool's.

    Args:
        output: of the action.
        tool: what the action called, None if it called nothing.
        named: finds the action that an `action_ref` names.
        resolve: replaces output references in parameters.

    Raises:
        UnresolvedReference: the parameters of the compensation refer to what is not there.
    """
    compensation = action.compensation
    if isinstance(compensation, ToolCompensation):
        return UndoCall(compensation.tool, resolve(compensation.parameters))
    if isinstance(compensation, ActionRef):
        other = named(compensation.action_id)
        return UndoCall(other.tool or "", resolve(other.parameters))
    if action.type is not ActionType.TOOL_CALL or (tool is not None and tool.schema.read_only):
        return NothingToUndo()
    if tool is not None and tool.schema.compensation is not None:
        # The tool's own compensation is handed what the call was given and what it gave.
        given = {"parameters": resolve(action.parameters), "output": output}
        return UndoCall(tool.schema.compensation, given)
    if action.reversibility is Reversibility.REVERSIBLE:
        return NothingToUndo()
    if action.reversibility is Reversibility.COMPENSABLE:
        return Irreversible("declared compensable, but neither it nor its tool names how")
    return Irreversible("irreversible")


@frozen(kw_only=True)
class Restored:
    """What a rollback does about one key that the run wrote.

    `change`: the state to return to, None to leave the key alone. `theirs`: position of the write
    by somebody else that makes it so, if it is one.
    """

    change: StateRead | None
    theirs: int | None = None


def restore(newest: StateRead, base: StateRead, run_id: str, *, pending: bool) -> Restored:
    """Decide about one key.

    Args:
        newest: the key's newest recorded change.
        base: its newest recorded change that is not of the run.
        pending: whether the run has written the key since, in the append that is being made.
    """
    ours = newest.run_id == run_id
    if pending:
        return Restored(change=base if ours else newest)
    if ours:
        return Restored(change=base)
    return Restored(change=None, theirs=newest.position)
