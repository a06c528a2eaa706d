"""Fields, arguments, defaults, words and limits in the documentation are those of the code."""

import functools
import inspect
import json
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Any

import attrs
import pytest
from attrs import NOTHING, Attribute

from carstore import connect
from engine import Runtime, ToolContext, tool
from engine.ir import (
    Action,
    ActionResult,
    ActionStatus,
    ActionType,
    FailureBehavior,
    Operator,
    Precondition,
    Proposal,
    RunStatus,
    new_id,
)
from engine.rules.retries import Backoff
from engine.rules.schedule import ScheduleMode
from engine.tool_schema import EffectMode
from tests.docs.markdown import DOCS, body, plain, sections

PLANS, TOOLS, EMBEDDING, CONCEPTS = (
    sections(DOCS / f"{name}.md") for name in ("plans", "tools", "embedding", "concepts")
)


def default_as_written(attribute: "Attribute[Any]") -> str:
    default = attribute.default
    if default is NOTHING:
        return "required"
    factory = getattr(default, "factory", None)
    if factory is new_id:
        return "12 random hex characters"
    if factory is not None:
        default = factory()
    if isinstance(default, Enum):
        default = default.value
    return f"`{json.dumps(list(default) if isinstance(default, tuple) else default)}`"


@pytest.mark.parametrize("cls", [Proposal, Action])
def test_the_fields_of_a_proposal_are_documented_with_their_defaults(cls: type) -> None:
    rows = body(PLANS[cls.__name__], "Field", "Default", "Meaning")
    expected = [(one.name, default_as_written(one)) for one in attrs.fields(cls)]
    assert [(plain(name), default) for name, default, _ in rows] == expected


def test_the_fields_of_a_precondition_and_of_a_result_are_named() -> None:
    text = (DOCS / "plans.md").read_text(encoding="utf-8")
    defaults = '`{"key": ..., "operator": "eq", "value": null, "description": ""}`'
    assert defaults in text
    assert list(json.loads(plain(defaults).replace("...", "0"))) == [
        one.name for one in attrs.fields(Precondition)
    ]
    named = ", ".join(one.name for one in attrs.fields(ActionResult))
    assert named in " ".join(text.split())


@pytest.mark.parametrize(
    ("page", "heading", "header", "words"),
    [
        (PLANS, "Types of action", ("Type", "Parameters", "Output"), ActionType),
        (PLANS, "Preconditions", ("Operator", "Holds if the key exists and"), Operator),
        (PLANS, "Statuses", ("Status", "Meaning"), ActionStatus),
        (
            PLANS,
            "Failures and retries",
            ("`failure_behavior`", "When an attempt fails"),
            FailureBehavior,
        ),
        (PLANS, "Order", ("Schedule", ""), ScheduleMode),
        (CONCEPTS, "Proposals, actions, runs", ("Run status", "Meaning"), RunStatus),
        (
            CONCEPTS,
            "Effect modes",
            ("Mode", "Declared", "Meaning", "After a crash during the call"),
            EffectMode,
        ),
    ],
)
def test_closed_lists_of_words_are_complete(
    page: dict[str, list[list[str]]], heading: str, header: tuple[str, ...], words: type[Enum]
) -> None:
    rows = body(page[heading], *header)
    assert [plain(row[0].split()[0]) for row in rows] == [word.value for word in words]


def arguments(function: Any, *left_out: str) -> list[tuple[str, Any]]:
    return [
        (name, parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", *left_out)
    ]


@pytest.mark.parametrize(
    ("page", "heading", "function", "left_out"),
    [
        (EMBEDDING, "Opening a file", connect, ("path",)),
        (EMBEDDING, "A runtime", Runtime.__init__, ("store",)),
        (EMBEDDING, "Executing", Runtime.execute, ("proposal", "lineage")),
        (TOOLS, "With arguments", tool, ("function",)),
    ],
)
def test_arguments_are_documented_with_their_defaults(
    page: dict[str, list[list[str]]], heading: str, function: Any, left_out: tuple[str, ...]
) -> None:
    rows = body(page[heading], "Argument", "Default", "Meaning")
    expected = arguments(function, *left_out)
    assert [plain(name) for name, *_ in rows] == [name for name, _ in expected]
    for (_, written, _), (name, default) in zip(rows, expected, strict=True):
        if written.startswith("`"):  # others are described
            assert plain(written).replace('"', "'") == repr(default), name


def test_what_the_context_offers_to_tools_is_documented() -> None:
    rows = body(TOOLS["The context"], "Member", "Meaning")
    text = " ".join(name for name, _ in rows)
    engines = {"close", "request_cancel", "detached"}
    tests = {"buffered", "changes", "reads"}
    named = [attribute.name for attribute in attrs.fields(ToolContext)]
    public = {name for name in [*dir(ToolContext), *named] if not name.startswith("_")}
    words = set(text.replace("`", " ").replace("(", " ").replace(",", " ").split())
    assert public - engines - tests <= words


def test_delays_between_retries_are_as_described() -> None:
    text = " ".join((DOCS / "plans.md").read_text(encoding="utf-8").split())
    assert "a delay that begins at 100 ms and doubles up to a minute" in text
    assert Backoff() == Backoff(base_ms=100, factor=2, cap_ms=60_000)


def limits() -> Iterator[tuple[str, str, str]]:
    for path in sorted(DOCS.glob("*.md")):
        for rows in sections(path).values():
            if ["Limit", "Value", "Constant"] in rows:
                for _, value, constant in body(rows, "Limit", "Value", "Constant"):
                    yield path.name, value, plain(constant)


@pytest.mark.parametrize(("page", "value", "constant"), [*limits()])
def test_limits_are_those_of_the_code(page: str, value: str, constant: str) -> None:
    parts = constant.split(".")
    place = next(n for n, part in enumerate(parts) if part.isupper())
    module = import_module(".".join(parts[:place]))
    found = functools.reduce(getattr, parts[place:], module)
    assert f"{found:,}" == value
