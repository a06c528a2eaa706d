"""What came of the demonstration, asked of the file and of the journal it left."""

from collections.abc import Sequence

from attrs import asdict, frozen

from carstore import connect
from carstore.names import Json
from carstore.sqlite.verify import verify
from carstore.verification import Verification
from engine.demo.calls import Kill, Verdict, judge, read_calls
from engine.demo.place import Place
from engine.demo.plan import RUN_ID
from projections import COSTS, RUNS, row, rows
from projections.costs import Cost

__all__ = ["Outcome", "look_back"]


@frozen(kw_only=True)
class Outcome:
    """Everything that is told of it."""

    place: Place
    actions: int
    status: str
    """Of the run."""
    kills: tuple[Kill, ...]
    verdict: Verdict
    costs: tuple[Cost, ...]
    verification: Verification
    broken: tuple[str, ...]
    """The promises that did not hold, in sentences."""

    def to_dict(self) -> dict[str, Json]:
        """As `carstore demo --json` prints it."""
        verification = self.verification
        return {
            "ok": not self.broken,
            "broken": list(self.broken),
            "run_id": RUN_ID,
            "status": self.status,
            "actions": self.actions,
            "kills": [
                {"pid": kill.pid, "position": kill.position, "completed": len(kill.completed)}
                for kill in self.kills
            ],
            "calls": self.verdict.calls,
            "completed_actions_run_again": len(self.verdict.run_again),
            "calls_in_flight_made_again": self.verdict.made_again,
            "costs": [asdict(cost) for cost in self.costs],
            "verify": {
                "ok": verification.ok,
                "head": verification.head._asdict(),
                "problems": [asdict(problem) for problem in verification.problems],
            },
            "database": str(self.place.database),
            "report": str(self.place.report),
        }


async def look_back(place: Place, actions: int, kills: Sequence[Kill]) -> Outcome:
    """Judge the calls, check the file, add up the costs.

    Raises:
        What `connect`, the views and the journal raise when they cannot be read.
    """
    verdict = judge(read_calls(place.calls), kills)
    async with connect(place.database, create=False) as store:
        run = await row(store, RUNS, (RUN_ID,))
        costs = tuple((await rows(store, COSTS)).values())
        verification = await verify(store)
    status = "unknown" if run is None else run.status
    return Outcome(
        place=place,
        actions=actions,
        status=status,
        kills=tuple(kills),
        verdict=verdict,
        costs=costs,
        verification=verification,
        broken=tuple(_broken(status, verdict, verification, place)),
    )


def _broken(status: str, verdict: Verdict, verification: Verification, place: Place) -> list[str]:
    broken = []
    if verdict.run_again:
        again = ", ".join(f"{call.action_id} (process {call.pid})" for call in verdict.run_again)
        broken.append(f"Actions that were recorded as completed were run again: {again}.")
    if status != "succeeded":
        broken.append(f"The run is {status}, not succeeded.")
    if not verification.ok:
        broken.append(f"The file has faults: {verification.problems[0].message}")
    if not place.report.is_file():
        broken.append("There is no report.")
    return broken
