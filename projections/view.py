"""What a view is: a keyed table, and one pure function that says which rows an event changes.

Everything else follows from that and is written once for all views: folding in memory, the stored
table and its catch-up, the view as of a position, the rebuild, the checksum.

An event names every row that it changes: `keys` tells them from the event alone, `evolve` is given
these rows and answers with those that are different afterwards. No scans and no joins, so folding
costs the same at any size. Both are pure, and total: a log may hold, from another program, any
event in any order, and a view that raised would be stuck there.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin

import attrs
from attrs import field, frozen

from carstore.events import KINDS, Event
from carstore.log import Recorded
from projections.errors import InvalidView

E = TypeVar("E", bound=Event)
"""The events a view reads."""

R = TypeVar("R")
"""Its rows: a frozen attrs class with a field for each column."""

Key: TypeAlias = tuple[str | int, ...]
"""The values of a row's key columns."""

Rows: TypeAlias = Mapping[Key, R | None]
"""Rows by key; None where there is none."""

RESERVED = frozenset(
    {
        "blobs",
        "events",
        "lease_effects",
        "leases",
        "log",
        "search",
        "stream_heads",
        "streams",
        "view_positions",
    }
)
"""Names of the schema, and of the index of the search, which no stored view can have."""

RESERVED_BEGINNINGS = ("sqlite_", "view_")
"""Of SQLite's own tables, and of those that hold the rows of views."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}\Z")
_MAX_INT = 2**63 - 1


class Column(NamedTuple):
    """One field of a row: `type` is str, int or bool, with or without None."""

    name: str
    type: type
    nullable: bool


@frozen(kw_only=True, eq=False)
class View(Generic[E, R]):
    """A projection of the log.

    Raises:
        InvalidView: on construction, if a name could not stand in SQL, or the parts do not fit.
    """

    name: str
    """Lower case; also the name of the SQL view for people."""
    version: int
    """Raised whenever `row` or the meaning of `evolve` changes; each has a table of its own."""
    kinds: tuple[type[E], ...]
    """The events it reads. All others leave it as it is."""
    row: type[R]
    key: tuple[str, ...]
    """The columns that identify a row."""
    keys: Callable[[E, Recorded], Iterable[Key]]
    """The keys of the rows that an event may change, from nothing but the event and its place."""
    evolve: Callable[[Rows[R], E, Recorded], Rows[R]]
    """From the rows named by `keys` to those that are different after the event; None deletes."""
    inline: str | None = None
    """For a view that the file's own triggers keep: the statement of `queries.sql` that reads it.
    It is never caught up; its fold is the twin that `compare` holds against the file."""
    newest: str | None = None
    """For a view in which only the newest event of each row counts: the statement of `queries.sql`
    that finds these as of a position. Folding them gives the same rows, and is much quicker."""

    columns: tuple[Column, ...] = field(init=False, repr=False)
    key_columns: tuple[Column, ...] = field(init=False, repr=False)
    """Those of `key`, in its order."""
    reads: frozenset[str] = field(init=False, repr=False)
    """The names of `kinds`."""
    values_of: Callable[[R], tuple[Any, ...]] = field(init=False, repr=False)
    """The values of a row, in order of the columns."""
    key_of: Callable[[R], Key] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._check_kinds()
        columns = tuple([self._column(one) for one in attrs.fields(self._row_class())])
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "reads", frozenset([cls.kind for cls in self.kinds]))
        object.__setattr__(self, "values_of", _getter(tuple([c.name for c in columns])))
        self._check_names()
        self._check_key()
        by_name = {column.name: column for column in columns}
        object.__setattr__(self, "key_columns", tuple([by_name[name] for name in self.key]))
        object.__setattr__(self, "key_of", _getter(self.key))

    def _row_class(self) -> type[attrs.AttrsInstance]:
        row: Any = self.row
        if not (isinstance(row, type) and attrs.has(row)):
            raise self._invalid(f"its row, {row!r:.80}, is no attrs class")
        if any(isinstance(one.type, str) for one in attrs.fields(row)):
            try:  # annotations that `from __future__ import annotations` has left as texts
                attrs.resolve_types(row)
            except NameError as error:
                raise self._invalid(f"the types of {row.__name__} are not known: {error}") from None
        return row

    def _column(self, attribute: "attrs.Attribute[Any]") -> Column:
        if not attribute.init:
            raise self._invalid(f"column {attribute.name!r} cannot be given when a row is made")
        declared: Any = attribute.type
        is_union = isinstance(declared, UnionType) or get_origin(declared) is Union
        if attribute.alias != attribute.name.lstrip("_"):
            raise self._invalid(
                f"column {attribute.name!r} is given as {attribute.alias!r} when a row is made; "
                "give it no alias, since stored rows are made by the names of their columns"
            )
        if attribute.converter is not None:
            raise self._invalid(
                f"column {attribute.name!r} has a converter, which would change stored values each "
                "time they are read; convert in `evolve`"
            )
        options = get_args(declared) if is_union else (declared,)
        plain = [option for option in options if option is not NoneType]
        if len(plain) != 1 or plain[0] not in (str, int, bool):
            raise self._invalid(
                f"column {attribute.name!r} is no str, int or bool, with or without None"
            )
        return Column(attribute.name, plain[0], len(plain) != len(options))

    def _check_kinds(self) -> None:
        if type(self.kinds) is not tuple or not self.kinds:
            raise self._invalid("`kinds` is a tuple of the events it reads, and not empty")
        for cls in self.kinds:
            name = getattr(cls, "__name__", repr(cls))
            if KINDS.get(getattr(cls, "kind", "")) is not cls:
                raise self._invalid(f"{name:.80} is not a kind of event")

    def _check_names(self) -> None:
        for name in (self.name, *[column.name for column in self.columns]):
            if type(name) is not str or not _IDENTIFIER.match(name):
                raise self._invalid(
                    f"{name!r:.80} cannot be a name in SQL: write a to z, 0 to 9 and _, first a "
                    "letter, at most 48 of them"
                )
        if self.name in RESERVED and self.inline is None:
            raise self._invalid("the schema has this name already")
        if self.name.startswith(RESERVED_BEGINNINGS):
            raise self._invalid(f"no name begins with {' or '.join(RESERVED_BEGINNINGS)}")
        if type(self.version) is not int or not 1 <= self.version <= _MAX_INT:
            raise self._invalid(f"version {self.version!r:.80} is not 1 or more")

    def _check_key(self) -> None:
        required = {column.name for column in self.columns if not column.nullable}
        if type(self.key) is not tuple or not self.key or not required.issuperset(self.key):
            raise self._invalid("`key` is a tuple of columns that are never None, and not empty")
        if len(set(self.key)) != len(self.key):
            raise self._invalid("`key` names a column twice")

    def _invalid(self, reason: str) -> InvalidView:
        return InvalidView(str(self.name), reason)

    @property
    def table(self) -> str:
        """The name of the stored table of this version, once it is complete."""
        return f"view_{self.name}_v{self.version}"

    @property
    def building(self) -> str:
        """The name of the same table until it has been at the head of the log for the first time.
        So nobody takes for whole what is not."""
        return f"{self.table}_building"


def run_key(recorded: Recorded, *rest: str | int) -> list[Key]:
    """The key of a row that belongs to the run of an event; none if the event has no run."""
    return [] if recorded.run_id is None else [(recorded.run_id, *rest)]


def add(amount: int, more: int) -> int:
    """A sum that stays within what a column holds, whatever was recorded."""
    return max(-_MAX_INT, min(amount + more, _MAX_INT))


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:
        one = attrgetter(*names)
        return lambda row: (one(row),)
    return attrgetter(*names) if names else lambda _: ()
