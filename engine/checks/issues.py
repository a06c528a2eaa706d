"""What the checks find, as values."""

from enum import StrEnum

from attrs import field, frozen

from carstore.names import Json

__all__ = ["Code", "Issue", "Report", "Severity"]


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """The plan cannot fully succeed, or could not be undone as it says."""
    WARNING = "warning"
    """The plan may succeed, and is probably not what was meant."""


class Code(StrEnum):
    """What is wrong. Stable; `docs/checks.md` explains each."""

    UNKNOWN_TOOL = "unknown_tool"
    BAD_PARAMETERS = "bad_parameters"
    UNRESOLVED_REFERENCE = "unresolved_reference"
    PRECONDITION_FAILS = "precondition_fails"
    PRECONDITION_NEVER_HOLDS = "precondition_never_holds"
    STATE_DEPENDENCY_MISSING = "state_dependency_missing"
    ASSERTION_FAILS = "assertion_fails"
    BAD_OUTPUT = "bad_output"
    STALE_ASSUMPTION = "stale_assumption"
    UNKNOWN_COMPENSATION_TOOL = "unknown_compensation_tool"
    BAD_COMPENSATION = "bad_compensation"
    CAPABILITY_DENIED = "capability_denied"
    POLICY_DENIED = "policy_denied"
    TOO_MANY_ACTIONS = "too_many_actions"
    UNREACHABLE = "unreachable"
    MAY_FAIL = "may_fail"
    NEEDS_APPROVAL = "needs_approval"
    NO_WAY_BACK = "no_way_back"
    IRREVERSIBLE_BEFORE_ABORT = "irreversible_before_abort"
    RETRY_OF_ONCE = "retry_of_once"
    RACE = "race"
    READ_SET_INCOMPLETE = "read_set_incomplete"
    WRITE_SET_INCOMPLETE = "write_set_incomplete"
    TOOLS_NOT_GIVEN = "tools_not_given"


@frozen(kw_only=True)
class Issue:
    """One problem of a plan."""

    action_id: str | None
    """None: it is one of the whole plan."""
    severity: Severity
    code: Code
    message: str
    """What would happen, with which values, and what to do."""
    derived: str
    """How it was found: what was looked at, and where that comes from."""

    def to_dict(self) -> dict[str, Json]:
        """As JSON, the fields by their names."""
        return {
            "action_id": self.action_id,
            "severity": self.severity.value,
            "code": self.code.value,
            "message": self.message,
            "derived": self.derived,
        }


@frozen(kw_only=True)
class Report:
    """What `verify` found."""

    issues: tuple[Issue, ...] = field(default=())
    """Those of the whole plan first, then by action as declared; errors before warnings."""
    levels: tuple[tuple[str, ...], ...] = field(default=())
    """The ids of the actions that run, by level: no level waits for a later one."""

    @property
    def errors(self) -> tuple[Issue, ...]:
        return tuple(issue for issue in self.issues if issue.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Issue, ...]:
        return tuple(issue for issue in self.issues if issue.severity is Severity.WARNING)

    @property
    def valid(self) -> bool:
        """Whether there is no error."""
        return not self.errors
