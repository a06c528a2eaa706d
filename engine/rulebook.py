"""The rules of one runtime: which it has, that the log knows them, and which bind a run.

A change takes hold at once, and is put down in the log as the next run begins. Putting down takes a
while, and rules may change meanwhile; so what a run is bound to is what was put down for it.
"""

import asyncio
from collections.abc import Sequence

from carstore import Store
from carstore.errors import NotFound
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
        self._gone: dict[str, str] = {}
        """Digests by name of the rules that were given up, and the log may not know that."""
        self._changes = 1
        """How often the rules were changed; and how many of these changes the log knows."""
        self._put_down = 0
        self._recording = asyncio.Lock()
        if capabilities is not None:
            self.permit(capabilities)

    def permit(self, capabilities: CapabilitySet | None) -> None:
        """What runs may use; None: everything."""
        if capabilities is not None:
            self.add(as_policy(capabilities))
            return
        gone = self._policies.pop(NAME, None)
        if gone is not None:
            self._gone[NAME] = gone.digest
            self._changes += 1

    def add(self, policy: Policy) -> None:
        """Add a rule; one of the same name makes way for it.

        Raises:
            InvalidPolicy: it is not a policy, or has the name of permissions and is none.
        """
        [one] = only_once([policy])
        self._policies[one.name] = one
        self._gone.pop(one.name, None)
        self._changes += 1

    async def remove(self, name: str, by: str) -> None:
        """Take a rule out of force, also one that no run has begun under yet.

        Raises:
            NotFound: it is neither here nor in force.
        """
        async with self._recording:
            held = self._policies.get(name)
            try:
                await registry.remove(self._store, name, by)
            except NotFound:
                if held is None:
                    raise
            self._gone.pop(name, None)
            if self._policies.get(name) is held:  # else another one was added meanwhile
                self._policies.pop(name, None)

    async def current(self) -> Authority:
        """The rules for a run that begins; the log knows exactly these from here on."""
        async with self._recording:
            policies, gone, changes = tuple(self._policies.values()), self._gone, self._changes
            if changes != self._put_down and (policies or gone):
                by, self._gone = str(self._store.leases.holder), {}
                try:
                    await registry.register(self._store, policies, by, gone)
                except BaseException:
                    self._gone = gone | self._gone
                    raise
            self._put_down = changes
        return Authority(policies) if policies else NOBODY

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
