"""Which actions may start now.

Two modes. In `levels`, the levels of the graph run one after the other; a level runs all at once,
unless it has a single action or one whose failure aborts the run: then its actions run one by one,
as declared. In `eager`, an action may start as soon as all that it waits for is settled.

An action is handed out once. Then it is in flight until it is settled (whatever it came to: it
succeeded, failed, was rejected or skipped), or held because a person has to answer first. While
one is held, `eager` goes on with whatever does not wait for it, and `levels` with the rest of its
level. When nothing is ready, nothing is in flight and the schedule is not finished, the run must
wait.

A schedule decides nothing else: what is settled how, how many run at once and what an abort stops
are the caller's. Over a whole run it costs time in proportion to the edges.
"""

from collections.abc import Iterable
from enum import StrEnum

from engine.ir import FailureBehavior
from engine.rules.graph import Graph

__all__ = ["Schedule", "ScheduleMode"]


class ScheduleMode(StrEnum):
    """How much may run at the same time."""

    LEVELS = "levels"
    EAGER = "eager"


_BLOCKED, _IN_FLIGHT, _HELD, _SETTLED = range(4)


class Schedule:
    """Hands out the actions of a graph, as indexes, in an order that the graph allows."""

    def __init__(
        self,
        graph: Graph,
        mode: ScheduleMode = ScheduleMode.LEVELS,
        settled: Iterable[int] = (),
    ) -> None:
        """Begin, or go on with a run in which the actions `settled` are settled already."""
        self._graph = graph
        self._mode = ScheduleMode(mode)
        self._state = bytearray(len(graph.actions))
        self._unsettled = len(graph.forward)
        self._in_flight = 0
        self._missing = [len(needs) for needs in graph.needs]
        self._fresh = [index for index in graph.forward if not self._missing[index]]
        self._levels = graph.levels()
        self._one_by_one = [_one_by_one(graph, level) for level in self._levels]
        self._open = [len(level) for level in self._levels]
        self._level = 0
        self._next_in_level = 0
        for index in settled:
            self.done(index)

    @property
    def finished(self) -> bool:
        """Whether every action is settled."""
        return not self._unsettled

    @property
    def in_flight(self) -> int:
        """How many actions have been handed out and are neither settled nor held."""
        return self._in_flight

    @property
    def held(self) -> tuple[int, ...]:
        """The actions that wait for a person."""
        return tuple(i for i, state in enumerate(self._state) if state == _HELD)

    def ready(self) -> list[int]:
        """The actions that have become free to start since the last call, as declared."""
        fresh = self._from_level() if self._mode is ScheduleMode.LEVELS else self._unblocked()
        for index in fresh:
            self._state[index] = _IN_FLIGHT
        self._in_flight += len(fresh)
        return fresh

    def done(self, index: int) -> None:
        """The action is settled. It need not have been handed out before.

        Raises:
            ValueError: it is settled already, or it is one that runs only to undo.
        """
        before = self._state[index]
        if before == _SETTLED or self._graph.level_of[index] < 0:
            raise ValueError(f"action {self._name(index)} is settled already or never runs")
        self._state[index] = _SETTLED
        self._unsettled -= 1
        self._open[self._graph.level_of[index]] -= 1
        self._in_flight -= before == _IN_FLIGHT
        for dependent in self._graph.dependents[index]:
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                self._fresh.append(dependent)

    def hold(self, index: int) -> None:
        """The action waits for a person.

        Raises:
            ValueError: it is not in flight.
        """
        self._move(index, _IN_FLIGHT, _HELD)
        self._in_flight -= 1

    def release(self, index: int) -> None:
        """The person has answered: the action is in flight again, without being handed out again.

        Raises:
            ValueError: it is not held.
        """
        self._move(index, _HELD, _IN_FLIGHT)
        self._in_flight += 1

    def _move(self, index: int, before: int, after: int) -> None:
        if self._state[index] != before:
            name = "in flight" if before == _IN_FLIGHT else "held"
            raise ValueError(f"action {self._name(index)} is not {name}")
        self._state[index] = after

    def _name(self, index: int) -> str:
        return f"{self._graph.actions[index].id} (index {index})"

    def _unblocked(self) -> list[int]:
        fresh = [index for index in sorted(self._fresh) if self._state[index] == _BLOCKED]
        self._fresh.clear()
        return fresh

    def _from_level(self) -> list[int]:
        while self._level < len(self._levels):
            fresh = self._rest_of_level(self._levels[self._level], self._one_by_one[self._level])
            if fresh or self._open[self._level]:
                return fresh
            self._level += 1
            self._next_in_level = 0
        return []

    def _rest_of_level(self, level: tuple[int, ...], one_by_one: bool) -> list[int]:
        if one_by_one and self._in_flight:
            return []
        fresh: list[int] = []
        while self._next_in_level < len(level) and not (one_by_one and fresh):
            index = level[self._next_in_level]
            self._next_in_level += 1
            if self._state[index] == _BLOCKED:
                fresh.append(index)
        return fresh


def _one_by_one(graph: Graph, level: tuple[int, ...]) -> bool:
    return any(graph.actions[i].failure_behavior == FailureBehavior.ABORT for i in level)
