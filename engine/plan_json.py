"""Proposals as JSON: read with every fault found, written without defaults.

Reading is strict: a string is no number, `true` is no number, null stands only where a field may
be absent, and a field that is not known is an error. Fields are judged by `engine.plan_converter`,
names by `engine.rules.wellformed`, order by `engine.rules.graph`. A proposal that was built in a
program is judged by being written and read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count, islice

from carstore import canonical
from carstore.errors import InvalidJson
from carstore.names import Json
from engine.ir import Action, Proposal, new_id
from engine.plan_converter import ALL_FAULTS, FIRST_FAULT, problems_in, reader, writer
from engine.problems import InvalidProposal, Problem, ProblemCode, Step, path_text, printable
from engine.rules.graph import cycle_text, find_cycles
from engine.rules.wellformed import DEFAULT_LIMITS, Limits, PlanCheck, size_problems

__all__ = [
    "DEFAULT_LIMITS",
    "InvalidProposal",
    "Limits",
    "check_proposal",
    "load_proposal",
    "parse_proposal",
    "proposal_to_dict",
]

_FAST = reader(collect=False)
_THOROUGH = reader(collect=True)
_WRITER = writer()


def parse_proposal(
    source: str | bytes | Mapping[str, Json],
    *,
    limits: Limits = DEFAULT_LIMITS,
    make_id: Callable[[], str] = new_id,
) -> Proposal:
    """Read a proposal.

    Args:
        source: JSON text, or the object that such a text stands for; it is copied.
        limits: how large the proposal may be.
        make_id: gives an id to the proposal and to each action that has none.

    Raises:
        InvalidProposal: with every problem found. What is too large is not looked into.
    """
    data = _json(source, limits)
    _refuse_any(size_problems(data, limits), limits)
    _add_ids(data, make_id)
    try:
        proposal: Proposal = _FAST.structure(data, Proposal)
    except FIRST_FAULT:
        raise _invalid(_all_problems(data, limits), limits) from None
    check = PlanCheck.of(data["actions"], limits)
    _refuse_any(chain.from_iterable(map(check.problems_of, data["actions"], count())), limits)
    if check.looks_ahead:
        _refuse_any(_cycle_problems(dict(enumerate(proposal.actions))), limits)
    return proposal


def check_proposal(proposal: Proposal, *, limits: Limits = DEFAULT_LIMITS) -> Proposal:
    """A copy of a proposal that was built in a program, judged like one that was read.

    Raises:
        InvalidProposal: with every problem found.
    """
    return parse_proposal(proposal_to_dict(proposal), limits=limits)


def load_proposal(data: Json) -> Proposal:
    """A proposal that was accepted before, from what `proposal_to_dict` gave; they share values.

    Only fields are judged again, not size, so that a plan accepted under larger limits can go on.

    Raises:
        InvalidProposal: `data` does not have the form of a proposal.
    """
    try:
        proposal: Proposal = _FAST.structure(data, Proposal)
    except FIRST_FAULT:
        raise _invalid(_all_problems(data, DEFAULT_LIMITS), DEFAULT_LIMITS) from None
    return proposal


def proposal_to_dict(proposal: Proposal) -> dict[str, Json]:
    """The JSON object of a proposal; fields that hold their default are left out.

    It shares parameters and other values with `proposal`.
    """
    written: dict[str, Json] = _WRITER.unstructure(proposal, Proposal)
    return written


def _json(source: str | bytes | Mapping[str, Json], limits: Limits) -> Json:
    try:
        if isinstance(source, str | bytes):
            _check_size(source, limits)
            return canonical.loads(source, max_bytes=limits.max_bytes)
        text = canonical.dumps(dict(source) if isinstance(source, Mapping) else source)
        _check_size(text, limits)
        return canonical.loads_trusted(text)
    except InvalidJson as error:
        path = printable(error.path.removeprefix("$").removeprefix(".")) or "$"
        problem = Problem(ProblemCode.INVALID_JSON, path, printable(error.reason))
        raise InvalidProposal((problem,)) from None


def _check_size(text: str | bytes, limits: Limits) -> None:
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text)
    if size > limits.max_bytes:
        message = f"{size:,} bytes; at most {limits.max_bytes:,} are allowed"
        raise InvalidProposal((Problem(ProblemCode.TOO_LARGE, "$", message),))


def _add_ids(data: Json, make_id: Callable[[], str]) -> None:
    if type(data) is not dict:
        return
    actions = data.get("actions")
    for value in (data, *actions) if type(actions) is list else (data,):
        if type(value) is dict and "id" not in value:
            value["id"] = make_id()


def _refuse_any(problems: Iterable[Problem], limits: Limits) -> None:
    found = iter(problems)
    if (first := next(found, None)) is not None:
        raise _invalid(chain((first,), found), limits)


def _invalid(problems: Iterable[Problem], limits: Limits) -> InvalidProposal:
    found = tuple(islice(problems, limits.max_problems + 1))
    return InvalidProposal(found[: limits.max_problems], len(found) <= limits.max_problems)


def _all_problems(data: Json, limits: Limits) -> Iterator[Problem]:
    """What is wrong, in order of place; each action is judged alone, so that work is bounded."""
    actions = data.get("actions") if type(data) is dict else None
    if type(actions) is not list:
        yield from _type_problems(data, Proposal, ())
        return
    yield from _type_problems({**data, "actions": []}, Proposal, ())
    check = PlanCheck.of(actions, limits)
    sound: dict[int, Action] = {}
    for index, value in enumerate(actions):
        faults = list(_type_problems(value, Action, ("actions", index)))
        if not faults:
            sound[index] = _FAST.structure(value, Action)
        yield from faults
        yield from check.problems_of(value, index)
    yield from _cycle_problems(sound)


def _type_problems(data: Json, kind: type, steps: tuple[Step, ...]) -> Iterator[Problem]:
    try:
        _THOROUGH.structure(data, kind)
    except ALL_FAULTS as error:
        yield from problems_in(error, steps)


def _cycle_problems(actions: dict[int, Action]) -> Iterator[Problem]:
    """Cycles among `actions`, by index: missing ones break cycles and never make any."""
    places, listed = list(actions), list(actions.values())
    for cycle in find_cycles(listed):
        path = path_text(("actions", places[cycle[0]]))
        yield Problem(ProblemCode.CYCLE, path, cycle_text(listed, cycle))
