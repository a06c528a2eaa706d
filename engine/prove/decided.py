"""What people are asked in a proof, and what a run must not make of their answers, of signals and
of times: read from its events, in order."""

from collections import defaultdict

from attrs import define, field, frozen

from engine.prove.crowd import Told

__all__ = ["ASKED", "PEOPLE", "SIGNALS", "Asked", "OneRun"]

PEOPLE = ("ann", "bob")

SIGNALS = 2
"""Waits for a signal of one name in each run."""


@frozen
class Asked:
    """What people are asked about one action, and what they say."""

    approvers: int = 1
    against: tuple[str, ...] = ()
    """Who refuses; the others consent."""
    silent: bool = False
    """Whether nobody says anything, so that it expires."""


ASKED = {
    "one": Asked(),
    "two": Asked(approvers=2),
    "refused": Asked(against=PEOPLE),
    "contested": Asked(against=PEOPLE[1:]),
    "late": Asked(silent=True),
}
"""By the id of the action."""


@define
class OneRun:
    """What one run was told, and what it did, in order."""

    name: str
    requests: dict[str, Told] = field(factory=dict)
    consents: dict[str, set[str]] = field(factory=lambda: defaultdict(set))
    refused: set[str] = field(factory=set)
    waits: dict[str, Told] = field(factory=dict)
    sent: dict[int, Told] = field(factory=dict)
    """By the number in the inbox; those that are not taken."""
    taken: dict[str, Told] = field(factory=dict)
    """Action -> the signal that it took."""
    came: dict[str, str] = field(factory=dict)
    """Action -> the event that settled it."""
    ends: int = 0
    broken: list[str] = field(factory=list)

    def take(self, told: Told) -> None:
        """Take in one event, and note what must not be."""
        match told.kind:
            case "approval_requested":
                self._request(told)
            case "approval_answered":
                self._answer(told)
            case "action_executing":
                self._begin(told)
            case "action_rejected":
                self._reject(told)
            case "wait_started":
                self._wait(told)
            case "signal_sent":
                self.sent[told.version] = told
            case "signal_taken":
                self._take_signal(told)
            case "action_succeeded":
                self._succeed(told)
            case "action_failed":
                self._fault(told, f"failed: {told.data['error']}")
            case "proposal_completed":
                self.ends += 1

    def _fault(self, told: Told, text: str) -> None:
        self.broken.append(f"event {told.position}: {told.action} of {self.name} {text}")

    def _request(self, told: Told) -> None:
        if told.action in self.requests:
            self._fault(told, "was asked about a second time")
        self.requests[told.action] = told

    def _answer(self, told: Told) -> None:
        action, asked = told.action, ASKED[told.action]
        decided = action in self.refused or len(self.consents[action]) >= asked.approvers
        if decided:
            self._fault(told, "was answered after that was decided")
        elif told.data["approved"]:
            self.consents[action].add(told.data["by"])
        else:
            self.refused.add(action)

    def _begin(self, told: Told) -> None:
        asked = ASKED.get(told.action)
        if asked is None:
            return
        if told.action in self.refused:
            self._fault(told, "was called although people refused")
        elif len(self.consents[told.action]) < asked.approvers:
            self._fault(told, "was called before people had consented")

    def _reject(self, told: Told) -> None:
        self.came[told.action] = told.kind
        if told.action in self.refused:
            return
        ends_at = self.requests[told.action].data["expires_at"]
        if ends_at is None:
            self._fault(told, "was rejected, and nobody had refused")
        elif told.at < ends_at:
            self._fault(told, f"was rejected {ends_at - told.at} us before the request expired")

    def _wait(self, told: Told) -> None:
        if told.action in self.waits:
            self._fault(told, "began to wait a second time")
        self.waits[told.action] = told

    def _take_signal(self, told: Told) -> None:
        found = self.sent.pop(told.data["number"], None)
        if found is None:
            self._fault(told, "took a signal that was not there, or was taken")
            return
        if any(number < found.version for number in self.sent):
            self._fault(told, "took a signal that was not the oldest")
        self.taken[told.action] = found

    def _succeed(self, told: Told) -> None:
        self.came[told.action] = told.kind
        wait = self.waits.get(told.action)
        if wait is None:
            return
        due_at, signalled = wait.data["due_at"], self.taken.get(told.action)
        if due_at is not None and told.at < due_at:
            self._fault(told, f"woke {due_at - told.at} us early")
        if wait.data["signal"] is None:
            return
        if signalled is None or signalled.data["value"] != told.data["output"]:
            self._fault(told, "ended its wait without a signal, or with another's value")

    def check_end(self) -> None:
        """Whether it ended once, and every action came to what was decided."""
        if self.ends != 1:
            self.broken.append(f"{self.name} ended {self.ends} times")
        for action in (*ASKED, *self.waits):
            no = action in self.refused or (action in ASKED and ASKED[action].silent)
            wanted = "action_rejected" if no else "action_succeeded"
            if self.came.get(action) != wanted:
                self.broken.append(f"{action} of {self.name} did not end as people decided")
        if len(self.taken) != SIGNALS:
            self.broken.append(f"{self.name} took {len(self.taken)} signals, of {SIGNALS}")
