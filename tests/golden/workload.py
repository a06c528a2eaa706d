"""What happens in a golden log: some of everything, told by plans and tools that never change.

The runs that are left unfinished can be resumed with these tools by every later program, so the
names, parameters and docstrings here are part of the golden logs.
"""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from carstore import Store
from carstore.clock import ManualClock
from carstore.holders import Holder
from carstore.names import Micros
from engine import Action, ActionType, Proposal, Runtime, Tool, ToolCompensation, ToolContext, tool
from engine.ir import FailureBehavior, Precondition, Reversibility
from engine.rules.file_rules import deny_tool, require_approval

UNFINISHED = {
    "asked": "succeeded",  # somebody has to say what became of a call
    "asked-undo": "rolled_back",  # the same, of a compensation
    "cut-off": "succeeded",  # it was interrupted
    "orphaned": "succeeded",  # its process died while it held the lease
    "unknown": "succeeded",  # its process died within a call that must not be repeated
}
"""The runs that are left unfinished, and how they end once somebody has answered for their calls.
In a file that was copied since, some of them have gone on and the others are held."""


@define
class Ticking(ManualClock):
    """A millisecond later at each reading: the same each time, and never the same twice."""

    def now(self) -> Micros:
        self.advance(1_000)
        return Micros(self.wall)

    def boot(self) -> Micros:
        self.advance(1_000)
        return Micros(self.booted)


@define
class Crew:
    """Processes of no machine that exists. All that were begun before `all_die` are gone."""

    dead: set[str] = field(factory=set)
    known: list[str] = field(factory=list)
    _numbers: Iterator[int] = field(factory=lambda: itertools.count(101))

    def current(self, instance: str) -> Holder:
        number = next(self._numbers)
        self.known.append(f"incarnation-{number}")
        return Holder(
            instance=instance,
            incarnation=self.known[-1],
            machine="machine",
            boot="boot",
            host="größer.example",
            pid=number,
            pid_namespace="namespace",
            started="begun",
        )

    def is_gone(self, holder: Holder) -> bool:
        return holder.incarnation in self.dead

    def all_die(self) -> None:
        self.dead.update(self.known)


@define
class World:
    """What the tools act on."""

    store: Store
    vanishing: bool = True
    """Whether the tool `vanish` never returns."""
    reached: asyncio.Event = field(factory=asyncio.Event)
    """Set by the tools that wait to be stopped."""

    def tools(self) -> list[Tool]:
        """The tools that the plans call."""
        return [*_plain_tools(), *self._tools_of_the_store(), *self._tools_that_wait()]

    def _tools_of_the_store(self) -> list[Tool]:
        @tool(idempotent=True)
        async def keep_alive() -> int:
            """Renew the leases of this process."""
            await self.store.leases.renew()
            return 1

        @tool(idempotent=True)
        async def meddle() -> str:
            """Let another run write what this one has written."""
            done = await Runtime(self.store).execute(MEDDLING, run_id="meddler")
            return done.status.value

        return [keep_alive, meddle]

    def _tools_that_wait(self) -> list[Tool]:
        @tool(timeout_ms=60)
        async def vanish(to: str | int) -> dict[str, Any]:
            """Send a letter, and perhaps never come back."""
            if self.vanishing:
                await asyncio.sleep(3600)
            return {"sent": to}

        @tool(idempotent=True)
        async def linger(ctx: ToolContext) -> str:
            """Work until somebody says stop."""
            if self.vanishing:
                self.reached.set()
                await ctx.wait_cancelled()
                ctx.raise_if_cancelled()
            return "done"

        return [vanish, linger]


def _plain_tools() -> list[Tool]:
    @tool(read_only=True)
    async def look_up(word: str, ctx: ToolContext) -> dict[str, Any]:
        """Look a word up."""
        ctx.log("nachgeschlagen — 調べた", word=word, place={"page": 7})
        ctx.meter(tokens_in=120, tokens_out=30, cost_micros=1_500, model="großes-modell")
        ctx.meter(tokens_in=8, cost="0.000002", agent="übersetzerin")
        return {"word": word, "meaning": "Bedeutung 意味 🦉", "ratio": 0.1}

    @tool
    async def refund(parameters: dict[str, Any], output: dict[str, Any]) -> str:
        """Give the money back."""
        return f"{output['paid']} zurück"

    @tool
    async def refuse(parameters: dict[str, Any], output: dict[str, Any]) -> str:
        """Never give the money back."""
        raise ValueError("keine Rückgabe — 返品不可")

    @tool(compensation=refund)
    async def charge(cents: int, ctx: ToolContext) -> dict[str, int]:
        """Take some money."""
        ctx.set("konto/größe", {"paid": cents, "currency": "€"})
        return {"paid": cents}

    @tool(compensation=refuse)
    async def keep(cents: int) -> dict[str, int]:
        """Take some money for good."""
        return {"paid": cents}

    @tool(idempotent=True)
    async def flaky(ctx: ToolContext) -> int:
        """Fail the first time."""
        if ctx.attempt == 1:
            raise ValueError("noch nicht — まだ")
        return ctx.attempt

    @tool
    async def break_down() -> None:
        """Fail each time."""
        raise ValueError("kaputt — 壊れた")

    @tool
    def tidy_up(ctx: ToolContext) -> None:
        """Delete what was written, in a thread."""
        ctx.delete("note")
        ctx.delete("never written")

    @tool(max_cost={"EUR": "0.50"})
    async def consult(word: str, ctx: ToolContext) -> str:
        """Ask somebody who is paid for it."""
        await ctx.charge("EUR", "0.30")
        ctx.meter(cost="0.05", currency="EUR")
        return f"{word}: Eule"

    return [look_up, refund, refuse, charge, keep, flaky, break_down, tidy_up, consult]


