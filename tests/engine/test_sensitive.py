"""What a tool calls sensitive is kept beside the log: tools get it, and nothing else shows it."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from carstore import connect
from carstore.names import RunId
from carstore.redaction import Redaction
from engine import Action, Proposal, Runtime, ToolContext, tool
from engine.ir import ActionResult, FailureBehavior
from engine.journal import load_run
from engine.tool_schema import InvalidTool, ToolSchema
from tests.engine.harness import NO_WAIT, in_loop

SECRET = "correct horse battery staple"
LARGE = {"rows": ["x" * 100] * 1000}

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(idempotent=True, sensitive=["parameters.password", "output.token"])
async def login(user: str, password: str) -> dict[str, str]:
    calls.append(("login", user, password))
    return {"token": f"token-of-{password}", "user": user}


@tool(idempotent=True)
async def use(ctx: ToolContext, token: str) -> str:
    calls.append(("use", token))
    ctx.log(f"using {token}", tried=[token])
    ctx.set("used", 1)
    return "used"


@tool(idempotent=True, sensitive=["parameters.password"])
async def fail(password: str) -> None:
    raise ValueError(f"cannot log in with {password!r}")


@tool(sensitive=["parameters.parameters.password", "parameters.output.token"])
async def logout(parameters: dict[str, Any], output: dict[str, str]) -> str:
    calls.append(("logout", parameters["password"], output["token"]))
    return "out"


@tool(compensation=logout, sensitive=["parameters.password", "output.token"])
async def open_session(password: str) -> dict[str, str]:
    return {"token": f"session-of-{password}"}


@tool(read_only=True)
async def make_large() -> dict[str, Any]:
    return LARGE


@tool(read_only=True)
async def count(rows: list[str], first: str) -> int:
    calls.append(("count", len(rows), len(first)))
    return len(rows)


TOOLS = [login, use, fail, open_session, make_large, count]


def runtime(store: Any) -> Runtime:
    return Runtime(store, TOOLS, backoff=NO_WAIT)


def everything_in(path: Path) -> str:
    """All text of the events and of the views, as any SQLite tool would see it."""
    connection = sqlite3.connect(path)
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if name != "blobs"
    ]
    found = [row for name in tables for row in connection.execute(f'SELECT * FROM "{name}"')]
    connection.close()
    return repr(found)


def of(results: tuple[ActionResult, ...], action_id: str) -> ActionResult:
    return next(one for one in results if one.action_id == action_id)


LOGIN = Action(id="in", tool="login", parameters={"user": "ada", "password": SECRET})


@in_loop
async def test_tools_get_what_nothing_else_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    plan = Proposal(
        actions=[
            LOGIN,
            Action(id="u", tool="use", parameters={"token": "$in.output.token"}),
        ]
    )
    async with connect(path) as store:
        result = await runtime(store).execute(plan, run_id="r")
        assert result.status == "succeeded"
        assert calls == [("login", "ada", SECRET), ("use", f"token-of-{SECRET}")]
        output = of(result.results, "in").output
        assert output["user"] == "ada"
        assert output["token"]["sensitive"] is True
        assert (await store.blobs.fill(output))["token"] == f"token-of-{SECRET}"
        again = await runtime(store).execute(plan, run_id="r")
        assert again == result
        assert SECRET not in repr(result)
    assert SECRET not in everything_in(path)


@in_loop
async def test_a_resume_calls_with_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    plan = Proposal(
        actions=[
            LOGIN,
            Action(id="hold", tool="stop", dependencies=["in"]),
            Action(
                id="u",
                tool="use",
                parameters={"token": "$in.output.token"},
                dependencies=["hold"],
            ),
        ]
    )

    begun = asyncio.Event()

    @tool(name="stop", idempotent=True)
    async def never_ending() -> None:
        begun.set()
        await asyncio.sleep(60)

    @tool(name="stop", idempotent=True)
    async def ending() -> None: ...

    async with connect(path) as store:
        life = asyncio.create_task(Runtime(store, [*TOOLS, never_ending]).execute(plan, run_id="r"))
        await begun.wait()
        for _ in range(2):  # the second one does not wait for the call
            life.cancel()
            await asyncio.sleep(0.05)
        await asyncio.wait({life})
        assert SECRET not in repr(await load_run(store, RunId("r")))
    calls.clear()
    async with connect(path) as store:
        assert (await Runtime(store, [*TOOLS, ending]).resume("r")).status == "succeeded"
        assert calls == [("use", f"token-of-{SECRET}")]
    assert SECRET not in everything_in(path)


@in_loop
async def test_an_error_does_not_tell_what_the_call_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with connect(path) as store:
        result = await runtime(store).execute(
            Proposal(
                actions=[
                    Action(
                        id="f",
                        tool="fail",
                        parameters={"password": SECRET},
                        failure_behavior=FailureBehavior.SKIP,
                    ),
                    Action(
                        id="wrong",
                        tool="login",
                        parameters={"user": 7, "password": [SECRET]},
                        dependencies=[],
                    ),
                ]
            ),
            run_id="r",
        )
        assert "cannot log in with '[sensitive]'" in str(of(result.results, "f").error)
        assert of(result.results, "wrong").status == "rejected"
    assert SECRET not in everything_in(path)


@in_loop
async def test_a_compensation_gets_the_values_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with connect(path) as store:
        result = await runtime(store).execute(
            Proposal(
                actions=[
                    Action(id="s", tool="open_session", parameters={"password": SECRET}),
                    Action(
                        id="f",
                        tool="fail",
                        parameters={"password": SECRET},
                        dependencies=["s"],
                        failure_behavior=FailureBehavior.ABORT,
                    ),
                ]
            )
        )
        assert result.status == "rolled_back"
        assert calls == [("logout", SECRET, f"session-of-{SECRET}")]
    assert SECRET not in everything_in(path)


@in_loop
async def test_what_was_forgotten_is_not_called_with(tmp_path: Path) -> None:
    async with connect(tmp_path / "a.db") as store:
        done = await runtime(store).execute(Proposal(actions=[LOGIN]), run_id="r")
        token = of(done.results, "in").output["token"]
        plan = Proposal(actions=[Action(id="u", tool="use", parameters={"token": token})])
        assert (await runtime(store).execute(plan)).status == "succeeded"
        assert calls[-1] == ("use", f"token-of-{SECRET}")
        await store.blobs.forget(token["$blob"], reason="asked", by="test")
        calls.clear()
        result = await runtime(store).execute(plan)
        assert calls == []
        assert "was forgotten" in str(result.results[0].error)
        # The run that is over is still the one of this plan.
        assert (await runtime(store).execute(Proposal(actions=[LOGIN]), run_id="r")) == done


@in_loop
async def test_large_outputs_are_handed_on_and_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    plan = Proposal(
        actions=[
            Action(id="l", tool="make_large"),
            Action(
                id="c",
                tool="count",
                parameters={"rows": "$l.output.rows", "first": "$l.output.rows.0"},
            ),
            Action(id="w", type="state_write", parameters={"key": "k", "value": "$l.output"}),
        ]
    )
    async with connect(path) as store:
        result = await runtime(store).execute(plan, run_id="r")
        assert result.status == "succeeded"
        assert calls == [("count", 1000, 100)]
        [info] = await store.blobs.infos()  # the output and the state are one value
        assert info.bytes > 100_000
    assert len(everything_in(path)) < 20_000


@in_loop
async def test_names_that_a_store_calls_sensitive_are_so_for_all_tools(tmp_path: Path) -> None:
    @tool
    async def keep(ctx: ToolContext, api_key: str) -> dict[str, str]:
        ctx.set("api_key", api_key)
        return {"api_key": api_key}

    path = tmp_path / "a.db"
    async with connect(path, redaction=Redaction(names=["api_key"])) as store:
        plan = Proposal(actions=[Action(id="k", tool="keep", parameters={"api_key": SECRET})])
        result = await Runtime(store, [keep]).execute(plan)
        assert result.status == "succeeded"
        assert (await store.blobs.fill(result.results[0].output)) == {"api_key": SECRET}
    assert SECRET not in everything_in(path)


@pytest.mark.parametrize("path", ["password", "parameters", "output..a", "", 7])
def test_a_path_that_leads_nowhere_is_refused(path: Any) -> None:
    with pytest.raises(InvalidTool, match="no path to a parameter"):
        ToolSchema(name="t", sensitive=(path,))


def test_naming_nothing_sensitive_leaves_the_digest_as_it_was() -> None:
    schema = ToolSchema(name="t")
    assert ToolSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.digest != ToolSchema(name="t", sensitive=("output",)).digest
    assert schema.digest == "3647a67649228b62fe3d139c47f7a3c673c31ce57da824082b6654fc0b15751f"


@in_loop
async def test_a_rule_for_everything_breaks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    plan = Proposal(
        actions=[
            Action(id="w", type="state_write", parameters={"key": "k", "value": SECRET}),
            LOGIN,
            Action(id="u", tool="use", parameters={"token": "$in.output.token"}),
        ]
    )
    async with connect(path, redaction=Redaction(names=["*"])) as store:
        result = await runtime(store).execute(plan, run_id="r")
        assert result.status == "succeeded"
        assert calls[-1] == ("use", f"token-of-{SECRET}")
        assert await runtime(store).execute(plan, run_id="r") == result
    assert SECRET not in everything_in(path)


@in_loop
async def test_a_large_parameter_that_refers_to_an_output_gets_it(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def join(parts: list[str]) -> int:
        calls.append(parts[-1])
        return sum(map(len, parts))

    parts = ["x" * 50_000, "y" * 50_000, "$in.output.user"]
    plan = Proposal(actions=[LOGIN, Action(id="j", tool="join", parameters={"parts": parts})])
    async with connect(tmp_path / "a.db", redaction=Redaction(inline_bytes=1000)) as store:
        result = await Runtime(store, [login, join]).execute(plan)
        assert of(result.results, "j").output == 100_003
        assert calls[-1] == "ada"
        assert len(await store.blobs.infos()) == 4
