"""Every fact that can ever have happened.

`Event` is a closed union: each kind is a frozen class, listed here once. `KINDS` maps the name that
is stored to the class; nothing else in the file refers to Python. `docs/events.md` is the
catalogue.
"""

from typing import TypeAlias, get_args

from carstore.events.budgets import BudgetReserved, BudgetSet, BudgetSettled
from carstore.events.inference import InferenceMetered
from carstore.events.leases import LeaseGranted, LeaseReleased, LeaseRenewed
from carstore.events.log import BlobForgotten, LogEpochStarted, RedactionDeclared
from carstore.events.pursuits import PursuitEnded, PursuitStarted, ReplanDeclined
from carstore.events.rules import (
    ApprovalAnswered,
    ApprovalRequested,
    PolicyRegistered,
    PolicyRemoved,
    PolicyViolation,
)
from carstore.events.runs import (
    ActionDeduplicated,
    ActionExecuting,
    ActionFailed,
    ActionInDoubt,
    ActionLogged,
    ActionRejected,
    ActionRetrying,
    ActionRolledBack,
    ActionSkipped,
    ActionSucceeded,
    ActionValidated,
    CompensationExecuting,
    CompensationFailed,
    CompensationRetrying,
    CompensationSucceeded,
    CopyAccepted,
    DoubtResolved,
    ProposalCompleted,
    ProposalReceived,
    RunPaused,
    RunResumed,
)
from carstore.events.state import StateChanged, StateRollback
from carstore.events.waits import (
    CancelRequested,
    RunStopping,
    SignalSent,
    SignalTaken,
    WaitStarted,
)

Event: TypeAlias = (
    LogEpochStarted
    | BlobForgotten
    | RedactionDeclared
    | ProposalReceived
    | RunResumed
    | RunPaused
    | CopyAccepted
    | ProposalCompleted
    | ActionValidated
    | ActionRejected
    | ActionExecuting
    | ActionSucceeded
    | ActionFailed
    | ActionRetrying
    | ActionSkipped
    | ActionDeduplicated
    | ActionLogged
    | ActionInDoubt
    | DoubtResolved
    | CompensationExecuting
    | CompensationSucceeded
    | CompensationFailed
    | CompensationRetrying
    | ActionRolledBack
    | StateChanged
    | StateRollback
    | InferenceMetered
    | PolicyRegistered
    | PolicyRemoved
    | PolicyViolation
    | ApprovalRequested
    | ApprovalAnswered
    | WaitStarted
    | SignalSent
    | SignalTaken
    | CancelRequested
    | RunStopping
    | BudgetSet
    | BudgetReserved
    | BudgetSettled
    | PursuitStarted
    | PursuitEnded
    | ReplanDeclined
    | LeaseGranted
    | LeaseRenewed
    | LeaseReleased
)


KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in get_args(Event)}

SCHEMA_VERSIONS: dict[str, int] = {
    **dict.fromkeys(KINDS, 1),
    LogEpochStarted.kind: 2,
    ProposalReceived.kind: 2,
    ActionValidated.kind: 2,
    ActionExecuting.kind: 2,
    ActionDeduplicated.kind: 2,
    CompensationExecuting.kind: 2,
    InferenceMetered.kind: 2,
}
"""The shape of `data` that this program writes, per kind; `carstore.upcasts` reads older ones."""

__all__ = [
    "KINDS",
    "SCHEMA_VERSIONS",
    "ActionDeduplicated",
    "ActionExecuting",
    "ActionFailed",
    "ActionInDoubt",
    "ActionLogged",
    "ActionRejected",
    "ActionRetrying",
    "ActionRolledBack",
    "ActionSkipped",
    "ActionSucceeded",
    "ActionValidated",
    "ApprovalAnswered",
    "ApprovalRequested",
    "BlobForgotten",
    "BudgetReserved",
    "BudgetSet",
    "BudgetSettled",
    "CancelRequested",
    "CompensationExecuting",
    "CompensationFailed",
    "CompensationRetrying",
    "CompensationSucceeded",
    "CopyAccepted",
    "DoubtResolved",
    "Event",
    "InferenceMetered",
    "LeaseGranted",
    "LeaseReleased",
    "LeaseRenewed",
    "LogEpochStarted",
    "PolicyRegistered",
    "PolicyRemoved",
    "PolicyViolation",
    "ProposalCompleted",
    "ProposalReceived",
    "PursuitEnded",
    "PursuitStarted",
    "RedactionDeclared",
    "ReplanDeclined",
    "RunPaused",
    "RunResumed",
    "RunStopping",
    "SignalSent",
    "SignalTaken",
    "StateChanged",
    "StateRollback",
    "WaitStarted",
]
