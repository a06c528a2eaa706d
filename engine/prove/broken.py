"""Each promise broken on purpose: "can the proofs fail?"

A proof that cannot fail proves nothing. So each breakage here replaces, while a proof runs, one
piece of the program by one that breaks a promise, and names the proof that must catch it. Nothing
outside of this package, and of the tests, applies one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import field, frozen

from engine.prove import sabotage as do
from engine.prove import sabotage_decisions as decide
from engine.prove.sabotage import Patches

__all__ = ["BREAKAGES", "Breakage", "in_force"]

_in_force: list[str] = []


def in_force() -> str | None:
    """The name of the breakage that is applied now; the processes of a proof live with it too."""
    return _in_force[-1] if _in_force else None


@frozen
class Breakage:
    """One way to break a promise."""

    name: str
    what: str
    """What is done wrongly."""
    caught_by: str
    """The name of the proof that must notice."""
    _patch: Callable[[Patches], None] = field(repr=False)

    def apply(self) -> Patches:
        """Break it in this process, for good."""
        patches = Patches()
        self._patch(patches)
        return patches

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Break it for a while, here and in the processes that a proof starts meanwhile."""
        patches = self.apply()
        _in_force.append(self.name)
        try:
            yield
        finally:
            _in_force.pop()
            patches.undo()


BREAKAGES = {
    name: Breakage(name, what, caught_by, patch)
    for name, what, caught_by, patch in (
        (
            "acknowledge early",
            "an append is acknowledged before its commit",
            "kills",
            do.acknowledge_early,
        ),
        ("split a batch", "each event of an append is a transaction", "kills", do.split_batch),
        ("run completed again", "a resume forgets successes", "kills", do.run_completed_again),
        ("no intent", "a call is made without a durable intent", "kills", do.no_intent),
        (
            "check then write",
            "conditions are judged too early",
            "no lost update",
            do.check_then_write,
        ),
        ("forgetful views", "a view misses an event", "no lost update", do.forgetful_views),
        ("no fence", "a driver that was taken over goes on writing", "fence", do.no_fence),
        (
            "adopt a token",
            "a driver that was taken over goes on writing",
            "stopped processes",
            do.no_fence,
        ),
        ("reuse a token", "every grant gives the same token", "tokens", do.reuse_a_token),
        ("expire early", "a live holder is taken over", "expiry", do.expire_early),
        ("never stop", "a holder acts past its deadline", "clock steps", do.never_stop),
        ("synchronous off", "settings are not as promised", "settings", do.unsafe_settings),
        ("no sync", "nothing is synced", "power loss", do.unsafe_settings),
        (
            "answer early",
            "an append is acknowledged before its commit",
            "killed at an operation",
            do.acknowledge_early,
        ),
        ("torn appends", "each event of an append is a transaction", "torn writes", do.split_batch),
        ("go on regardless", "a failed sync is harmless", "failing disk", do.go_on_regardless),
        ("hopeful", "a refused append is acknowledged", "full disk", do.acknowledge_refused),
        ("raw errors", "errors of SQLite are passed on as they are", "busy", do.raw_errors),
        ("impatience", "a writer does not wait for others", "many writers", do.give_up_at_once),
        ("unchecked hashes", "verify does not compute hashes", "bit flips", do.unchecked_hashes),
        ("oversell", "a reservation rests on what was read before", "budgets", decide.oversell),
        ("count twice", "a settlement is counted twice", "budgets", decide.count_twice),
        ("forget the dead", "a call that died gives back its money", "budgets", decide.free_deaths),
        ("no claim", "equal calls do not wait for each other", "reuse", decide.no_claim),
        ("claim late", "a claim rests on an older look", "reuse", decide.claim_late),
        ("ask nobody", "a call goes before consent", "people and time", decide.ask_nobody),
        ("forgive", "a refusal is not heard", "people and time", decide.forgive),
        ("take again", "a signal stays when it is taken", "people and time", decide.take_again),
        ("wake early", "a wait ends before its time", "people and time", decide.wake_early),
        ("one more", "a run that stops goes on", "cancelled runs", decide.one_more),
        ("history first", "a restart reads the whole log", "restart", do.history_first),
    )
}
"""By name."""
