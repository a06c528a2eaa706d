"""What is wrong with a proposal, collected: every fault with its place, not only the first.

Proposals are written by models, so all that is shown of them is bounded, and escaped for a
terminal: a value by its first characters, a path by its ends, an error by its first problems.
"""

import difflib
import json
from collections.abc import Collection
from enum import StrEnum
from typing import ClassVar

from attrs import define, frozen

from carstore.errors import CarstoreError
from carstore.names import Json

__all__ = [
    "InvalidProposal",
    "Problem",
    "ProblemCode",
    "Step",
    "path_text",
    "printable",
    "shown",
    "suggestion",
    "with_value",
]

Step = str | int
"""One step into JSON: the key of an object or the index of an array."""

MAX_SHOWN_CHARS = 80
"""Characters shown of one value, name or step: enough to find it again, and one line."""

MAX_PATH_CHARS = 300
"""Characters of a path. A deeper one keeps its ends, which say where to begin and what is meant."""

MAX_PROBLEMS_SHOWN = 10
"""Problems in the message of an error; all of them are in its `problems`."""

_MAX_CANDIDATES = 200
"""Names compared for a suggestion. Comparing is slow, and a hostile plan can have many names."""


class ProblemCode(StrEnum):
    """The closed list of what can be wrong with a proposal that was not executed."""

    INVALID_JSON = "invalid_json"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_VALUE = "unknown_value"
    OUT_OF_RANGE = "out_of_range"
    INVALID_ID = "invalid_id"
    INVALID_KEY = "invalid_key"
    INVALID_SOURCE = "invalid_source"
    INVALID_TIMESTAMP = "invalid_timestamp"
    DUPLICATE_ID = "duplicate_id"
    UNKNOWN_ACTION = "unknown_action"
    UNKNOWN_REFERENCE = "unknown_reference"
    INVALID_COMPENSATION = "invalid_compensation"
    WAITS_FOR_COMPENSATION = "waits_for_compensation"
    CYCLE = "cycle"


@frozen
class Problem:
    """One fault of a proposal.

    `path` leads to the value at fault (`actions[3].timeout_ms`; `$` is the whole proposal).
    `message` shows the value and says what is allowed.
    """

    code: ProblemCode
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@define(slots=False, eq=False)
class InvalidProposal(CarstoreError):
    """A proposal that cannot be executed as it is. Nothing was started and nothing recorded.

    `problems` are all that were found, in order of place; `complete` is False when looking was
    given up because there were too many.
    """

    code: ClassVar[str] = "invalid_proposal"
    problems: tuple[Problem, ...]
    complete: bool = True

    @property
    def message(self) -> str:
        if len(self.problems) == 1 and self.complete:
            return str(self.problems[0])
        count = f"{len(self.problems):,}{'' if self.complete else ' or more'}"
        lines = [f"the proposal has {count} problems:"]
        lines += [f"  {problem}" for problem in self.problems[:MAX_PROBLEMS_SHOWN]]
        if (left := len(self.problems) - MAX_PROBLEMS_SHOWN) > 0:
            lines.append(f"  and {left:,} more")
        return "\n".join(lines)

    @property
    def where(self) -> str | None:
        return self.problems[0].path if self.problems else None


def shown(value: Json) -> str:
    """`value` for a message: bounded, in ASCII, a container by its size only."""
    if isinstance(value, str):
        return json.dumps(_cut(value, MAX_SHOWN_CHARS))
    if isinstance(value, dict):
        return f"an object of {len(value):,}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value):,}" if value else "an empty list"
    return _cut(json.dumps(value), MAX_SHOWN_CHARS)


def with_value(value: str, reason: str) -> str:
    """`reason`, which may speak of the value without showing it, as a message that shows it."""
    return f"{shown(value)} {reason}" if reason.startswith(("is ", "has ")) else reason


def path_text(steps: tuple[Step, ...]) -> str:
    """`("actions", 3, "tool")` as `actions[3].tool`; keys that are no plain word are quoted."""
    if not steps:
        return "$"
    text = "".join(_step_text(step) for step in steps).removeprefix(".")
    if len(text) <= MAX_PATH_CHARS:
        return text
    half = MAX_PATH_CHARS // 2
    return f"{text[:half]}...{text[-half:]}"


def suggestion(name: str, known: Collection[str]) -> str:
    """`; did you mean "x"?` for the known name nearest to `name`, or nothing."""
    if len(name) > MAX_SHOWN_CHARS or len(known) > _MAX_CANDIDATES:
        return ""
    nearest = difflib.get_close_matches(name, known, n=1)
    if not nearest and len(name) > 1:
        nearest = [longer for longer in known if longer.startswith(name)]
    return f"; did you mean {json.dumps(nearest[0])}?" if nearest else ""


def printable(text: str) -> str:
    """`text` with whatever a terminal could act on escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _step_text(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if step.isascii() and step.replace("_", "").replace("-", "").isalnum() and len(step) <= 80:
        return f".{step}"
    return f"[{json.dumps(_cut(step, MAX_SHOWN_CHARS))}]"


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 3] + "..."
