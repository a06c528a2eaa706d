"""The command `rules`."""

import asyncio
import re
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from carstore import Entry, Store, connect
from carstore.names import RunId, run_stream
from engine.policies import Policy, policy
from engine.policy_file import policies_of
from engine.registry import register, remove
from tests.engine.cli.harness import Folder, cli, shape
from tests.projections.plausible import received

DENY = policies_of({"deny_tool": "deploy"})
LIMIT = policies_of({"rate_limit_tool": {"tool": "http", "max_calls": 2, "interval_secs": 60}})
CODE: Policy = policy(name="careful")(lambda _: None)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")


def do(path: Path, what: Callable[[Store], Coroutine[Any, Any, Any]]) -> None:
    async def run() -> None:
        async with connect(path) as store:
            await what(store)

    asyncio.run(asyncio.wait_for(run(), 30))


async def fill(store: Store) -> None:
    """Two rules and one of code; the first was removed after a run had begun under all three."""
    await register(store, [DENY, LIMIT, CODE], by="test")
    run = RunId("guarded")
    policies = {one.name: one.digest for one in (DENY, LIMIT, CODE)}
    begun = evolve(received("a1"), policies=policies)
    await store.log.append(Entry(run_stream(run), begun, run))
    free = RunId("free")
    await store.log.append(Entry(run_stream(free), received("a1"), free))
    await remove(store, DENY.name, by="ann")


@pytest.fixture(scope="session")
def file_of_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "a.db"
    do(path, fill)
    return path


@pytest.fixture
def guarded(folder: Folder, file_of_rules: Path) -> Folder:
    shutil.copy(file_of_rules, folder / "a.db")
    return folder


def names(*options: str) -> list[str]:
    done = cli("rules", "a.db", *options, "--json")
    assert (done.code, done.stderr) == (0, "")
    return [one["policy"] for one in done.json]


@pytest.mark.usefixtures("guarded")
def test_rules_in_force_are_listed_oldest_first() -> None:
    limit, code = cli("rules", "a.db", "--json").json
    assert list(limit) == [
        "policy",
        "digest",
        "rule",
        "registered_at",
        "registered_by",
        "position",
        "removed_at",
        "removed_by",
    ]
    assert (limit["policy"], limit["digest"]) == (LIMIT.name, LIMIT.digest)
    assert (limit["rule"], code["rule"]) == (LIMIT.rule, None)
    assert (limit["registered_by"], limit["removed_at"], limit["removed_by"]) == (
        "test",
        None,
        None,
    )
    assert TIME.match(limit["registered_at"])
    assert code["policy"] == "careful"


@pytest.mark.usefixtures("guarded")
def test_all_lists_also_what_was_removed_and_by_whom() -> None:
    deny, *_ = found = cli("rules", "a.db", "--all", "--json").json
    assert [one["policy"] for one in found] == [DENY.name, LIMIT.name, CODE.name]
    assert deny["removed_by"] == "ann"
    assert TIME.match(deny["removed_at"])


@pytest.mark.usefixtures("guarded")
def test_rules_as_they_were() -> None:
    first = cli("rules", "a.db", "--all", "--json").json[0]["position"]
    assert names("--at", str(first - 1)) == []
    assert names("--at", str(first)) == [DENY.name]
    assert names("--at", str(first + 3)) == [DENY.name, LIMIT.name, CODE.name]
    assert cli("rules", "a.db", "--at", "1").stdout == "No rule was in force at position 1.\n"
    late = cli("rules", "a.db", "--at", "9999", "--json")
    assert (late.code, late.json["error"]["code"]) == (2, "not_found")


@pytest.mark.usefixtures("guarded")
def test_the_rules_of_a_run_are_those_it_began_under() -> None:
    assert names("--run", "guarded") == [DENY.name, LIMIT.name, CODE.name]
    none = cli("rules", "a.db", "--run", "no", "--json")
    assert (none.code, none.json["error"]["code"]) == (2, "not_found")
    early = cli("rules", "a.db", "--run", "guarded", "--at", "2")
    assert early.code == 2
    both = cli("rules", "a.db", "--run", "guarded", "--all", "--json")
    assert (both.code, both.json["error"]["code"]) == (2, "usage")


def test_a_run_without_rules_and_a_file_without_rules_say_so(guarded: Folder) -> None:
    assert cli("rules", "a.db", "--run", "free").stdout == "No rule judges run free.\n"
    assert names("--run", "free") == []
    do(guarded / "new.db", lambda store: register(store, [], by="test"))
    assert cli("rules", "new.db").stdout == "No rule is in force.\n"


def test_a_rule_that_the_log_does_not_know_is_listed_by_name(guarded: Folder) -> None:
    async def other(store: Store) -> None:
        run = RunId("other")
        begun = evolve(received("a1"), policies={"elsewhere": "0" * 64})
        await store.log.append(Entry(run_stream(run), begun, run))

    do(guarded / "a.db", other)
    assert names("--run", "other") == ["elsewhere"]
    assert "not known" in cli("rules", "a.db", "--run", "other").stdout


@pytest.mark.usefixtures("guarded")
def test_people_get_a_table() -> None:
    lines = cli("rules", "a.db").stdout.splitlines()
    assert lines[0].split() == ["RULE", "SINCE", "BY", "WHAT", "IT", "SAYS"]
    assert lines[1].startswith("rate_limit_tool:http[60s]")
    assert '"max_calls":2' in lines[1]
    assert lines[2].endswith("code")
    everything = cli("rules", "a.db", "--all").stdout.splitlines()
    assert everything[0].endswith("REMOVED" + " " * 22 + "BY")
    assert everything[1].endswith("ann")
    assert len(everything) == 4


def test_asking_changes_nothing(guarded: Folder) -> None:
    before = (guarded / "a.db").read_bytes()
    for options in ([], ["--all"], ["--run", "guarded"], ["--json"]):
        assert cli("rules", "a.db", *options).code == 0
    assert (guarded / "a.db").read_bytes() == before


@pytest.mark.usefixtures("guarded")
def test_the_documented_json_is_what_is_printed() -> None:
    from tests.engine.cli.test_cli_docs import documented

    assert documented("rules") == shape(cli("rules", "a.db", "--json").json)
