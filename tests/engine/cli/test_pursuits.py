"""`pursuits`."""

import asyncio
from typing import Any

from carstore import connect
from engine.pursue import Done
from engine.runtime import Runtime
from tests.engine.cli.harness import Folder, cli, shape
from tests.engine.cli.test_cli_docs import documented


def pursue(name: str, *answers: Any) -> None:
    left = list(answers)

    async def run() -> None:
        async with connect("a.db") as store:
            await Runtime(store).pursue(
                {"question": "x"},
                lambda _: left.pop(0),
                pursuit=name,
                max_cost="0.5",
                timeout_secs=60,
            )

    asyncio.run(run())


WAIT = {
    "actions": [
        {"id": "w", "type": "tool_call", "tool": "wait_signal", "parameters": {"name": "go"}}
    ]
}


def test_goals_are_listed_with_what_came_of_them(folder: Folder) -> None:
    pursue("p", {"actions": []}, Done(answer=["it"], reason="found"))
    first = cli("head", "a.db", "--json").json["position"]
    pursue("q", WAIT)
    done = cli("pursuits", "a.db")
    assert done.code == 0
    title, *lines = [line.split() for line in done.stdout.splitlines()]
    assert title == ["PURSUIT", "STATUS", "STEPS", "GOAL", "ANSWER", "STARTED", "ENDED"]
    assert lines[0][:7] == ["p", "done", "1", "of", "20", '{"question":"x"}', '["it"]']
    assert lines[1][:6] == ["q", "running", "1", "of", "20", '{"question":"x"}']
    found = cli("pursuits", "a.db", "--json").json
    assert shape(found[:1]) == documented("pursuits")
    assert found[0]["answer"] == ["it"]
    assert found[0]["max_cost_micros"] == 500_000
    assert [one["ended_at"] is None for one in found] == [False, True]
    then = cli("pursuits", "a.db", "--at", str(first), "--json").json
    assert then == found[:1]


def test_where_there_is_none_it_says_so(folder: Folder) -> None:
    pursue("p", Done())
    assert cli("pursuits", "a.db", "--at", "1").stdout == "There was no pursuit at position 1.\n"
    assert cli("pursuits", "a.db", "--at", "1", "--json").json == []
    assert cli("pursuits", "a.db", "--at", "99", "--json").json["error"]["code"] == "not_found"
