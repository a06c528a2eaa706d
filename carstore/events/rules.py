"""Facts about what runs may do: rules, what they forbade, and what people allowed."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class PolicyRegistered:
    """A rule came into force for the runs that begin from now on in some runtime."""

    kind: ClassVar[str] = "policy_registered"
    policy: str
    """Its stable name, such as `deny_tool:deploy`."""
    digest: str
    """SHA-256 (hex) of what it says; a run names the rules that judge it by name and digest."""
    rule: Json
    """The rule as data; None for one that is code and has to be given again."""
    by: str
    """Which program registered it, for people."""


@frozen(kw_only=True)
class PolicyRemoved:
    """A rule is no longer in force for runs that begin from now on."""

    kind: ClassVar[str] = "policy_removed"
    policy: str
    digest: str
    by: str


@frozen(kw_only=True)
class PolicyViolation:
    """A rule forbids an action; `action_rejected` follows."""

    kind: ClassVar[str] = "policy_violation"
    action_id: str
    policy: str
    reason: str
    """Never holds what was matched: that may be a secret."""


@frozen(kw_only=True)
class ApprovalRequested:
    """A rule asks for a person's consent before the action is called."""

    kind: ClassVar[str] = "approval_requested"
    action_id: str
    tool: str
    """The tool; for an action that calls none, its type."""
    binding: str
    """SHA-256 (hex) of tool and resolved parameters: what the answer is about."""
    reasons: Json
    """List of `{policy, reason}`."""
    approvers: int = 1
    """How many different people have to consent."""
    expires_at: int | None = None
    """Microseconds UTC; from then on the request counts as refused. None: never."""


@frozen(kw_only=True)
class ApprovalAnswered:
    """A person consented, or refused. It stands in the inbox of the run."""

    kind: ClassVar[str] = "approval_answered"
    action_id: str
    binding: str
    approved: bool
    by: str
    reason: str
