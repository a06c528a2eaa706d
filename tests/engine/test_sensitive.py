"""What a tool calls sensitive is kept beside the log: tools get it, and nothing else shows it."""

import asyncio
import json
import re
import sqlite3
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carstore import Entry, connect
from carstore.blobs import make_blob, references_in_text
from carstore.events import StateChanged
from carstore.names import RunId, StreamName
from carstore.redaction import Redaction
from engine import Action, Proposal, Runtime, ToolContext, tool
from engine.begin import Ready
from engine.execute import Call, Ending, Outcome
from engine.ir import ActionResult, FailureBehavior, Precondition
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


# --- errors --------------------------------------------------------------------------------------

HARD = "hunter\ngamma\"quokka'zebra\\é-\U0001f511"
SECRETS = [SECRET, HARD, SECRET * 10, HARD * 10, "hunter's", "hunter gamma/1+2"]


async def error_of(path: Path, used: Any, parameters: Any, **rules: Any) -> str:
    """What is told of a failing call; and nothing else of the file shows what is sensitive."""
    async with connect(path, redaction=Redaction(**rules)) as store:
        plan = Proposal(actions=[Action(id="a", tool=used.name, parameters=parameters)])
        result = await Runtime(store, [used], backoff=NO_WAIT).execute(plan)
        assert result.results[0].status != "succeeded"
        return str(result.results[0].error)


def leaks(secret: str, path: Path) -> list[str]:
    """The words of `secret` that the file shows."""
    shown = everything_in(path)
    words = [word for word in re.split(r"[^a-z]+", secret) if len(word) > 3]
    assert words
    return [word for word in words if word in shown]


WAYS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "repr": repr,
    "repr within": lambda text: repr({"both": "'\"", "given": [text, text + "'\""]}),
    "ascii": ascii,
    "json": json.dumps,
    "json of json": lambda text: json.dumps(json.dumps({"a": text}, ensure_ascii=False)),
    "bytes": lambda text: repr(text.encode()),
    "url": lambda text: "?" + urllib.parse.urlencode({"p": text}),
    "long": lambda text: "x" * 3980 + text,
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("way", WAYS)
@in_loop
async def test_an_error_shows_a_value_in_no_way_of_writing_it(
    tmp_path: Path, secret: str, way: str
) -> None:
    @tool(sensitive=["parameters.password"], idempotent=True)
    async def fails(ctx: ToolContext, password: str) -> None:
        ctx.log(WAYS[way](password), again=[WAYS[way](password)])
        ctx.log("x" * 1990 + WAYS[way](password))
        raise ValueError(WAYS[way](password))

    told = await error_of(tmp_path / "a.db", fails, {"password": secret})
    assert "[sensitive]" in told
    assert leaks(secret, tmp_path / "a.db") == []


@in_loop
async def test_names_and_numbers_in_a_value_are_kept_out_of_messages_too(tmp_path: Path) -> None:
    @tool(sensitive=["parameters.keys"], idempotent=True)
    async def fails(ctx: ToolContext, keys: dict[str, int]) -> None:
        ctx.log("keys", keys=keys)
        raise ValueError(f"none of {keys} works")

    told = await error_of(tmp_path / "a.db", fails, {"keys": {"battery": 271828}})
    assert told == "ValueError: none of {'[sensitive]': [sensitive]} works"
    assert "battery" not in everything_in(tmp_path / "a.db")
    assert "271828" not in everything_in(tmp_path / "a.db")


@in_loop
async def test_of_a_call_with_very_many_sensitive_texts_nothing_is_told(tmp_path: Path) -> None:
    @tool(sensitive=["parameters.words"], idempotent=True)
    async def fails(words: list[str]) -> None:
        raise ValueError(words[-1])

    words = [f"word {n}" for n in range(1000)]
    assert await error_of(tmp_path / "a.db", fails, {"words": words}) == "[sensitive]"


@pytest.mark.parametrize("value", ["wrongtype", "wrongtype" + "y" * 200, ["wrongtype"]])
@in_loop
async def test_a_parameter_of_the_wrong_type_is_not_shown(tmp_path: Path, value: Any) -> None:
    @tool(sensitive=["parameters.pin"])
    async def takes(pin: int) -> None: ...

    told = await error_of(tmp_path / "a.db", takes, {"pin": value})
    assert told == 'parameters.pin: [sensitive] breaks "type" of its schema'
    assert "wrongtype" not in everything_in(tmp_path / "a.db")


@pytest.mark.parametrize("rules", [{}, {"names": ["token"]}])
@pytest.mark.parametrize(
    "value",
    ["outsecret", "outsecret" + "y" * 200, {"outsecret": "x"}, "outsecret\ud800", {1: "outsecret"}],
)
@in_loop
async def test_an_output_of_the_wrong_type_is_not_shown(
    tmp_path: Path, value: Any, rules: Any
) -> None:
    @tool(sensitive=[] if rules else ["output.token"], idempotent=True)
    async def gives(ctx: ToolContext) -> dict[str, int]:
        ctx.log("x" * 1990 + str(value).encode("ascii", "replace").decode())
        return {"token": value, "n": "plain"}

    told = await error_of(tmp_path / "a.db", gives, {}, **rules)
    assert told.startswith("output")
    if type(value) is str and value.isascii():
        assert 'output.n: "plain" is not of type "integer"' in told
        assert "outs" not in everything_in(tmp_path / "a.db")
    assert "outsecret" not in told


