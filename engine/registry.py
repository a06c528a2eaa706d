"""Which rules are in force: registering and removing them, and binding a resumed run to its own.

Each change is an event in the stream `rules`, so that the log tells which rules judged an action,
since when they were in force and who brought them. A rule that says something else under a known
name takes the place of the old one, in one append.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from carstore import Entry, Expect, Store
from carstore import events as e
from carstore.errors import NotFound, VersionConflict
from carstore.names import RULES_STREAM
from engine.policies import InvalidPolicy, Policy, PolicyChanged, only_once
from engine.policy_file import policies_of

__all__ = ["bound", "register", "remove"]

MAX_REMEMBERED = 1000
"""Rules made from the log that are kept ready: runs are resumed one after the other, mostly under
the same ones, and compiling a pattern takes longer than all else here."""

_Known = tuple[int, Policy | None]
"""Position of the first registration, and the policy; None for one that is code."""

_remembered: dict[tuple[str, int, str, str], _Known] = {}
"""By log, its epoch, name and digest; the oldest first. What these name never changes."""


async def register(
    store: Store,
    policies: Sequence[Policy],
    by: str,
    gone: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Bring policies into force, as far as they are not, and others out of it, in one append.

    Args:
        by: which program does it, for people.
        gone: name -> digest of those that are no longer in force. One that is not, or of which
            somebody else has put another under its name, is left as it is.

    Raises:
        InvalidPolicy: two that differ have one name.
    """
    wanted = only_once(policies)
    left = {
        name: digest for name, digest in gone.items() if name not in {one.name for one in wanted}
    }
    while wanted or left:
        version, in_force = await _in_force(store)
        events: list[e.Event] = [
            e.PolicyRemoved(policy=name, digest=digest, by=by)
            for name, digest in left.items()
            if in_force.get(name) == digest
        ]
        for one in wanted:
            known = in_force.get(one.name)
            if known == one.digest:
                continue
            if known is not None:
                events.append(e.PolicyRemoved(policy=one.name, digest=known, by=by))
            events.append(
                e.PolicyRegistered(policy=one.name, digest=one.digest, rule=one.rule, by=by)
            )
        if await _appended(store, version, events):
            return


async def remove(store: Store, name: str, by: str) -> None:
    """Take a policy out of force. Runs that were begun under it stay bound to it.

    Raises:
        NotFound: no policy of that name is in force.
    """
    while True:
        version, in_force = await _in_force(store)
        if name not in in_force:
            hint = f"`carstore rules {store.path}` lists those in force."
            raise NotFound("rule", name, hint)
        event = e.PolicyRemoved(policy=name, digest=in_force[name], by=by)
        if await _appended(store, version, [event]):
            return


async def bound(
    store: Store, named: Mapping[str, str], given: Sequence[Policy]
) -> tuple[Policy, ...]:
    """The policies that judge a run which was begun under those named.

    Rules that were registered as data are made from the log; those that are code are taken from
    `given`. What else is given does not judge the run.

    Args:
        named: name -> digest, as `proposal_received.policies` tells.
        given: the policies of the runtime that resumes it.

    Returns:
        In the order in which they were registered first.

    Raises:
        PolicyChanged: one that is code is not given, or with another digest; or the log does not
            tell what one was.
        InvalidPolicy: a rule cannot be made from its data, for want of google-re2 for example.
    """
    if not named:
        return ()
    known = await _registered(store, named)
    at_hand = {one.name: one for one in given}
    found: list[tuple[int, Policy]] = []
    missing: list[str] = []
    changed: list[str] = []
    for name, digest in named.items():
        position, rebuilt = known.get((name, digest), (0, None))
        here = at_hand.get(name)
        if rebuilt is not None:
            found.append((position, rebuilt))
        elif here is not None and here.digest == digest:
            found.append((position, here))
        else:
            (missing if here is None else changed).append(name)
    if missing or changed:
        raise PolicyChanged(tuple(sorted(missing)), tuple(sorted(changed)))
    return tuple(policy for _, policy in sorted(found, key=lambda item: item[0]))


async def _in_force(store: Store) -> tuple[int, dict[str, str]]:
    """The version of the stream, and the digest of each rule in force by name."""
    version, found = 0, dict[str, str]()
    async for recorded in store.log.read(stream=RULES_STREAM):
        version = recorded.version
        match recorded.event:
            case e.PolicyRegistered(policy=name, digest=digest):
                found[name] = digest
            case e.PolicyRemoved(policy=name, digest=digest) if found.get(name) == digest:
                del found[name]
    return version, found


async def _appended(store: Store, version: int, events: Sequence[e.Event]) -> bool:
    """Append to the stream; False if somebody else has meanwhile."""
    if not events:
        return True
    expect = Expect(versions={RULES_STREAM: version})
    try:
        await store.log.append(*[Entry(RULES_STREAM, one) for one in events], expect=expect)
    except VersionConflict:
        return False
    return True


async def _registered(store: Store, named: Mapping[str, str]) -> dict[tuple[str, str], _Known]:
    """What the log says of the rules named; nothing of those that it does not know."""
    pairs = set(named.items())
    keys = {pair: (store.log_id, store.epoch, *pair) for pair in pairs}
    found = {pair: _remembered[key] for pair, key in keys.items() if key in _remembered}
    if len(found) == len(pairs):
        return found
    registrations = [e.PolicyRegistered.kind]
    async for recorded in store.log.read(stream=RULES_STREAM, kinds=registrations):
        event = recorded.event
        assert isinstance(event, e.PolicyRegistered)
        pair = (event.policy, event.digest)
        if pair in pairs and pair not in found:
            found[pair] = _remembered[keys[pair]] = (recorded.position, _rebuilt(event))
    while len(_remembered) > MAX_REMEMBERED:
        del _remembered[next(iter(_remembered))]
    return found


def _rebuilt(event: e.PolicyRegistered) -> Policy | None:
    """The policy that was registered, if it was as data."""
    if event.rule is None:
        return None
    try:
        policy = policies_of(event.rule)
    except InvalidPolicy as error:
        raise InvalidPolicy(event.policy, error.path, error.reason) from None
    if (policy.name, policy.digest) != (event.policy, event.digest):
        reason = "is not read as it was registered. Resume the run with the carstore that began it"
        raise InvalidPolicy(event.policy, "", reason)
    return policy
