"""Exit codes: what programs may rely on."""

from enum import IntEnum

from engine.ir import RunStatus

__all__ = ["Exit", "of_status", "worst"]


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    """It did what it was asked to; a run succeeded."""
    FAILED = 1
    """The work failed or was rolled back, a live process owns it, or a check found a fault."""
    BAD_INPUT = 2
    WAITING = 3
    """Some run waits for a person."""
    INTERRUPTED = 130


_OF_STATUS = {
    RunStatus.RUNNING: Exit.FAILED,
    RunStatus.WAITING: Exit.WAITING,
    RunStatus.SUCCEEDED: Exit.DONE,
    RunStatus.FAILED: Exit.FAILED,
    RunStatus.ROLLED_BACK: Exit.FAILED,
    RunStatus.PARTIALLY_COMPENSATED: Exit.FAILED,
    RunStatus.CANCELLED: Exit.FAILED,
}


def of_status(status: RunStatus) -> Exit:
    """The exit code for a run of that status."""
    return _OF_STATUS[status]


def worst(codes: list[Exit]) -> Exit:
    """The exit code for several runs: a failure goes before one that waits."""
    for code in (Exit.FAILED, Exit.WAITING):
        if code in codes:
            return code
    return Exit.DONE
