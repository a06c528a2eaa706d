"""All views."""

from typing import Any

from projections.actions import ACTIONS
from projections.approvals import APPROVALS
from projections.budgets import BUDGETS
from projections.costs import COSTS
from projections.doubts import DOUBTS
from projections.leases import LEASES
from projections.pursuits import PURSUITS
from projections.reuse import REUSE
from projections.rules import RULES
from projections.runs import RUNS
from projections.spans import SPANS
from projections.state import STATE
from projections.streams import STREAMS
from projections.view import View
from projections.waits import WAITS

INLINE: tuple[View[Any, Any], ...] = (STREAMS, LEASES)
"""Kept by the file's own triggers, since appends are judged by them; compared, never rebuilt."""

LAZY: tuple[View[Any, Any], ...] = (
    STATE,
    RUNS,
    ACTIONS,
    SPANS,
    COSTS,
    DOUBTS,
    REUSE,
    APPROVALS,
    WAITS,
    RULES,
    PURSUITS,
    BUDGETS,
)
"""Caught up when somebody asks."""

VIEWS = INLINE + LAZY
