"""Running proofs one after the other, each in a folder that goes unless something was found."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from carstore.errors import CarstoreError
from engine.prove.broken import Breakage
from engine.prove.family import ProofFailed
from engine.prove.proof import Outcome, Progress, Proof, Scale

__all__ = ["Attempted", "Conducted", "attempt", "conduct"]

TRIES = 3
"""How often a broken promise is tried until that is noticed."""


@frozen(kw_only=True)
class Conducted:
    """A proof and what came of it."""

    proof: Proof
    outcome: Outcome
    kept: Path | None
    """Where the files are with which a promise was broken."""


@frozen(kw_only=True)
class Attempted:
    """A promise broken on purpose, and whether its proof noticed."""

    breakage: Breakage
    found: str
    """The first thing that was found; nothing if the proof did not notice."""
    skipped: str | None
    """Why its proof could not be run."""

    @property
    def missed(self) -> bool:
        """Whether the proof ran and did not notice: then it proves nothing."""
        return not self.found and self.skipped is None


def conduct(proof: Proof, scale: Scale, seed: int, progress: Progress) -> Conducted:
    """Run one proof."""
    place = Path(tempfile.mkdtemp(prefix="carstore-proof-"))
    outcome = None
    try:
        outcome = proof.conduct(place, scale, seed, progress)
    finally:
        if outcome is None or not outcome.broken:
            shutil.rmtree(place, ignore_errors=True)
    return Conducted(proof=proof, outcome=outcome, kept=place if outcome.broken else None)


def attempt(
    breakage: Breakage, proofs: Mapping[str, Proof], seed: int, progress: Progress
) -> Attempted:
    """Break a promise, and run the short form of the proof that must notice, up to three times:
    processes that meet by chance may miss each other in one of them.

    An error of the store counts as noticed; that the proof itself comes to grief does not.
    """
    for nth in range(TRIES):
        tried = _attempt(breakage, proofs, seed + nth, progress)
        if not tried.missed:
            break
    return tried


def _attempt(
    breakage: Breakage, proofs: Mapping[str, Proof], seed: int, progress: Progress
) -> Attempted:
    found, skipped = "", None
    with tempfile.TemporaryDirectory(
        prefix="carstore-proof-", ignore_cleanup_errors=True
    ) as folder:
        try:
            with breakage.applied():
                outcome = proofs[breakage.caught_by].run(Path(folder), "short", seed, progress)
            found, skipped = next(iter(outcome.broken), ""), outcome.skipped
        except ProofFailed:
            pass
        except CarstoreError as error:
            found = error.message
    return Attempted(breakage=breakage, found=found, skipped=skipped)
