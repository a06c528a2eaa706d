"""What it means: views folded from the log."""

from projections.actions import ACTIONS
from projections.approvals import APPROVALS
from projections.budgets import BUDGETS
from projections.catalog import LAZY, VIEWS
from projections.catch_up import catch_up
from projections.compare import Difference, compare
from projections.costs import COSTS
from projections.doubts import DOUBTS
from projections.errors import InvalidView, ViewDamaged
from projections.history import Change, changes_between, why
from projections.load import load_views
from projections.materialize import row, rows, select
from projections.memory import checksum, fold
from projections.pursuits import PURSUITS
from projections.rebuild import Rebuilt, rebuild
from projections.reuse import REUSE
from projections.rules import RULES
from projections.runs import RUNS
from projections.search import search
from projections.search_hits import Hit
from projections.spans import SPANS
from projections.standing import Standing, standings
from projections.state import STATE
from projections.view import View
from projections.waits import WAITS

__all__ = [
    "ACTIONS",
    "APPROVALS",
    "BUDGETS",
    "COSTS",
    "DOUBTS",
    "LAZY",
    "PURSUITS",
    "REUSE",
    "RULES",
    "RUNS",
    "SPANS",
    "STATE",
    "VIEWS",
    "WAITS",
    "Change",
    "Difference",
    "Hit",
    "InvalidView",
    "Rebuilt",
    "Standing",
    "View",
    "ViewDamaged",
    "catch_up",
    "changes_between",
    "checksum",
    "compare",
    "fold",
    "load_views",
    "rebuild",
    "row",
    "rows",
    "search",
    "select",
    "standings",
    "why",
]
