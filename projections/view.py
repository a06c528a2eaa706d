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
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, get_args

import attrs
from attrs import field, frozen

from carstore.events import KINDS, Event
from carstore.log import Recorded

E = TypeVar("E", bound=Event)
"""The events a view reads."""

R = TypeVar("R")
"""Its rows: a frozen attrs class with a field for each column."""

Key: TypeAlias = tuple[str | int, ...]
"""The values of a row's key columns."""

Rows: TypeAlias = Mapping[Key, R | None]
"""Rows by key; None where there is none."""

RESERVED = frozenset(
    {"events", "lease_effects", "leases", "log", "stream_heads", "streams", "view_positions"}
)
"""Names of the schema, which no stored view can have."""

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
        ValueError: on construction, if a name could not stand in SQL, or the parts do not fit.
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

    columns: tuple[Column, ...] = field(init=False, repr=False)
    reads: frozenset[str] = field(init=False, repr=False)
    """The names of `kinds`."""
    values_of: Callable[[R], tuple[Any, ...]] = field(init=False, repr=False)
    """The values of a row, in order of the columns."""
    key_of: Callable[[R], Key] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        columns = tuple([_column(attribute) for attribute in attrs.fields(_attrs(self.row))])
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "reads", frozenset([cls.kind for cls in self.kinds]))
        object.__setattr__(self, "values_of", _getter(tuple([c.name for c in columns])))
        object.__setattr__(self, "key_of", _getter(self.key))
        self._check()

    def _check(self) -> None:
        for name in (self.name, *[column.name for column in self.columns]):
            if not _IDENTIFIER.match(name):
                raise ValueError(f"view {self.name!r}: {name!r} cannot be a name in SQL")
        if self.name in RESERVED and self.inline is None:
            raise ValueError(f"view {self.name!r}: the schema has this name")
        if self.version < 1:
            raise ValueError(f"view {self.name!r}: version {self.version} is not 1 or more")
        for cls in self.kinds:
            if KINDS.get(cls.kind) is not cls:
                raise ValueError(f"view {self.name!r}: {cls.__name__} is not a kind of event")
        required = {column.name for column in self.columns if not column.nullable}
        if not self.kinds or not self.key or not required.issuperset(self.key):
            raise ValueError(
                f"view {self.name!r}: it needs kinds, and a key of columns that are never None"
            )

    @property
    def table(self) -> str:
        """The name of the stored table of this version."""
        return f"view_{self.name}_v{self.version}"


def run_key(recorded: Recorded, *rest: str | int) -> list[Key]:
    """The key of a row that belongs to the run of an event; none if the event has no run."""
    return [] if recorded.run_id is None else [(recorded.run_id, *rest)]


def add(amount: int, more: int) -> int:
    """A sum that stays within what a column holds, whatever was recorded."""
    return max(-_MAX_INT, min(amount + more, _MAX_INT))


def _attrs(row: type) -> type[attrs.AttrsInstance]:
    if not attrs.has(row):
        raise ValueError(f"{row.__name__} is not an attrs class")
    return row


def _column(attribute: "attrs.Attribute[Any]") -> Column:
    declared: Any = attribute.type
    options = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    plain = [option for option in options if option is not type(None)]
    if len(plain) != 1 or plain[0] not in (str, int, bool):
        raise ValueError(f"column {attribute.name!r} is no str, int or bool, with or without None")
    return Column(attribute.name, plain[0], len(plain) != len(options))


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:
        one = attrgetter(*names)
        return lambda row: (one(row),)
    return attrgetter(*names) if names else lambda _: ()