@in_loop
async def test_a_whole_output_is_not_shown(tmp_path: Path) -> None:
    @tool(sensitive=["output"], returns={"type": "object"}, idempotent=True)
    async def gives() -> Any:
        return "outsecret"

    assert await error_of(tmp_path / "a.db", gives, {}) == "output: [sensitive] is not an object"
    assert "outsecret" not in everything_in(tmp_path / "a.db")


@in_loop
async def test_what_a_tool_read_of_the_state_is_not_shown_either(tmp_path: Path) -> None:
    @tool(idempotent=True)
    async def reads(ctx: ToolContext) -> None:
        raise ValueError(await ctx.read("password"))

    path = tmp_path / "a.db"
    write = Action(id="w", type="state_write", parameters={"key": "password", "value": SECRET})
    async with connect(path, redaction=Redaction(names=["password"])) as store:
        await Runtime(store, []).execute(Proposal(actions=[write]))
    assert await error_of(path, reads, {}) == "ValueError: [sensitive]"
    assert SECRET not in everything_in(path)


@in_loop
async def test_after_a_resume_as_little_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    hang = True

    @tool(idempotent=True)
    async def wait() -> None:
        if hang:
            begun.set()
            await asyncio.sleep(60)

    @tool(idempotent=True)
    async def tells(token: str) -> None:
        raise ValueError(repr(token))

    begun, given = asyncio.Event(), {"token": "$in.output.token"}
    plan = Proposal(
        actions=[
            LOGIN,
            Action(id="w", tool="wait", dependencies=["in"]),
            Action(id="t", tool="tells", parameters=given, dependencies=["w"]),
        ]
    )
    async with connect(path) as store:
        life = asyncio.create_task(Runtime(store, [login, wait, tells]).execute(plan, run_id="r"))
        await begun.wait()
        for _ in range(2):
            life.cancel()
            await asyncio.sleep(0.05)
        await asyncio.wait({life})
    hang = False
    async with connect(path) as store:
        result = await Runtime(store, [login, wait, tells], backoff=NO_WAIT).resume("r")
        assert of(result.results, "t").error == "ValueError: '[sensitive]'"
    assert SECRET not in everything_in(path)


@in_loop
async def test_a_sensitive_value_is_never_reused_and_a_plain_one_is(tmp_path: Path) -> None:
    async with connect(tmp_path / "a.db") as store:
        action = Action(id="in", tool="login", parameters=LOGIN.parameters, idempotent=True)
        plain = Action(id="u", tool="use", parameters={"token": "plain"}, idempotent=True)
        for _ in range(2):
            await runtime(store).execute(Proposal(actions=[action, plain]))
        assert [call[0] for call in calls] == ["login", "use", "login"]


# --- comparing -----------------------------------------------------------------------------------


def judging(wanted: Any) -> list[Action]:
    condition = {"key": "password", "operator": "eq", "value": wanted}
    return [
        Action(id="c", tool="ok", preconditions=[Precondition(**condition)]),
        Action(
            id="a",
            type="assertion",
            parameters={"key": "password", "expected": wanted},
            dependencies=[],
        ),
    ]


@pytest.mark.parametrize("names", [["password"], []])
@in_loop
async def test_what_is_sensitive_is_compared_by_its_value(tmp_path: Path, names: Any) -> None:
    @tool(read_only=True)
    async def ok() -> None: ...

    path = tmp_path / "a.db"
    write = Action(id="w", type="state_write", parameters={"key": "password", "value": SECRET})
    async with connect(path, redaction=Redaction(names=["password"])) as store:
        assert (await Runtime(store, []).execute(Proposal(actions=[write]))).status == "succeeded"
    async with connect(path, redaction=Redaction(names=names)) as store:
        right = await Runtime(store, [ok]).execute(Proposal(actions=judging(SECRET)))
        assert right.status == "succeeded"
        wrong = await Runtime(store, [ok]).execute(Proposal(actions=judging("a guess")))
        assert of(wrong.results, "c").status == "rejected"
        assert 'it is "[sensitive]"' in str(of(wrong.results, "c").error)
        assert "state['password'] = \"[sensitive]\"" in str(of(wrong.results, "a").error)
    if names:
        assert SECRET not in everything_in(path)
        assert "a guess" not in everything_in(path)


