"""Static checks: what can be known of a plan before anything runs.

They ask the rules of the engine, and no others, with what is known; where something is not known,
they say so instead of guessing. `docs/checks.md` tells each check and its limits.
"""

from engine.checks.equivalent import Comparison, equivalent
from engine.checks.issues import Code, Issue, Report, Severity
from engine.checks.optimize import Optimized, optimize
from engine.checks.simulate import Forecast, KeyForecast, Simulation, simulate
from engine.checks.transactions import Conflict, ConflictKind, Party, transaction_check
from engine.checks.unknown import Unknown
from engine.checks.verify import verify

__all__ = [
    "Code",
    "Comparison",
    "Conflict",
    "ConflictKind",
    "Forecast",
    "Issue",
    "KeyForecast",
    "Optimized",
    "Party",
    "Report",
    "Severity",
    "Simulation",
    "Unknown",
    "equivalent",
    "optimize",
    "simulate",
    "transaction_check",
    "verify",
]
