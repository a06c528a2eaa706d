"""What a plan comes to, by a plain interpreter over a dictionary: no log, no loop, no crash.

Written for plans of `small_plans`, whose parameters tell the tools how often to fail. It shares no
rule with the engine but the nouns.
"""

from typing import Any

from attrs import define, field, frozen
from hypothesis import strategies as st

from engine.ir import (
    Action,
    ActionType,
    FailureBehavior,
    Operator,
    Precondition,
    Proposal,
    Reversibility,
    ToolCompensation,
)

KEYS = ["x", "y", "z"]
EFFECT = {"once": "once", "idem": "idempotent", "look": "read_only", "made": "once"}
"""The tools of these plans; `made` is undone by `undo`."""
ALWAYS = 99


@frozen
class Came:
    """What one action came to."""

    status: str
    output: Any = None
    rolled_back: bool = False


@frozen(kw_only=True)
class Outcome:
    """What a plan came to."""

    status: str
    actions: dict[str, Came]
    not_undone: frozenset[str]
    done: dict[str, int]
    """How often a tool did its work for each action, and undid it: `a0`, `undo a0`."""


@define
class Interpreter:
    """`state` and `memory` go on from plan to plan."""

    state: dict[str, Any] = field(factory=dict)
    memory: dict[str, Any] = field(factory=dict)
    """Call -> output."""

    def run(self, proposal: Proposal) -> Outcome:
        return _Run(self, {action.id: action for action in proposal.actions}).go()


@define
class _Run:
    world: Interpreter
    actions: dict[str, Action]
    came: dict[str, Came] = field(factory=dict)
    order: list[str] = field(factory=list)
    """Those that succeeded by themselves."""
    remembered: dict[str, str] = field(factory=dict)
    done: dict[str, int] = field(factory=dict)
    aborted: bool = False

    def go(self) -> Outcome:
        before = dict(self.world.state)
        for level in self.levels():
            for name in level:
                if not self.aborted:
                    self.do(self.actions[name])
        if not self.aborted:
            bad = any(one.status in ("failed", "rejected") for one in self.came.values())
            return self.outcome("failed" if bad else "succeeded", frozenset())
        for name in self.actions:
            self.came.setdefault(name, Came("skipped"))
        failed = {name for name in reversed(self.order) if not self.undo(self.actions[name])}
        left = failed | {name for name in self.order if self.is_irreversible(self.actions[name])}
        for name in self.order:
            if name not in left:
                self.came[name] = Came("succeeded", self.came[name].output, rolled_back=True)
                if name in self.remembered:
                    self.world.memory.pop(self.remembered[name])
        self.world.state.clear()
        self.world.state.update(before)
        return self.outcome("partially_compensated" if failed else "rolled_back", frozenset(left))

    def outcome(self, status: str, left: frozenset[str]) -> Outcome:
        return Outcome(
            status=status,
            actions=self.came,
            not_undone=left,
            done={name: count for name, count in self.done.items() if count},
        )

    # --- order, the slow way: an action's level is one above the highest that it waits for ---

    def levels(self) -> list[list[str]]:
        names, level = list(self.actions), dict.fromkeys(self.actions, 0)
        for _ in names:
            for place, name in enumerate(names):
                for other in names[:place]:
                    if self.waits(self.actions[name], self.actions[other], names):
                        level[name] = max(level[name], level[other] + 1)
        return [
            [n for n in names if level[n] == k] for k in range(max(level.values(), default=0) + 1)
        ]

    def waits(self, later: Action, earlier: Action, names: list[str]) -> bool:
        if earlier.id in needed_by(later):
            return True
        between = [
            self.actions[n] for n in names[names.index(earlier.id) + 1 : names.index(later.id)]
        ]
        for key in KEYS:
            reads_it, writes_it = key in reads(later), key in writes(later)
            overwritten = any(key in writes(one) for one in between)
            if (reads_it or writes_it) and key in writes(earlier) and not overwritten:
                return True
            if writes_it and key in reads(earlier) and not overwritten:
                return True
        return False

    # --- one action ---

    def do(self, action: Action) -> None:
        if any(self.came[name].status != "succeeded" for name in needed_by(action)):
            self.came[action.id] = Came("skipped")
        elif not self.holds(action):
            self.came[action.id] = Came("rejected")
        elif action.type is ActionType.TOOL_CALL:
            self.call(action)
        else:
            self.act_on_state(action)

    def holds(self, action: Action) -> bool:
        state = self.world.state
        met = [
            condition.key in state
            and (condition.operator is Operator.EXISTS or state[condition.key] == condition.value)
            for condition in action.preconditions
        ]
        return all(met) and all(key in state for key in action.state_dependencies)

    def act_on_state(self, action: Action) -> None:
        key, state = action.parameters["key"], self.world.state
        if action.type is ActionType.STATE_WRITE:
            self.succeed(action, f"written: {key}", {key: action.parameters["value"]})
        elif action.type is ActionType.STATE_READ:
            self.succeed(action, state.get(key), {})
        elif state.get(key) == action.parameters["expected"]:
            self.succeed(action, {"asserted": key, "value": state.get(key)}, {})
        else:
            self.fail(action)

    def call(self, action: Action) -> None:
        memory, made = self.world.memory, self.what_is_called(action)
        effects = action.expected_effects.items()
        if action.idempotent and made in memory and effects <= self.world.state.items():
            self.came[action.id] = Came("succeeded", memory[made])
            return
        retries = action.failure_behavior is FailureBehavior.RETRY
        if action.parameters["fails"] > (action.max_retries if retries else 0):
            self.fail(action)
            return
        self.done[action.id] = 1
        # What a tool wants written is lost with an outcome that only people know.
        written = {} if EFFECT[action.tool or ""] == "once" else {f"own {action.id}": True}
        self.succeed(action, {"of": action.id}, written)
        if action.idempotent:
            memory[made] = {"of": action.id}
            self.remembered[action.id] = made

    def what_is_called(self, action: Action) -> str:
        refers = action.parameters.get("from")
        given = {**action.parameters, "from": self.came[refers[1:-7]].output if refers else None}
        return repr((action.tool, sorted(given.items())))

    def succeed(self, action: Action, output: Any, written: dict[str, Any]) -> None:
        self.came[action.id] = Came("succeeded", output)
        self.order.append(action.id)
        self.world.state.update(written)
        self.world.state.update(action.expected_effects)

    def fail(self, action: Action) -> None:
        skips = action.failure_behavior is FailureBehavior.SKIP
        self.came[action.id] = Came("skipped" if skips else "failed")
        self.aborted = self.aborted or action.failure_behavior is FailureBehavior.ABORT

    # --- the way back ---

    def undo(self, action: Action) -> bool:
        """Whether what is to be called to undo it, if anything, succeeds in the end."""
        if action.compensation is None and action.tool != "made":
            return True
        if action.parameters["undo_fails"] > action.max_retries:
            return False
        self.done[f"undo {action.id}"] = 1
        return True

    def is_irreversible(self, action: Action) -> bool:
        return (
            action.type is ActionType.TOOL_CALL
            and action.compensation is None
            and action.tool not in ("made", "look")
            and action.reversibility is not Reversibility.REVERSIBLE
        )


