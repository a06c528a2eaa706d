"""`carstore budgets` and `carstore budget`."""

import asyncio
from typing import Any

import pytest

from carstore import connect
from engine.accounts import Ledger
from tests.engine.cli.harness import Folder, cli, shape
from tests.engine.cli.test_cli_docs import documented


def settle(database: str, name: str, **spent: int) -> None:
    """What a run's driver would record: a reservation, and more or less spent than that."""

    async def act() -> None:
        async with connect(database, durability="crash") as store:
            ledger = Ledger(store)
            chain = await ledger.chain(name)
            entries, _ = ledger.reserve(chain, "r/held/do/1", {"USD": 10_000})
            entries += ledger.settle(chain, "r/done/do/1", {}, spent)
            await store.log.append(*entries)

    asyncio.run(act())


@pytest.fixture
def spent(ran: Folder) -> Folder:
    """A file in which `small` is a part of `team`, and something was spent of both."""
    assert cli("budget", "a.db", "team", "--limit", "USD:5.00", "--by", "ann").code == 0
    options = ("--limit", "USD:0.05", "--limit", "EUR:none", "--parent", "team")
    assert cli("budget", "a.db", "small", *options).code == 0
    settle("a.db", "small", USD=41_500, GBP=1)
    return ran


def test_budgets_are_listed_with_what_is_left(spent: Folder) -> None:
    lines = [line.split() for line in cli("budgets", "a.db").stdout.splitlines()]
    assert lines == [
        ["BUDGET", "UNIT", "LIMIT", "RESERVED", "SPENT", "LEFT", "PART", "OF"],
        ["small", "EUR", "0", "0", "team"],
        ["small", "GBP", "0", "0.000001", "team"],
        ["small", "USD", "0.05", "0.01", "0.0415", "-0.0015", "team"],
        ["team", "GBP", "0", "0.000001"],
        ["team", "USD", "5", "0.01", "0.0415", "4.9485"],
    ]
    assert "small" not in cli("budgets", "a.db", "team").stdout


def test_json_has_millionths(spent: Folder) -> None:
    found = cli("budgets", "a.db", "team", "--json").json
    usd = next(one for one in found if one["unit"] == "USD")
    assert usd.pop("changed_at").endswith("Z")
    assert usd == {
        "budget": "team",
        "unit": "USD",
        "limit_micros": 5_000_000,
        "reserved_micros": 10_000,
        "spent_micros": 41_500,
        "left_micros": 4_948_500,
        "parent": None,
    }


def test_documents_have_the_documented_shape(spent: Folder) -> None:
    assert shape(cli("budgets", "a.db", "--json").json) == documented("budgets")
    done = cli("budget", "a.db", "other", "--limit", "USD:1", "--json")
    assert shape(done.json) == documented("budget")


def test_limits_are_set_as_a_whole_and_the_parent_stays(spent: Folder) -> None:
    done = cli("budget", "a.db", "small", "--limit", "EUR:2.5", "--json")
    assert done.json == {"budget": "small", "limits": {"EUR": 2_500_000}, "parent": "team"}
    found = {one["unit"]: one for one in cli("budgets", "a.db", "small", "--json").json}
    assert found["USD"]["limit_micros"] is None
    assert found["USD"]["spent_micros"] == 41_500


def test_what_was_set_is_told_with_the_next_command(ran: Folder) -> None:
    done = cli("budget", "a.db", "team", "--limit", "USD:5.00", "--limit", "EUR:1", "--by", "ann")
    assert done.stdout.splitlines() == [
        "Budget team: 1 EUR, 5 USD",
        "Look: carstore budgets a.db team",
    ]
    told = cli("log", "a.db", "--kind", "budget_set", "--json").json
    assert told["stream"] == "budget/team"
    assert told["data"]["by"] == "ann"


def test_the_past_is_as_it_was(spent: Folder) -> None:
    before = cli("log", "a.db", "--kind", "budget_set", "--tail", "1", "--json").json["position"]
    found = cli("budgets", "a.db", "small", "--at", str(before), "--json").json
    assert {one["unit"]: one["spent_micros"] for one in found} == {"EUR": 0, "USD": 0}
    assert "no budget at position 1" in cli("budgets", "a.db", "--at", "1").stdout
    assert cli("budgets", "a.db", "--at", "99999").code == 2


def test_a_file_without_budgets_says_so(ran: Folder) -> None:
    assert cli("budgets", "a.db").stdout == "There is no budget.\n"
    assert cli("budgets", "a.db", "--json").json == []


def test_a_budget_that_only_counts_is_listed(ran: Folder) -> None:
    assert cli("budget", "a.db", "count", "--limit", "USD:none").code == 0
    [one] = cli("budgets", "a.db", "--json").json
    assert (one["budget"], one["unit"], one["limit_micros"]) == ("count", "USD", None)


@pytest.mark.parametrize(
    ("arguments", "code", "path"),
    [
        (("budgets", "a.db", "nobody"), "not_found", "nobody"),
        (("budgets", "b.db"), "not_found", "b.db"),
        (("budget", "b.db", "team", "--limit", "USD:1"), "not_found", "b.db"),
        (("budget", "a.db", "team"), "usage", None),
        (("budget", "a.db", "team", "--limit", "5.00"), "usage", "--limit"),
        (("budget", "a.db", "team", "--limit", "USD:"), "usage", "--limit"),
        (("budget", "a.db", "team", "--limit", "USD:-1"), "usage", "--limit"),
        (("budget", "a.db", "team", "--limit", "USD:x"), "usage", "--limit"),
        (("budget", "a.db", "team", "--limit", "U D:1"), "usage", "--limit"),
        (("budget", "a.db", "team", "--limit", "U:1", "--limit", "U:2"), "usage", "--limit"),
        (("budget", "a.db", "a b", "--limit", "USD:1"), "usage", "NAME"),
        (("budget", "a.db", "a", "--limit", "USD:1", "--parent", "b c"), "usage", "--parent"),
        (("budget", "a.db", "a", "--limit", "USD:1", "--parent", "b"), "not_found", "b"),
        (("budget", "a.db", "run/r", "--limit", "USD:1"), "not_found", "run/r"),
    ],
)
def test_what_cannot_be_is_refused_and_records_nothing(
    ran: Folder, arguments: tuple[str, ...], code: str, path: Any
) -> None:
    done = cli(*arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    if path is not None:
        assert done.json["error"]["path"] == path
    assert not (ran / "b.db").exists()
    assert cli("log", "a.db", "--kind", "budget_set").stdout == ""


def test_a_parent_that_would_be_a_part_of_it_is_refused(spent: Folder) -> None:
    done = cli("budget", "a.db", "team", "--limit", "USD:1", "--parent", "small")
    assert done.code == 2
    assert "is a part of 'team'" in done.stderr
