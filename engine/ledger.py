"""Opening budgets, changing their limits, and asking what is left of them.

What calls do with them is in `engine.accounts`.
"""

from collections.abc import Mapping

from attrs import evolve

from carstore import Entry, Expect, Store
from carstore.errors import VersionConflict
from carstore.events import BudgetSet
from carstore.names import RunId, budget_stream
from engine.accounts import MAX_ANCESTORS, Ledger, after, entry_of
from engine.rules.budget import Account, Balance, BudgetExhausted, problem_with_budget
from engine.rules.money import Amount, InvalidBudget, micros_by_unit

__all__ = [
    "BudgetExhausted",
    "Ledger",
    "after",
    "balances",
    "opening",
    "set_budget",
]


def opening(
    name: str,
    limits: Mapping[str, int],
    *,
    parent: str | None = None,
    by: str = "somebody",
    run_id: RunId | None = None,
) -> Entry:
    """The event that opens a budget; append it under version 0 of its stream.

    Args:
        limits: unit -> millionths.
    """
    return entry_of(BudgetSet(budget=name, limits=dict(limits), parent=parent, by=by), run_id)


async def set_budget(
    store: Store,
    name: str,
    limits: Mapping[str, Amount | None],
    *,
    parent: str | None = None,
    by: str = "somebody",
) -> Account:
    """Open a budget, or change its limits; what is spent and reserved stays.

    Args:
        limits: decimal units by name, all of them: a unit that is missing, or None, is counted and
            not limited from then on.
        parent: the budget of which it is a part; None: as it is; empty: none.
        by: who decides that.

    Returns:
        The account as it is then.

    Raises:
        InvalidBudget: a name or a limit cannot be used, the parent would be a part of it, or the
            parent changes while something is reserved.
        NotFound: there is no such parent; or `name` is that of a run which has no budget.
    """
    for path, text in (("budget", name), ("parent", parent or None)):
        problem = None if text is None else problem_with_budget(text)
        if problem is not None:
            raise InvalidBudget(path, problem)
    micros: dict[str, int | None] = dict.fromkeys(limits)
    given = {unit: limit for unit, limit in limits.items() if limit is not None}
    micros_by_unit(dict.fromkeys(limits, 0), "limits")
    micros.update(micros_by_unit(given, "limits"))
    while True:
        done = await _set(store, name, micros, parent, by)
        if done is not None:
            return done


async def balances(store: Store, name: str) -> dict[str, Balance]:
    """The balances of a budget by unit, in millionths.

    Raises:
        NotFound: it was never set.
    """
    return dict((await Ledger(store).load(name)).balances)


async def _set(
    store: Store, name: str, limits: Mapping[str, int | None], parent: str | None, by: str
) -> Account | None:
    """Append the event; None if somebody else has changed one of the budgets meanwhile."""
    ledger = Ledger(store)
    before = await ledger.load(name, must=name.startswith("run/"))
    chosen = before.parent if parent is None else parent or None
    above = [] if chosen is None else await ledger.chain(chosen)
    if name in {account.name for account in above}:
        raise InvalidBudget("parent", f"{chosen!r} is a part of {name!r}")
    if len(above) > MAX_ANCESTORS:
        raise InvalidBudget("parent", f"at most {MAX_ANCESTORS} budgets can be above one")
    _check_parent_free(before, chosen)
    named = {**dict.fromkeys(before.balances), **limits}
    event = BudgetSet(budget=name, limits=named, parent=chosen, by=by)
    versions = {budget_stream(one.name): one.version for one in (before, *above)}
    try:
        await store.log.append(entry_of(event, None), expect=Expect(versions=versions))
    except VersionConflict:
        return None
    return evolve(before.apply(event), version=before.version + 1)


def _check_parent_free(account: Account, parent: str | None) -> None:
    """What is reserved has to be given back where it was taken."""
    reserved = sorted(unit for unit, one in account.balances.items() if one.reserved)
    if account.is_set and parent != account.parent and reserved:
        raise InvalidBudget(
            "parent", f"cannot change while {', '.join(reserved)} of {account.name!r} is reserved"
        )
