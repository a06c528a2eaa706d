"""The table is what it is said to be, and a wrong expectation fails."""

import json
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.comparing import differences
from tests.conformance.harness import Case, Step, play
from tests.conformance.scripts import BadScript
from tests.conformance.table import CASES, TOPICS
from tests.docs.markdown import DOCS, body, sections

FEWEST = 120
"""Cases that there have to be."""

DRIVEN = ("status", "actions", "events", "state", "cost")
"""What has to be said of every run that was driven."""

PAGE = DOCS / "conformance.md"


def steps() -> list[tuple[Case, int, Step]]:
    return [(case, place, step) for case in CASES for place, step in enumerate(case["steps"])]


def sorts() -> list[str]:
    """Everything of which some case expects something."""
    return sorted({name for _, _, step in steps() for name in step.get("expect", {})})


def documented() -> set[str]:
    """The tags of the differences that the page lists."""
    rows = sections(PAGE)["Where it differs from the seed"]
    return {row[0].strip("`") for row in body(rows, "Tag", "The seed", "Here", "Why")}


def test_there_are_as_many_cases_as_promised() -> None:
    assert len(CASES) >= FEWEST


def test_every_name_is_given_once() -> None:
    names = Counter(case["name"] for case in CASES)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_case_is_data() -> None:
    for case in CASES:
        assert json.loads(json.dumps(case)) == case, case["name"]


def test_every_case_expects_something_and_everything_of_a_run_that_was_driven() -> None:
    for case, _, step in steps():
        if step["do"] in ("execute", "resume"):
            expected = step["expect"]
            cut_short = {"problems", "error", "died"} & expected.keys()
            assert cut_short or set(DRIVEN) <= expected.keys(), case["name"]
        assert any("expect" in one for one in case["steps"]), case["name"]


def test_every_difference_that_is_documented_has_a_case() -> None:
    tags = {tag for case in CASES for tag in case.get("tags", [])}
    assert documented() - tags == set()


def test_every_tag_of_a_case_is_documented() -> None:
    tags = {tag for case in CASES for tag in case.get("tags", [])}
    assert tags - documented() == set()


def test_the_page_says_how_many_cases_there_are_of_each_topic() -> None:
    rows = sections(PAGE)["What it covers"]
    told = {row[0].strip("`"): int(row[1]) for row in body(rows, "Topic", "Cases", "About")}
    assert told == {topic: len(cases) for topic, cases in TOPICS.items()}


# --- a wrong expectation is found ---


def wrong(value: Any) -> Any:
    """Something else than `value`, and as like to it as can be."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "?"
        case None:
            return "something"
        case [*items, last]:
            return [*items, wrong(last)]
        case []:
            return ["something"]
        case dict() if value:
            name = next(reversed(value))
            return {**value, name: wrong(value[name])}
        case _:
            return {"something": "else"}


@pytest.mark.parametrize("sort", sorts())
def test_a_wrong_expectation_fails(sort: str, tmp_path: Path) -> None:
    """Of each sort of expectation, one is changed a little in a case that holds otherwise."""
    case, place, step = next(one for one in steps() if sort in one[2].get("expect", {}))
    seen = play(case, tmp_path / "case.db")[place]
    expected = step["expect"]
    assert differences(expected, seen) == []
    mutant = {**deepcopy(expected), sort: wrong(deepcopy(expected[sort]))}
    found = differences(mutant, seen)
    assert found
    assert all(text.startswith(f"{sort}: ") for text in found)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("actions", lambda told: dict(reversed(told.items()))),
        ("actions", lambda told: dict(list(told.items())[:-1])),
        ("events", lambda told: told[:-1]),
        ("events", lambda told: [*told[:1], told[2], told[1], *told[3:]]),
        ("state", lambda told: {**told, "more": 1}),
        ("cost", lambda told: {**told, "retries": 1}),
    ],
)
def test_order_and_completeness_count(part: str, change: Any, tmp_path: Path) -> None:
    """Actions and events are compared as wholes, in their order."""
    case = next(one for one in CASES if one["name"].startswith("an order is reserved"))
    [seen] = play(case, tmp_path / "case.db")
    expected = case["steps"][0]["expect"]
    assert differences(expected, seen) == []
    assert differences({**expected, part: change(expected[part])}, seen)


def test_what_no_case_expected_is_found() -> None:
    """A run that waits, was stopped, or left something undone is never taken for one that did
    not."""
    for name in ("waits_for", "stopped", "not_undone", "conflicts", "replaces", "error"):
        assert differences({}, {name: ["something"]})


def test_an_instruction_that_no_tool_knows_fails_its_case(tmp_path: Path) -> None:
    """It is not taken for the failure of a tool."""
    case = next(one for one in CASES if one["name"].startswith("a failure is not remembered"))
    odd = {**case["tools"]["resize"], "script": [{"retrun": 1}]}
    with pytest.raises(BadScript, match="retrun"):
        play({**case, "tools": {"resize": odd}}, tmp_path / "case.db")