def needed_by(action: Action) -> set[str]:
    refers = action.parameters.get("from")
    return set(action.dependencies) | ({refers[1:-7]} if refers else set())


def reads(action: Action) -> set[str]:
    keys = {*action.state_dependencies, *(one.key for one in action.preconditions)}
    if action.type in (ActionType.STATE_READ, ActionType.ASSERTION):
        keys.add(action.parameters["key"])
    return keys


def writes(action: Action) -> set[str]:
    keys = set(action.expected_effects)
    if action.type is ActionType.STATE_WRITE:
        keys.add(action.parameters["key"])
    return keys


# --- plans ---


def _few(strategy: st.SearchStrategy[Any], most: int = 1) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=most, unique=True)


@st.composite
def _actions(draw: st.DrawFn, name: str, earlier: list[str]) -> Action:
    kind = draw(st.sampled_from([ActionType.TOOL_CALL] * 4 + list(ActionType)))
    key, value = st.sampled_from(KEYS), st.integers(0, 1)
    asks_for_reuse = kind is ActionType.TOOL_CALL and draw(st.integers(0, 3)) == 0
    parameters: dict[str, Any] = {"key": draw(key), "value": draw(value), "expected": draw(value)}
    tool = None
    if kind is ActionType.TOOL_CALL:
        tool = draw(st.sampled_from(sorted(EFFECT)))
        some = [0, 0, 0, 1, 2, ALWAYS]
        if asks_for_reuse and EFFECT[tool] != "once":
            # A crash in such a call uses up an attempt, so that it would not fail as often.
            some = [0, 0, ALWAYS]
        parameters = {
            "who": name,
            "fails": draw(st.sampled_from(some)),
            "undo_fails": draw(st.sampled_from([0, 0, 1, ALWAYS])),
            "steps": draw(st.integers(0, 2)),
        }
        if earlier and draw(st.booleans()):
            parameters["from"] = f"${draw(st.sampled_from(earlier))}.output"
    own = None
    if kind is ActionType.TOOL_CALL and draw(st.integers(0, 2)) == 0:
        given = {"parameters": {"who": name, "undo_fails": parameters["undo_fails"], "steps": 0}}
        own = ToolCompensation(tool=draw(st.sampled_from(["undo", "undo_again"])), parameters=given)
    return Action(
        id=name,
        type=kind,
        tool=tool,
        parameters=parameters,
        preconditions=[
            Precondition(
                key=wanted,
                operator=draw(st.sampled_from([Operator.EQ, Operator.EXISTS])),
                value=draw(value),
            )
            for wanted in draw(_few(key))
            if draw(st.integers(0, 2)) == 0
        ],
        state_dependencies=draw(_few(key)) if draw(st.integers(0, 4)) == 0 else [],
        expected_effects=draw(st.dictionaries(key, value, max_size=1)),
        dependencies=draw(_few(st.sampled_from(earlier), 2)) if earlier else [],
        reversibility=draw(st.sampled_from(Reversibility)),
        compensation=own,
        idempotent=asks_for_reuse,
        max_retries=draw(st.integers(0, 2)),
        failure_behavior=draw(st.sampled_from(FailureBehavior)),
    )


@st.composite
def small_plans(draw: st.DrawFn, most: int = 6) -> Proposal:
    """Plans of all types of actions, tools and failures; time does not decide their outcome."""
    count = draw(st.integers(1, most))
    names = [f"a{n}" for n in range(count)]
    return Proposal(
        id="p", actions=[draw(_actions(name, names[:n])) for n, name in enumerate(names)]
    )
