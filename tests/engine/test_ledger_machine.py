"""The ledger against a dictionary: two processes, parents, crashes, and overspending."""

import asyncio
import tempfile
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from carstore import Entry, Expect, Store
from carstore.errors import VersionConflict
from carstore.names import StreamName
from engine.accounts import Ledger
from engine.ledger import set_budget
from engine.rules.budget import BudgetExhausted
from engine.rules.money import InvalidBudget, units_of
from projections import fold, rows
from projections.budgets import BUDGETS, ITSELF
from tests.carstore.helpers import new_file, open_store
from tests.projections.plausible import all_of

_T = TypeVar("_T")

NAMES = ("a", "b", "c")
UNITS = ("USD", "EUR")
amounts = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 6), max_size=2)
limits = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 12), max_size=2)
names = st.sampled_from(NAMES)
processes = st.sampled_from([0, 1])


@define
class Model:
    """A budget as a table: unit -> [limit, reserved, spent]."""

    parent: str | None = None
    units: dict[str, list[Any]] = field(factory=dict)
    open: dict[str, dict[str, int]] = field(factory=dict)

    def row(self, unit: str) -> list[Any]:
        return self.units.setdefault(unit, [None, 0, 0])

    def covers(self, asked: Mapping[str, int]) -> bool:
        limited = {unit: 0 for unit, row in self.units.items() if row[0] is not None}
        for unit, amount in (asked or limited).items():
            limit, reserved, spent = self.units.get(unit, [None, 0, 0])
            if limit is None:
                continue
            if amount > limit - reserved - spent if amount else spent >= limit:
                return False
        return True


@define
class Prepared:
    """What a driver has decided and not appended yet."""

    process: int
    budget: str
    reservation: str
    amounts: dict[str, int]
    entries: list[Entry]
    versions: dict[StreamName, int]