@in_loop
async def test_text_that_looks_like_a_reference_is_handed_over_and_hidden(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with connect(path) as store:
        action = Action(
            id="in", tool="login", parameters={"user": "$$a.output", "password": "$$zz.output.why"}
        )
        result = await runtime(store).execute(Proposal(actions=[action]), run_id="r")
        assert calls == [("login", "$a.output", "$zz.output.why")]
        assert await runtime(store).execute(Proposal(actions=[action]), run_id="r") == result
    assert "zz.output" not in everything_in(path)


# --- references ----------------------------------------------------------------------------------

NOWHERE = {"$blob": "a" * 64, "bytes": 3}


@pytest.mark.parametrize("where", ["output", "state"])
@in_loop
async def test_a_reference_to_nothing_fails_the_attempt(tmp_path: Path, where: str) -> None:
    @tool
    async def forges(ctx: ToolContext) -> Any:
        ctx.log("kept", nowhere=NOWHERE)
        if where == "state":
            ctx.set("k", [NOWHERE])
        return {"deep": [NOWHERE]} if where == "output" else None

    async with connect(tmp_path / "a.db") as store:
        plan = Proposal(actions=[Action(id="a", tool="forges")])
        result = await Runtime(store, [forges], backoff=NO_WAIT).execute(plan, run_id="r")
        assert result.results[0].status == "failed"
        assert "this file does not hold" in str(result.results[0].error)
        assert await Runtime(store, [forges]).execute(plan, run_id="r") == result
    assert '"left_out":"a reference' in everything_in(tmp_path / "a.db")


@in_loop
async def test_a_reference_to_what_is_there_or_was_forgotten_is_recorded(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def hands_on(ctx: ToolContext) -> Any:
        return given[0]

    async with connect(tmp_path / "a.db") as store:
        done = await runtime(store).execute(Proposal(actions=[LOGIN]))
        given = [of(done.results, "in").output["token"]]
        plan = Proposal(actions=[Action(id="a", tool="hands_on")])
        for _ in range(2):
            result = await Runtime(store, [hands_on]).execute(plan)
            assert (result.status, result.results[0].output) == ("succeeded", given[0])
            if _ == 0:
                await store.blobs.forget(given[0]["$blob"], reason="asked", by="test")


@in_loop
async def test_values_that_become_too_large_reject_the_call(tmp_path: Path) -> None:
    @tool(read_only=True)
    async def use(v: Any) -> int:
        calls.append(v)
        return len(v)

    async with connect(tmp_path / "a.db") as store:
        value: Any = "x" * 70_000
        for level in range(3):
            action = Action(id="a", tool="use", parameters={"v": value})
            result = await Runtime(store, [use]).execute(Proposal(actions=[action]))
            expected = "succeeded" if level < 1 else "rejected"
            assert result.results[0].status == expected
            value = [make_blob(value, sensitive=False).reference] * 1000
        assert "too large" in str(result.results[0].error)
        assert len(calls) == 1


# --- declarations --------------------------------------------------------------------------------


def test_a_path_to_a_parameter_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidTool, match='did you mean "password"'):

        @tool(sensitive=["parameters.pasword"])
        async def login(password: str) -> None: ...

    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    with pytest.raises(InvalidTool, match="there are none"):
        ToolSchema(name="t", parameters=closed, sensitive=("parameters.a",))
    ToolSchema(name="t", parameters=closed, sensitive=("parameters.*",))
    ToolSchema(name="t", parameters={"properties": {}}, sensitive=("parameters.a",))


@in_loop
async def test_what_is_about_to_be_called_does_not_show_its_values(tmp_path: Path) -> None:
    made = Call(
        index=0,
        undo=False,
        attempt=1,
        tool=login,
        parameters={"password": SECRET},
        timeout_ms=None,
        grounds={},
        secrets={SECRET},
        context=ToolContext.detached(),
    )
    ready = Ready(parameters={}, given={"password": SECRET}, tool=login)
    ended = Outcome(
        call=made,
        ending=Ending.RETURNED,
        output=SECRET,
        duration_us=0,
        buffered=made.context.close(),
    )
    assert SECRET not in f"{made!r} {ready!r} {ended!r}"


@in_loop
async def test_a_turn_that_is_decided_again_keeps_the_values_of_the_plan_and_no_other(
    tmp_path: Path,
) -> None:
    plan = Proposal(
        actions=[
            Action(id="r", type="state_read", parameters={"key": "k"}),
            LOGIN,
            Action(id="w", type="state_write", parameters={"key": "api_key", "value": SECRET}),
        ]
    )
    async with connect(tmp_path / "a.db", redaction=Redaction(names=["api_key"])) as store:
        append, disturbed = store.log.append, []

        async def disturbing(*entries: Any, **given: Any) -> Any:
            if not disturbed:
                disturbed.append(True)
                event = StateChanged(scope="main", key="k", value="somebody else's")
                await append(Entry(StreamName("notes"), event))
            return await append(*entries, **given)

        store.log.append = disturbing  # type: ignore[method-assign]
        result = await runtime(store).execute(plan)
        assert result.status == "succeeded"
        assert calls == [("login", "ada", SECRET)]
        referred = {
            one async for event in store.log.read() for one in references_in_text(event.data)
        }
        assert {info.hash for info in await store.blobs.infos()} == referred
