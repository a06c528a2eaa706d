import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rules.references import Reference, UnresolvedReference, find, read, references, resolve
from tests.engine.proposals import ids, json_values

IDS = {"a", "b.c", "a.output", "a.output.x"}


@pytest.mark.parametrize(
    ("text", "action_id", "path"),
    [
        ("$a.output", "a", ()),
        ("$a.output.rows.0.name", "a", ("rows", "0", "name")),
        ("$b.c.output.k", "b.c", ("k",)),
        ("$a.output.output", "a.output", ()),
        ("$a.output.output.x", "a.output", ("x",)),
        ("$a.output.x.output", "a.output.x", ()),
        ("$a.output.y.output", "a", ("y", "output")),
        ("$a.output.outputs", "a", ("outputs",)),
    ],
)
def test_a_reference_is_read_with_the_longest_id_that_fits(
    text: str, action_id: str, path: tuple[str, ...]
) -> None:
    assert read(text, IDS) == Reference(text, action_id, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "a.output",
        " $a.output",
        "$a",
        "$a.outputs",
        "$a.outputs.x",
        "see $a.output",
        "$.output",
        "$a b.output",
        "$5.00",
        "$$a.output",
        "$$$ghost.output.x",
        "$" + "a" * 129 + ".output",
    ],
)
def test_other_strings_are_plain_text(text: str) -> None:
    assert read(text, IDS) is None


@pytest.mark.parametrize("text", ["$ghost.output", "$ghost.output.x", "$a.b.output"])
def test_a_reference_to_an_unknown_action_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(UnresolvedReference, match=f'"\\{text}" names no action'):
        read(text, IDS)


@pytest.mark.parametrize("text", ["$a.output.", "$a.output..x", "$a.output.y."])
def test_an_empty_segment_is_an_error(text: str) -> None:
    with pytest.raises(UnresolvedReference, match="empty segment"):
        read(text, IDS)


def test_references_are_found_in_values_at_any_depth_and_not_in_keys() -> None:
    value = {"x": [{"$a.output": "$b.c.output.k"}, "$$a.output"], "y": "text $a.output"}
    assert references(value, IDS) == {"b.c"}
    assert find(value) == [(("x", 0, "$a.output"), "$b.c.output.k"), (("x", 1), "$$a.output")]


def test_references_are_replaced_by_parts_of_outputs() -> None:
    outputs = {"a": {"rows": [{"n": 1}, None], "0": "zero"}, "b.c": [10, 20]}
    value = {
        "all": "$b.c.output",
        "part": ["$a.output.rows.0.n", "$a.output.rows.1", "$a.output.0", "$b.c.output.1"],
        "text": "$a",
    }
    assert resolve(value, IDS, outputs) == {
        "all": [10, 20],
        "part": [1, None, "zero", 20],
        "text": "$a",
    }


def test_outputs_may_be_looked_up_by_a_function() -> None:
    assert resolve({"x": "$a.output"}, IDS, str.upper) == {"x": "A"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("$b.c.output", "refers to b.c, which has no output"),
        (
            "$a.output.rows.2",
            'goes no further than "$a.output.rows", which is a list of 1 without "2"',
        ),
        ("$a.output.rows.-1", "a list of 1"),
        ("$a.output.rows.00", "a list of 1"),
        ("$a.output.rows.٣", "a list of 1"),
        ("$a.output.rows.first", "a list of 1"),
        ("$a.output.nope.deeper", 'goes no further than "$a.output", which is an object of 2'),
        ("$a.output.name.0", 'goes no further than "$a.output.name", which is the string "bob"'),
        ("$a.output.rows.0.x", 'goes no further than "$a.output.rows.0", which is null'),
    ],
)
def test_a_path_that_leads_nowhere_tells_how_far_it_went(text: str, told: str) -> None:
    outputs = {"a": {"rows": [None], "name": "bob"}}
    with pytest.raises(UnresolvedReference) as caught:
        resolve({"p": [text]}, IDS, outputs)
    assert caught.value.reference == text
    assert told in str(caught.value)


def test_one_more_dollar_makes_plain_text() -> None:
    value = ["$$a.output", "$$ghost.output.x", "$$$a.output", "$$", "$$HOME", "$$a.outputs"]
    assert resolve(value, IDS, {}) == [
        "$a.output",
        "$ghost.output.x",
        "$$a.output",
        "$$",
        "$$HOME",
        "$$a.outputs",
    ]


def escaped(value: Any) -> Any:
    match value:
        case dict():
            return {key: escaped(item) for key, item in value.items()}
        case list():
            return [escaped(item) for item in value]
        case str() if value.startswith("$"):
            return "$" + value if resolve_changes(value) else value
    return value


def resolve_changes(text: str) -> bool:
    try:
        return bool(resolve([text], set(), {}) != [text])
    except UnresolvedReference:
        return True


dollars = st.from_regex(r"\$+[a-c.]{1,3}(\.output)?(\.[a-c.]{0,3})?", fullmatch=True)
values = st.recursive(
    json_values | dollars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(dollars, inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_any_value_can_be_passed_on_literally(value: Any) -> None:
    assert resolve(escaped(value), {"a", "b"}, {"a": 1, "b": 2}) == value


@given(values, json_values)
def test_resolving_shares_nothing_and_changes_nothing(value: Any, output: Any) -> None:
    before = copy.deepcopy((value, output))
    try:
        resolved = resolve({"v": value, "o": "$a.output"}, {"a"}, {"a": output})
    except UnresolvedReference:
        assert (value, output) == before
        return
    assert (value, output) == before
    assert resolved["o"] == output
    assert not containers(resolved) & (containers(value) | containers(output))


def containers(value: Any) -> set[int]:
    if not isinstance(value, dict | list):
        return set()
    inner = value.values() if isinstance(value, dict) else value
    return {id(value)}.union(*map(containers, inner))


@given(ids, st.lists(st.text("abc01", min_size=1, max_size=3), max_size=3))
def test_a_built_reference_is_read_back(name: str, path: list[str]) -> None:
    assert read(".".join((f"${name}.output", *path)), {name}) == Reference(
        ".".join((f"${name}.output", *path)), name, tuple(path)
    )


def test_outputs_that_double_from_action_to_action_are_stopped() -> None:
    outputs: dict[str, Any] = {"a0": "x" * 1_000}
    for step in range(6):
        twice = [f"$a{step}.output", f"$a{step}.output"]
        outputs[f"a{step + 1}"] = resolve(twice, outputs.keys(), outputs, max_chars=100_000)
    with pytest.raises(UnresolvedReference, match="too large"):
        resolve(["$a6.output", "$a6.output"], outputs.keys(), outputs, max_chars=100_000)


def test_the_size_limit_counts_keys_and_empty_containers() -> None:
    for output in ({"k" * 200: 1}, [[]] * 200, [None] * 200):
        with pytest.raises(UnresolvedReference, match="too large"):
            resolve(["$a.output"], {"a"}, {"a": output}, max_chars=150)
    assert resolve(["$a.output"], {"a"}, {"a": "x" * 100}, max_chars=150) == ["x" * 100]
