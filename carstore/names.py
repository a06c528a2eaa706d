"""Names for things that would otherwise all be `str` and `int`.

A `Position` cannot pass for a `Version`, nor a `RunId` for a `StreamName`: the type checker
holds them apart, and at run time they cost nothing.
"""

import re
from typing import Any, NewType, TypeAlias

Json: TypeAlias = Any
"""A JSON value: None, bool, int within 64 bits, finite float, str, list or dict with str keys."""

Position = NewType("Position", int)
"""Place in the whole log: 1, 2, 3 ... without gaps. 0 is the place before the first event."""

Version = NewType("Version", int)
"""Place in one stream: 1, 2, 3 ... without gaps. 0 is a stream without events."""

StreamName = NewType("StreamName", str)
LeaseName = NewType("LeaseName", str)
RunId = NewType("RunId", str)
ActionId = NewType("ActionId", str)
Scope = NewType("Scope", str)
StateKey = NewType("StateKey", str)
LogId = NewType("LogId", str)

FencingToken = NewType("FencingToken", int)
"""`epoch * 2**40 + position` of a grant: larger than every token granted before in its log."""

Micros = NewType("Micros", int)
"""Microseconds: since 1970-01-01 UTC for an instant, plain for a duration."""

MAIN_SCOPE = Scope("main")

_OUTPUT_REFERENCE = re.compile(r"\$+[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}?\.output(?:\.|\Z)")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")


def is_run_id(text: str) -> bool:
    """Whether `text` can name a run: 1 to 128 of `A-Z a-z 0-9 . _ : -`, first a letter or digit.

    The slash is left out because it separates a run from its inbox in stream names.
    """
    return _RUN_ID.match(text) is not None


def is_output_reference(text: str) -> bool:
    """Whether `text` has the form in which a plan refers to what an action will give,
    `$ACTION.output` or `$ACTION.output.PATH`, or the escaped form of that, with one more `$`."""
    return _OUTPUT_REFERENCE.match(text) is not None


def is_storable(name: str) -> bool:
    """Whether SQLite gives a name back as it was: a NUL ends a text for some of its functions, and
    half a surrogate pair is not UTF-8."""
    return name.isprintable() or not _UNSTORABLE.search(name)


def check_kinds(kinds: object) -> None:
    """Refuse a text where several kinds are expected: its letters would be taken for them.

    Raises:
        TypeError
    """
    if isinstance(kinds, str):
        raise TypeError(f"kinds are several texts: write kinds=[{kinds!r:.100}]")


def run_stream(run_id: RunId) -> StreamName:
    """The stream that holds what happened in a run; fenced by the lease of the same name."""
    return StreamName(f"run/{run_id}")


def inbox_stream(run_id: RunId) -> StreamName:
    """The stream in which others ask something of a run; nobody owns it."""
    return StreamName(f"run/{run_id}/inbox")


def run_lease(run_id: RunId) -> LeaseName:
    """The lease that whoever drives the run holds."""
    return LeaseName(f"run/{run_id}")


def budget_stream(budget: str) -> StreamName:
    """The stream of a budget's ledger."""
    return StreamName(f"budget/{budget}")


def pursuit_stream(pursuit: str) -> StreamName:
    """The stream of a pursuit; fenced by the lease of the same name."""
    return StreamName(f"pursuit/{pursuit}")


RULES_STREAM = StreamName("rules")
"""Where rules are registered and removed."""


def lease_stream(lease: LeaseName) -> StreamName:
    """The stream that holds the grants, renewals and releases of a lease."""
    return StreamName(f"lease/{lease}")


def lease_of(stream: StreamName) -> LeaseName | None:
    """The lease whose token an append to `stream` must carry once it was granted, if any."""
    owner, _, rest = stream.partition("/")
    fenced = owner in ("run", "pursuit") and rest and "/" not in rest
    return LeaseName(stream) if fenced else None
