"""How `carstore prove` tells what it is at, and what came of it."""

import sys
import time
from collections.abc import Sequence

from attrs import define

from carstore.names import Json
from engine.cli.screen import say, table, text, write
from engine.prove.conduct import Attempted, Conducted
from engine.prove.report import PLANTED, done, figure_text, machine

__all__ = ["Live", "noticed", "tell", "tell_own", "to_json", "word"]

SAY_SECONDS = 10.0
"""How often a proof says what it is at, where there is no terminal."""

MAX_TOLD = 20
"""Broken promises of one proof that are told; each is the same mistake again, most likely."""


def word(one: Conducted) -> str:
    if one.outcome.skipped is not None:
        return "skipped"
    return "holds" if one.outcome.holds else "BROKEN"


def noticed(one: Attempted) -> str:
    if one.skipped is not None:
        return "skipped"
    return "NOT NOTICED" if one.missed else "noticed"


def tell(conducted: Sequence[Conducted], attempted: Sequence[Attempted]) -> None:
    rows = [
        [text(one.proof.name), text(word(one)), text(one.proof.promise), text(done(one))]
        for one in conducted
    ]
    table(("PROOF", "HOLDS", "PROMISE", "WHAT WAS DONE"), rows)
    for one in conducted:
        _tell_broken(one)
    if attempted:
        write("")
        write("Can the proofs fail? Each promise, broken on purpose:")
        lines = [
            [
                text(one.breakage.name),
                text(noticed(one)),
                text(one.breakage.caught_by),
                text((one.found or one.skipped or "")[:100]),
            ]
            for one in attempted
        ]
        table(("BROKEN", "WAS", "BY", "AS"), lines)


def tell_own(one: Conducted) -> None:
    rows = [[text(name), text(figure_text(value))] for name, value in one.outcome.figures.items()]
    table(("WHAT", ">FIGURE"), rows)
    for line in one.outcome.notes:
        write(line)
    _tell_broken(one)
    if one.outcome.holds:
        limits = "" if one.outcome.figures["ends compared"] else ", but no end was compared"
        write(f"Holds{limits}: {one.proof.promise}")
    write(PLANTED)


def _tell_broken(one: Conducted) -> None:
    for line in list(one.outcome.broken)[:MAX_TOLD]:
        write(f"BROKEN: {one.proof.name}: {line}")
    if one.kept is not None:
        write(f"The files are kept in {one.kept}")


def to_json(
    conducted: Sequence[Conducted], attempted: Sequence[Attempted], scale: str, seed: int
) -> Json:
    return {
        "ok": not any(one.outcome.broken for one in conducted)
        and not any(one.missed for one in attempted),
        "scale": scale,
        "seed": seed,
        "machine": machine(),
        "proofs": [
            {
                "name": one.proof.name,
                "promise": one.proof.promise,
                "holds": None if one.outcome.skipped else not one.outcome.broken,
                "skipped": one.outcome.skipped,
                "figures": dict(one.outcome.figures),
                "broken": list(one.outcome.broken),
                "notes": list(one.outcome.notes),
                "seconds": round(one.outcome.seconds, 3),
                "kept": None if one.kept is None else str(one.kept),
            }
            for one in conducted
        ],
        "broken_on_purpose": [
            {
                "name": one.breakage.name,
                "what": one.breakage.what,
                "by": one.breakage.caught_by,
                "noticed": None if one.skipped else not one.missed,
                "found": one.found,
            }
            for one in attempted
        ],
    }


@define
class Live:
    """Says on standard error what a proof is at; on a terminal, in one line."""

    _said_at: float = 0.0
    _open: bool = False

    def begin(self, what: str) -> None:
        self._said_at = time.monotonic()
        if sys.stderr.isatty():
            self._line(what)

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        if sys.stderr.isatty():
            if now - self._said_at >= 0.1:
                self._said_at = now
                self._line(what)
        elif now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            say(what)

    def end(self, said: str = "") -> None:
        """Finish the line, and say how it went."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            self._open = False
        if said:
            say(said)

    def _line(self, what: str) -> None:
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()
        self._open = True