def plan(name: str, *actions: Action) -> Proposal:
    return Proposal(
        id=name, source="Agentin Ω", actions=list(actions), context={"why": "für später"}
    )


def call(name: str, tool_name: str, failure: str = "abort", **fields: Any) -> Action:
    return Action(id=name, tool=tool_name, failure_behavior=FailureBehavior(failure), **fields)


def write(name: str, key: str, value: Any, **fields: Any) -> Action:
    return Action(
        id=name, type=ActionType.STATE_WRITE, parameters={"key": key, "value": value}, **fields
    )


MIXED = plan(
    "mixed",
    call("look", "look_up", parameters={"word": "Eule"}),
    write("note", "note", {"text": "schön", "list": [1, 2.5, None, True]}),
    Action(
        id="read", type=ActionType.STATE_READ, parameters={"key": "note"}, dependencies=["note"]
    ),
    call("try", "flaky", "retry", max_retries=2),
    call("alive", "keep_alive", dependencies=["try"]),
    call("pay", "charge", parameters={"cents": 250}, dependencies=["look", "alive"]),
    call("tidy", "tidy_up", dependencies=["read", "pay"]),
)

REUSED = plan("reused", call("once", "look_up", parameters={"word": "Uhu"}, idempotent=True))

SKIPPED = plan(
    "skipped",
    call("fails", "break_down", "skip"),
    call("needs_it", "look_up", parameters={"word": "$fails.output"}, dependencies=["fails"]),
    call(
        "refused",
        "look_up",
        "skip",
        parameters={"word": "Kauz"},
        preconditions=[Precondition(key="note", value="something else")],
    ),
    Action(
        id="wrong",
        type=ActionType.ASSERTION,
        parameters={"key": "konto/größe", "expected": 1},
        failure_behavior=FailureBehavior.SKIP,
    ),
)

UNDONE = plan(
    "undone",
    write("contested", "contested", "ours"),
    write("own", "own", "ours", dependencies=["contested"]),
    call("pay", "charge", parameters={"cents": 99}, dependencies=["own"]),
    call("meddled", "meddle", dependencies=["pay"], reversibility=Reversibility.REVERSIBLE),
    call("breaks", "break_down", dependencies=["meddled"]),
)

MEDDLING = plan("meddling", write("theirs", "contested", "theirs"))

HALF_UNDONE = plan(
    "half-undone",
    call("pay", "keep", parameters={"cents": 5}, max_retries=1),
    call(
        "pay_otherwise",
        "keep",
        parameters={"cents": 6},
        dependencies=["pay"],
        compensation=ToolCompensation(
            tool="refund", parameters={"parameters": {}, "output": "$pay.output"}
        ),
    ),
    call("breaks", "break_down", dependencies=["pay_otherwise"]),
)

LETTER = plan("letter", call("send", "vanish", parameters={"to": "Москва"}))

UNDONE_BY_LETTER = plan(
    "undone-by-letter",
    call(
        "pay",
        "keep",
        parameters={"cents": 7},
        compensation=ToolCompensation(tool="vanish", parameters={"to": "$pay.output.paid"}),
    ),
    call("breaks", "break_down", dependencies=["pay"]),
)

STEPS = plan(
    "steps",
    write("first", "step", 1),
    call("long", "linger", "retry", dependencies=["first"], max_retries=3),
    write("last", "step", "$long.output", dependencies=["long"]),
)

RULES = (deny_tool("break_down"), require_approval({"tool": "keep", "reason": "Geld — お金"}))

RULED = plan(
    "ruled",
    call("pay", "keep", parameters={"cents": 8}),
    call("forbidden", "break_down", "skip"),
)

WAITING = plan(
    "waiting",
    call("nap", "sleep", parameters={"seconds": 1}),
    call("word", "wait_signal", parameters={"name": "wort"}, dependencies=["nap"]),
)

ENDLESS = plan(
    "endless", call("never", "wait_signal", parameters={"name": "nie", "timeout_secs": 86_400})
)

PRICED = plan("priced", call("ask", "consult", parameters={"word": "Käuzchen"}))

REPLACEMENT = plan("replacement", write("instead", "instead", "stattdessen"))

FORGOTTEN = {"name": "Zoë", "born": "1970-01-01"}

SECRETS = plan(
    "secrets",
    write("forgotten", "geheim/zoë", FORGOTTEN),
    write("kept", "geheim/owl", "Eule"),
    write("large", "large", ["Bedeutung 意味 🦉"] * 20),
)
