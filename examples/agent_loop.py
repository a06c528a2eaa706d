"""An agent in a loop: a model proposes a plan, the runtime runs it, until the model has no more.

The model is asked by a tool, so its answers are recorded and paid for once: kill this program and
start it again, and it goes on with the plan that it had. Each turn is two runs, `think-N` and
`act-N`; a run that is finished only returns its result.
"""

import asyncio
import json
from typing import Any

from carstore import connect
from carstore.names import Json
from engine import Action, Proposal, Runtime, ToolContext, tool
from projections import COSTS, rows

MAX_TURNS = 20
"""A model that never says that it is done is stopped."""

LIBRARY = {
    "durable execution": ["event log", "idempotency"],
    "event log": ["hash chain"],
    "idempotency": [],
    "hash chain": ["SHA-256"],
    "SHA-256": [],
}


def model(question: str, notes: dict[str, list[str]]) -> str:
    """What a model answers: a plan as JSON, without actions once it knows enough. A stub."""
    mentioned = {topic for topics in notes.values() for topic in topics} or {question}
    actions = [
        {"id": f"look-{place}", "type": "tool_call", "tool": "look_up", "parameters": {"topic": t}}
        for place, t in enumerate(sorted(mentioned - notes.keys()), 1)
    ]
    return json.dumps({"source": "researcher", "actions": actions})


@tool(read_only=True)
def ask_model(question: str, notes: dict[str, list[str]], ctx: ToolContext) -> str:
    """Ask what to do next, and say what that cost."""
    answer = model(question, notes)
    tokens_in = len(question + json.dumps(notes)) // 4
    tokens_out = len(answer) // 4
    price_micros = tokens_in * 3 + tokens_out * 15
    ctx.meter(agent="planner", tokens_in=tokens_in, tokens_out=tokens_out, cost_micros=price_micros)
    return answer


@tool(idempotent=True)
def look_up(topic: str, ctx: ToolContext) -> dict[str, Any]:
    """What the library says of a topic, which is also noted in the state."""
    ctx.set(f"notes/{topic}", LIBRARY[topic])
    ctx.meter(tokens_in=10, cost="0.000010")  # for the proposal's source: the researcher
    return {"topic": topic, "leads_to": LIBRARY[topic]}


async def output_of(runtime: Runtime, proposal: Proposal | str, run_id: str) -> list[Json]:
    """Run a proposal, or take its recorded result; the outputs of its actions."""
    result = await runtime.execute(proposal, run_id=run_id)
    if result.status != "succeeded":
        raise SystemExit(f"{run_id} is {result.status}: carstore show agent_loop.db {run_id}")
    return [action.output for action in result.results]


async def main() -> None:
    question = "durable execution"
    notes: dict[str, list[str]] = {}
    async with connect("agent_loop.db") as store:
        runtime = Runtime(store, tools=[ask_model, look_up])
        for turn in range(1, MAX_TURNS + 1):
            asked = Action(tool="ask_model", parameters={"question": question, "notes": notes})
            thought = Proposal(source="planner", actions=[asked])
            [answer] = await output_of(runtime, thought, f"think-{turn}")
            found = await output_of(runtime, answer, f"act-{turn}")
            if not found:
                break
            notes |= {one["topic"]: one["leads_to"] for one in found}
            print(f"turn {turn}: {', '.join(one['topic'] for one in found)}")
        for cost in (await rows(store, COSTS)).values():
            print(f"{cost.agent}: {cost.calls} calls, ${cost.cost_micros / 1_000_000:.6f}")


asyncio.run(main())
