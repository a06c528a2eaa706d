"""An agent in a loop: a model proposes a plan, the runtime runs it, until the model is done.

Each proposal is recorded before anything of it is done, with what asking for it cost. So kill this
program and start it again: it goes on with the plan that it had, and the model is asked only for
what it has not proposed yet. Once the goal is reached, the program only prints what is recorded.
"""

import asyncio
import json
from typing import Any

from carstore import connect
from carstore.names import Json
from engine import Runtime, ToolContext, tool
from engine.pursue import Done, Situation
from projections import COSTS, rows

LIBRARY = {
    "durable execution": ["event log", "idempotency"],
    "event log": ["hash chain"],
    "idempotency": [],
    "hash chain": ["SHA-256"],
    "SHA-256": [],
}


def model(question: str, notes: dict[str, list[str]]) -> str:
    """What a model answers: a plan as JSON, without actions once it knows enough. A script."""
    mentioned = {topic for topics in notes.values() for topic in topics} or {question}
    actions = [
        {"id": f"look-{place}", "type": "tool_call", "tool": "look_up", "parameters": {"topic": t}}
        for place, t in enumerate(sorted(mentioned - notes.keys()), 1)
    ]
    return json.dumps({"source": "researcher", "actions": actions})


def propose(situation: Situation) -> Json:
    """Ask the model what to do next, and say what that cost."""
    question = situation.goal["question"]
    notes = {key.removeprefix("notes/"): found for key, found in situation.state.items()}
    answer = model(question, notes)
    tokens_in = len(question + json.dumps(notes)) // 4
    tokens_out = len(answer) // 4
    price_micros = tokens_in * 3 + tokens_out * 15
    situation.meter(
        agent="planner", tokens_in=tokens_in, tokens_out=tokens_out, cost_micros=price_micros
    )
    plan = json.loads(answer)
    if not plan["actions"]:
        return Done(answer=sorted(notes))
    topics = [action["parameters"]["topic"] for action in plan["actions"]]
    print(f"step {situation.step}: {', '.join(topics)}", flush=True)
    return plan


@tool(idempotent=True)
async def look_up(topic: str, ctx: ToolContext) -> dict[str, Any]:
    """What the library says of a topic, which is also noted in the state."""
    await asyncio.sleep(0.05)
    ctx.set(f"notes/{topic}", LIBRARY[topic])
    ctx.meter(tokens_in=10, cost="0.000010")  # for the proposal's source: the researcher
    return {"topic": topic, "leads_to": LIBRARY[topic]}


async def main() -> None:
    goal = {"question": "durable execution"}
    async with connect("agent_loop.db") as store:
        runtime = Runtime(store, tools=[look_up])
        found = await runtime.pursue(goal, propose, pursuit="research", max_cost="0.05")
        print(f"{found.status} after {found.steps} steps: {', '.join(found.answer or [])}")
        for cost in (await rows(store, COSTS)).values():
            print(f"{cost.agent}: {cost.calls} calls, ${cost.cost_micros / 1_000_000:.6f}")


asyncio.run(main())
