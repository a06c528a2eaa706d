import asyncio

from carstore import connect
from engine import Action, Proposal, Runtime, tool


@tool(idempotent=True)  # may be called again if the process dies during a call
async def step(n: int) -> None:
    await asyncio.sleep(0.5)
    print("step", n, flush=True)


async def main() -> None:
    plan = Proposal(actions=[Action(tool="step", parameters={"n": n}) for n in range(1, 9)])
    async with connect("first.db") as store:
        result = await Runtime(store, tools=[step]).execute(plan, run_id="first")
    print(result.status)


asyncio.run(main())