class LedgerMachine(RuleBasedStateMachine):
    """Every step is a real append, or the refusal of one."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.models: dict[str, Model] = {}
        self.prepared: list[Prepared] = []
        self.where: dict[str, list[str]] = {}
        """Reservation -> the budgets that hold it."""
        self.overspent: set[tuple[str, str]] = set()
        self.count = 0
        path = new_file(Path(self.folder.name) / "log.db")
        self.opened = [open_store(path), open_store(path)]
        self.stores: list[Store] = [self.run(self._enter(one)) for one in self.opened]
        self.ledgers = [Ledger(store) for store in self.stores]

    @staticmethod
    async def _enter(opened: Any) -> Store:
        store: Store = await opened.__aenter__()
        return store

    def run(self, doing: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(doing)

    def teardown(self) -> None:
        for one in self.opened:
            self.run(one.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

    def chain(self, name: str) -> list[str]:
        found = [name]
        while (parent := self.models[found[-1]].parent) is not None:
            found.append(parent)
        return found

    # --- what people do ---

    @initialize(usd=st.integers(0, 12))
    def begin(self, usd: int) -> None:
        self.set(0, "a", {"USD": usd}, None)
        self.set(1, "b", {}, "a")

    @rule(process=processes, name=names, given=limits, parent=st.none() | names | st.just(""))
    def set(self, process: int, name: str, given: dict[str, int], parent: str | None) -> None:
        before = self.models.get(name, Model())
        chosen = before.parent if parent is None else parent or None
        if chosen is not None and chosen not in self.models:
            return
        holds = any(row[1] for row in before.units.values())
        circular = chosen is not None and name in self.chain(chosen)
        moves = name in self.models and chosen != before.parent and holds
        texts = {unit: units_of(micros) for unit, micros in given.items()}
        doing = set_budget(self.stores[process], name, texts, parent=parent)
        try:
            self.run(doing)
        except InvalidBudget:
            assert circular or moves
            return
        assert not circular
        assert not moves
        model = self.models.setdefault(name, before)
        model.parent = chosen
        for unit in {*model.units, *given}:
            model.row(unit)[0] = given.get(unit)
            self.overspent.discard((name, unit))
            limit, reserved, spent = model.row(unit)
            if limit is not None and reserved + spent > limit:
                self.overspent.add((name, unit))  # the limit was lowered below that

    # --- what drivers do ---

    @rule(process=processes, name=names, asked=amounts, fresh=st.booleans())
    def reserve(self, process: int, name: str, asked: dict[str, int], fresh: bool) -> None:
        """Decide, on what is known; others may append before the decision is."""
        if name not in self.models:
            return
        self.count += 1
        reservation = f"r/{self.count}"
        ledger = self.ledgers[process]
        chain = self.run(ledger.chain(name, fresh=fresh))
        try:
            entries, versions = ledger.reserve(chain, reservation, asked)
        except BudgetExhausted as exhausted:
            if fresh:
                self.check_short(name, asked, exhausted)
            return
        if entries:
            self.prepared.append(Prepared(process, name, reservation, asked, entries, versions))
        elif fresh:
            assert all(self.models[one].covers(asked) for one in self.chain(name))

    def check_short(self, name: str, asked: Mapping[str, int], exhausted: BudgetExhausted) -> None:
        short = [one for one in self.chain(name) if not self.models[one].covers(asked)]
        assert exhausted.budget == short[0]
        limit, reserved, spent = self.models[short[0]].row(exhausted.unit)
        assert exhausted.remaining == limit - reserved - spent
        assert exhausted.asked == asked.get(exhausted.unit, 0)

    @precondition(lambda self: self.prepared)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        """Append a decision; if others were first, decide again on what is then."""
        one = self.prepared.pop(data.draw(st.integers(0, len(self.prepared) - 1)))
        ledger, store = self.ledgers[one.process], self.stores[one.process]
        entries, versions = one.entries, one.versions
        try:
            self.run(store.log.append(*entries, expect=Expect(versions=versions)))
        except VersionConflict:
            ledger.forget(NAMES)
            chain = self.run(ledger.chain(one.budget))
            try:
                entries, versions = ledger.reserve(chain, one.reservation, one.amounts)
            except BudgetExhausted as exhausted:
                self.check_short(one.budget, one.amounts, exhausted)
                return
            self.run(store.log.append(*entries, expect=Expect(versions=versions)))
        ledger.applied(entries, versions)
        self.where[one.reservation] = self.chain(one.budget)
        taken = {unit: amount for unit, amount in one.amounts.items() if amount}
        for name in self.chain(one.budget):
            model = self.models[name]
            assert model.covers(taken), "reserved although it is not covered"
            for unit, amount in taken.items():
                model.row(unit)[1] += amount
            model.open[one.reservation] = dict(taken)

    @precondition(lambda self: self.where)
    @rule(
        process=processes,
        data=st.data(),
        spent=amounts,
        how=st.sampled_from(["named", "looked up", "in doubt"]),
        fresh=st.booleans(),
    )
    def settle(
        self, process: int, data: st.DataObject, spent: dict[str, int], how: str, fresh: bool
    ) -> None:
        """End a reservation, whoever made it, or hold it in doubt."""
        reservation = data.draw(st.sampled_from(sorted(self.where)))
        held = self.where[reservation]
        ledger, store = self.ledgers[process], self.stores[process]
        chain = self.run(ledger.chain(held[0], fresh=fresh or how == "looked up"))
        if [account.name for account in chain] != held:
            ledger.forget(NAMES)
            chain = self.run(ledger.chain(held[0]))
        assert [account.name for account in chain] == held, "a parent changed under a reservation"
        reserved = self.models[held[0]].open[reservation]
        given = {"named": dict(reserved), "looked up": None, "in doubt": {}}[how]
        entries = ledger.settle(chain, reservation, given, spent)
        if entries:
            self.run(store.log.append(*entries))
        ledger.applied(entries, {})
        for name in held:
            self.settled(name, reservation, {} if how == "in doubt" else reserved, spent)
        if how != "in doubt":
            del self.where[reservation]

    def settled(
        self, name: str, reservation: str, given: Mapping[str, int], spent: Mapping[str, int]
    ) -> None:
        model = self.models[name]
        if not any(given.values()) and not any(spent.values()):
            return
        for unit in {**given, **spent}:
            row = model.row(unit)
            row[1] -= given.get(unit, 0)
            row[2] += spent.get(unit, 0)
            if row[0] is not None and sum(row[1:]) > row[0]:
                self.overspent.add((name, unit))
        if given:
            model.open.pop(reservation)

    @rule(name=names, unit=st.sampled_from(UNITS), data=st.data())
    def race(self, name: str, unit: str, data: st.DataObject) -> None:
        """Both processes decide to take all that is left, before either has appended that."""
        if name not in self.models:
            return
        left = [
            row[0] - row[1] - row[2]
            for row in [self.models[one].units.get(unit, [None, 0, 0]) for one in self.chain(name)]
            if row[0] is not None
        ]
        if not left or min(left) < 1:
            return
        for process in (0, 1):
            self.reserve(process, name, {unit: min(left)}, fresh=True)
        self.append(data)
        self.append(data)

    @rule(process=processes, name=names)
    def look(self, process: int, name: str) -> None:
        """What a ledger knows is right as soon as it looks for what is new."""
        if name in self.models:
            self.check(self.ledgers[process], name)

    @rule(process=processes)
    def crash(self, process: int) -> None:
        """What a process knew and had decided is gone; what it appended is not."""
        self.ledgers[process] = Ledger(self.stores[process])
        self.prepared = [one for one in self.prepared if one.process != process]

    # --- what holds always ---

    @invariant()
    def no_limit_is_passed_but_by_a_settlement(self) -> None:
        for name, model in self.models.items():
            for unit, (limit, reserved, spent) in model.units.items():
                if limit is not None and (name, unit) not in self.overspent:
                    assert reserved + spent <= limit

    def check(self, ledger: Ledger, name: str) -> None:
        account, model = self.run(ledger.load(name)), self.models[name]
        found = {
            unit: [one.limit, one.reserved, one.spent] for unit, one in account.balances.items()
        }
        assert found == model.units
        assert account.parent == model.parent
        assert account.open == model.open

    @invariant()
    def the_fold_tells_what_the_dictionary_tells(self) -> None:
        for name in self.models:
            self.check(Ledger(self.stores[0]), name)

    @invariant()
    def the_view_is_the_fold(self) -> None:
        found = self.run(rows(self.stores[0], BUDGETS))
        assert found == fold(BUDGETS, self.run(all_of(self.stores[0])))
        told = {
            (key[0], key[1]): [row.limit_micros, row.reserved_micros, row.spent_micros]
            for key, row in found.items()
            if row.unit != ITSELF
        }
        assert told == {
            (name, unit): row
            for name, model in self.models.items()
            for unit, row in model.units.items()
        }
        assert {(row.budget, row.parent) for row in found.values()} == {
            (name, model.parent) for name, model in self.models.items()
        }


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
