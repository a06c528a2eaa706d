"""All proofs, in the order in which they are told."""

from engine.prove.clock_steps import CLOCK_STEPS
from engine.prove.deciding import DECIDING
from engine.prove.disk import DISK_PROOFS
from engine.prove.flips import FLIPS
from engine.prove.kills import kills_proof
from engine.prove.many_writers import MANY_WRITERS
from engine.prove.proof import Proof
from engine.prove.restart import RESTART
from engine.prove.reusing import REUSING
from engine.prove.rules import RULES
from engine.prove.spending import SPENDING
from engine.prove.stopped import STOPPED
from engine.prove.stopping import STOPPING

__all__ = ["proofs"]


def proofs(kills: int | None = None) -> tuple[Proof, ...]:
    """Every proof; `kills` is how many processes `kills` kills, instead of what its scale says."""
    return (
        kills_proof(kills),
        *DISK_PROOFS,
        MANY_WRITERS,
        *RULES,
        STOPPED,
        CLOCK_STEPS,
        SPENDING,
        REUSING,
        DECIDING,
        STOPPING,
        FLIPS,
        RESTART,
    )
