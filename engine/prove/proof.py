"""What a proof is: a promise in one sentence, and a function that tries to break it.

A proof works in an empty directory of its own, draws what is random from its seed and nothing else,
and returns what it did and what it found. It never prints: `progress` is called with what it is at
("killing processes: 12 of 1,000"), as often as it likes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from attrs import evolve, field, frozen

from carstore.errors import CarstoreError

Scale = Literal["short", "normal", "long"]
"""How much is tried: seconds (`short`), about a minute (`normal`), or as much as the published
figures rest on (`long`)."""

SCALES: tuple[Scale, ...] = get_args(Scale)

Progress = Callable[[str], None]
"""Is told what a proof is at, in a few words."""

Figure = int | float


@frozen(kw_only=True)
class Outcome:
    """What one proof did and found."""

    figures: Mapping[str, Figure]
    """How much was tried and what was counted, by a name for people ("processes killed"). A
    duration ends with its unit ("ready again, p95 ms")."""
    broken: Sequence[str] = ()
    """Sentences, one for each broken promise that was found; none is what everybody hopes for."""
    skipped: str | None = None
    """Why nothing was tried ("needs a C compiler: no cc on the PATH"), or `None`."""
    notes: Sequence[str] = ()
    """What the figures mean, where they do not speak for themselves."""
    seconds: float = 0.0
    """How long it took; `Proof.conduct` fills it in."""

    @property
    def holds(self) -> bool:
        """Was something tried, and nothing found?"""
        return not self.broken and self.skipped is None


Run = Callable[[Path, Scale, int, Progress], Outcome]


@frozen
class Proof:
    """One promise, and how to try to break it."""

    name: str
    """A few words, unique, as `--only` takes them: "kill", "torn writes"."""
    promise: str
    """What is promised, in one sentence."""
    run: Run = field(repr=False)
    """`run(place, scale, seed, progress)`; `place` is an empty directory."""

    def conduct(self, place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        """Run it and take the time; an error of the store counts as a broken promise."""
        begun = time.monotonic()
        try:
            outcome = self.run(place, scale, seed, progress)
        except CarstoreError as error:
            outcome = Outcome(figures={}, broken=[f"{type(error).__name__}: {error}"])
        return evolve(outcome, seconds=time.monotonic() - begun)


def skipped(reason: str) -> Outcome:
    """Nothing was tried, because of `reason`."""
    return Outcome(figures={}, skipped=reason)


def by_scale(scale: Scale, short: int, normal: int, long: int) -> int:
    """The amount that belongs to `scale`."""
    return {"short": short, "normal": normal, "long": long}[scale]
