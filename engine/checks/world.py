"""The state as far as it can be known before a plan runs.

Actions are taken in the order of their levels. The graph orders everything that a plan declares
about one key, so for those keys this order gives what every run sees. A tool that is handed a
context can write any key as it succeeds, and nothing orders that but the graph: such a tool makes a
key unknown to every action that does not certainly end before the tool begins, unless the key was
written by an action that certainly begins after the tool has ended.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from carstore.log import StateRead
from carstore.names import Json, Position
from engine.checks.unknown import Unknown, has_unknown
from engine.problems import shown
from engine.rules.graph import Graph, keys_written

__all__ = ["Slot", "World", "following"]


@frozen
class Slot:
    """What is known of one key at one moment."""

    exists: bool | None
    """None: nobody knows."""
    value: Any
    """May be, or hold, an `Unknown`; None if it does not exist."""
    why: str
    """Where that is known from, or why it is not: the end of `reads 'x', which ...`."""
    by: int | None = None
    """The action that made it so, or saw that it is so; None: what was there before the plan."""
    position: int | None = None
    """Of the key's newest change; None: nobody knows."""

    @property
    def known(self) -> bool:
        """Whether all of it is known."""
        return self.exists is not None and not has_unknown(self.value)

    def read(self) -> StateRead:
        """As the engine would read it; only of what is known."""
        return StateRead(self.value, bool(self.exists), Position(self.position or 0))


@define
class World:
    """The state while a plan is followed."""

    before: Mapping[str, Json] | None
    """The whole state before the plan; None: nobody knows any of it."""
    positions: Mapping[str, int] | None
    """Of the newest change of keys; None: nobody knows."""
    graph: Graph
    writers: int
    """The actions whose tool may write any key, as a bit each."""
    _before: list[int] = field(init=False)
    _after: list[int] = field(init=False)
    _slots: dict[str, Slot] = field(factory=dict)
    _written: dict[str, int] = field(factory=dict)
    """By key, the actions that have written it, as a bit each."""
    _may_write: dict[str, int] = field(factory=dict)
    """By key, the actions that say they write it."""

    def __attrs_post_init__(self) -> None:
        self._before, self._after = following(self.graph)
        for index in self.graph.forward:
            for key in keys_written(self.graph.actions[index]):
                self._may_write[key] = self._may_write.get(key, 0) | 1 << index

    def at(self, index: int, key: str) -> Slot:
        """What an action sees when its turn comes."""
        slot = self._slot(key)
        return self._shaken(key, slot, self.writers & ~self._after[index] & ~(1 << index))

    def at_end(self, key: str) -> Slot:
        """What the plan leaves."""
        return self._shaken(key, self._slot(key), self.writers)

    def write(self, index: int, key: str, value: Any) -> None:
        """The action succeeds and writes the key."""
        self._written[key] = self._written.get(key, 0) | 1 << index
        name = self.graph.actions[index].id
        text = value.why if isinstance(value, Unknown) else shown(value)
        if isinstance(value, dict | list) and has_unknown(value):
            text = "something that is not all known"
        self._slots[key] = Slot(exists=True, value=value, why=f"{name} writes as {text}", by=index)

    def own(self, index: int, key: str) -> bool | None:
        """Whether the plan itself has written the key when the action's turn comes; None if
        nobody knows."""
        if self._written.get(key, 0) & self._before[index]:
            return True
        others = self._may_write.get(key, 0) | self.writers
        return None if others & ~self._after[index] & ~(1 << index) else False

    def settles(self, index: int, key: str) -> bool:
        """Whether the graph orders the action and all that say they write the key, although the
        action itself does not name it."""
        around = self._before[index] | self._after[index] | 1 << index
        return not self._may_write.get(key, 0) & ~around

    def saw(self, index: int, key: str, slot: Slot) -> None:
        """The action goes on only if the key is so."""
        self._slots[key] = evolve(slot, by=index)

    def forget_writer(self, index: int) -> None:
        """The action's tool is not called after all."""
        self.writers &= ~(1 << index)

    def keys(self) -> Iterator[str]:
        """The keys of which anything can be said."""
        yield from sorted({*self._slots, *(self.before or ())})

    def ordered(self, one: int, other: int) -> bool:
        """Whether one of two actions certainly ends before the other begins."""
        return bool((self._before[one] >> other | self._before[other] >> one) & 1)

    def is_before(self, one: int, other: int) -> bool:
        """Whether `one` certainly ends before `other` begins."""
        return bool(self._before[other] >> one & 1)

    def _slot(self, key: str) -> Slot:
        return self._slots.get(key) or self.first(key)

    def first(self, key: str) -> Slot:
        """What was there before the plan."""
        if self.before is None:
            return Slot(None, Unknown(f"the state of '{key}'"), "is not known: no state was given")
        position = None if self.positions is None else self.positions.get(key, 0)
        if key not in self.before:
            why = "does not exist in the given state"
            return Slot(exists=False, value=None, why=why, position=position)
        value = self.before[key]
        text = value.why if isinstance(value, Unknown) else f"is {shown(value)}"
        why = f"{text} in the given state"
        return Slot(exists=True, value=value, why=why, position=position)

    def _shaken(self, key: str, slot: Slot, writers: int) -> Slot:
        if writers and slot.by is not None:
            writers &= ~self._before[slot.by] & ~(1 << slot.by)
        if not writers:
            return slot
        first = (writers & -writers).bit_length() - 1
        name = self.graph.actions[first].id
        why = f"the tool of {name} may write: it is handed a context"
        return Slot(None, Unknown(f"the state of '{key}'"), why)


def following(graph: Graph) -> tuple[list[int], list[int]]:
    """For each action those that certainly end before it begins, and those that certainly begin
    after it has ended; a bit for each."""
    before, after = [0] * len(graph.actions), [0] * len(graph.actions)
    order = [index for level in graph.levels() for index in level]
    for index in order:
        for needed in graph.needs[index]:
            before[index] |= before[needed] | 1 << needed
    for index in reversed(order):
        for dependent in graph.dependents[index]:
            after[index] |= after[dependent] | 1 << dependent
    return before, after
