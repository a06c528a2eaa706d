"""What is known of one action of a run: what was tried, what came of it, what it waits for."""

from attrs import define, field

from carstore import events as e
from carstore.names import Json, Micros
from carstore.people import person
from engine.ir import Action, ActionStatus

__all__ = ["ActionState", "Approval", "Attempts", "Doubt"]


@define
class Doubt:
    """An attempt of which nobody knows what became."""

    attempt: int
    tool: str
    reason: str
    answer: e.DoubtResolved | None = None
    """What somebody said about it, before the driver acted on that."""


@define
class Attempts:
    """The calls made for one purpose: to do an action, or to undo it."""

    number: int = 0
    """Of the attempt that was begun last, counted from 1 over the whole run."""
    open: bool = False
    """Whether an intent stands without an outcome."""
    retry_at_us: int | None = None
    """When the next attempt is due, by the wall clock; None: no retry is due."""
    doubt: Doubt | None = None


@define
class Approval:
    """A request for people's consent, and what they answered."""

    request: e.ApprovalRequested
    answers: list[e.ApprovalAnswered] = field(factory=list)
    """To this very request, in order."""

    @property
    def refusal(self) -> e.ApprovalAnswered | None:
        """The answer that decided against it, if one did: the first that is none of consent."""
        consents: set[str] = set()
        for answer in self.answers:
            if not answer.approved:
                return answer
            consents.add(person(answer.by))
            if len(consents) >= self.request.approvers:
                return None
        return None

    @property
    def granted(self) -> bool:
        """Whether enough different people have consented, and nobody had refused before."""
        consents = {person(answer.by) for answer in self.answers if answer.approved}
        return self.refusal is None and len(consents) >= self.request.approvers

    def expired(self, now: int) -> bool:
        """Whether it is too late to answer; an answer that was given in time stays."""
        expires_at = self.request.expires_at
        return not self.granted and expires_at is not None and expires_at <= now

    def is_open(self, now: int) -> bool:
        """Whether it still waits for somebody."""
        return not (self.granted or self.refusal is not None or self.expired(now))


@define
class ActionState:
    """What is known of one action."""

    action: Action
    status: ActionStatus | None = None
    """None until it is settled."""
    do: Attempts = field(factory=Attempts)
    undo: Attempts = field(factory=Attempts)
    output: Json = None
    error: str | None = None
    duration_us: int | None = None
    """Of all attempts together."""
    settled_at: Micros | None = None
    state_changes: dict[str, Json] = field(factory=dict)
    reuse_key: str | None = None
    """Under which its result is, or will be, remembered."""
    approval: Approval | None = None
    judged: bool = False
    """Whether it has passed every check before a call: then its retries are not judged again."""
    wait: e.WaitStarted | None = None
    """What it waits for, while it does."""
    waited: bool = False
    """Whether it was a wait, so that no tool was called for it."""
    deduplicated: bool = False
    rolled_back: bool = False
    maybe_done: bool = False
    """Whether a policy counts it as failed although it may have been carried out."""
    undone: bool | None = None
    """Whether its compensation succeeded; None: there was none, or it is not over."""
    undo_output: Json = None
    undo_error: str | None = None
