"""Who else refers to values that are about to be forgotten."""

from collections.abc import Iterable

from attrs import define, field

from carstore import Recorded, Store
from carstore.blobs import references_in_text
from carstore.names import RunId, Scope, StateKey
from engine.cli.errors import BadUsage

__all__ = ["check_not_shared"]

MAX_NAMED = 3
"""Others that are named; the rest is counted."""


async def check_not_shared(
    store: Store, wanted: set[str], run: RunId | None, key: tuple[Scope, StateKey] | None
) -> None:
    """Refuse values of a run, or of a key, that others refer to as well: equal large values are
    kept once. The runs that wrote the key are not others.

    Raises:
        BadUsage: saying how many values, and who the others are.
    """
    writers = set()
    if key is not None:
        writers = {one.run_id async for one in store.log.read(state=key)} - {None}
    shared: set[str] = set()
    others: dict[str, None] = {}
    reach = _Reach(store, wanted)
    async for page in store.log.pages():
        for one in page:
            ours = one.run_id == run if key is None else _of_key(one, key, writers)
            found = set() if ours else await reach.of(references_in_text(one.data))
            if found:
                shared |= found
                others.setdefault(_name(one, by_run=key is None))
    if shared:
        names = list(others)
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        raise BadUsage(
            "--run" if key is None else "--key",
            f"others refer to {len(shared)} of these {len(wanted)} values, too: {len(names)} in "
            f"all, {', '.join(names[:MAX_NAMED])}{more}. Nothing was changed. Give --shared to "
            "forget them for all, or name values by their HASH",
        )


def _of_key(one: Recorded, key: tuple[Scope, StateKey], writers: set[RunId | None]) -> bool:
    return (one.scope, one.key) == key if one.key is not None else one.run_id in writers


def _name(one: Recorded, *, by_run: bool) -> str:
    if one.run_id is not None and (by_run or one.key is None):
        return f"run {one.run_id:.100}"
    if one.key is not None:
        return f"state key {one.key:.100}"
    return f"the event at position {one.position}"


@define
class _Reach:
    """Which of the wanted values others lead to, by themselves or through what they hold."""

    store: Store
    wanted: set[str]
    _known: dict[str, set[str]] = field(factory=dict)

    async def of(self, hashes: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for one in hashes:
            if one not in self._known:
                self._known[one] = self.wanted & {one, *await self.store.blobs.read([one])}
            found |= self._known[one]
        return found
