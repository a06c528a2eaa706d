"""The rules of one runtime: which it has, that the log knows them, and which bind a run."""

from collections.abc import Sequence

from carstore import Store
from engine import registry
from engine.authority import NOBODY, Authority
from engine.policies import PolicyChanged, only_once
from engine.rules.capabilities import NAME, CapabilitySet, as_policy
from engine.rules.policies import Policy
from engine.run import Run

__all__ = ["Rulebook"]


class Rulebook:
    """Rules judge the runs that begin while they are in it, and stay bound to those."""

    def __init__(
        self, store: Store, policies: Sequence[Policy], capabilities: CapabilitySet | None
    ) -> None:
        self._store = store
        self._policies = {one.name: one for one in only_once(policies)}
        self._registered = False
        if capabilities is not None:
            self.permit(capabilities)

    def permit(self, capabilities: CapabilitySet | None) -> None:
        """What runs may use; None: everything."""
        if capabilities is None:
            self._policies.pop(NAME, None)
        else:
            self.add(as_policy(capabilities))

    def add(self, policy: Policy) -> None:
        """Add a rule; one of the same name makes way for it."""
        self._policies[policy.name] = policy
        self._registered = False

    async def remove(self, name: str, by: str) -> None:
        """Take a rule out of force.

        Raises:
            NotFound: it is not in force.
        """
        await registry.remove(self._store, name, by)
        self._policies.pop(name, None)

    async def current(self) -> Authority:
        """The rules for a run that begins; the log knows them from here on."""
        if not self._policies:
            return NOBODY
        if not self._registered:
            by = str(self._store.leases.holder)
            await registry.register(self._store, list(self._policies.values()), by)
            self._registered = True
        return Authority(tuple(self._policies.values()))

    async def binding(self, run: Run) -> Authority:
        """The rules that a run began under.

        Raises:
            PolicyChanged: one of them is code, and was not given again, or is another version.
        """
        if not run.received.policies:
            return NOBODY
        given = list(self._policies.values())
        try:
            return Authority(await registry.bound(self._store, run.received.policies, given))
        except PolicyChanged as changed:
            changed.run_id = run.run_id
            raise
