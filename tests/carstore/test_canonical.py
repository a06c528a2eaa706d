"""Canonical JSON: one text for one value, and nothing that another reader could take otherwise."""

import hashlib
import json
import time
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import canonical
from carstore.canonical import MAX_BYTES, MAX_DEPTH, dumps, loads
from carstore.errors import InvalidJson
from tests.carstore.values import JSON


def nested(levels: int, inner: Any = None) -> Any:
    value = inner
    for _ in range(levels):
        value = [value]
    return value


def reference(value: Any) -> str:
    """The same text from the public function of the standard library."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@given(JSON)
def test_a_value_has_the_text_that_the_standard_library_gives_it(value: Any) -> None:
    assert dumps(value) == reference(value)


@given(JSON)
def test_a_value_comes_back(value: Any) -> None:
    text = dumps(value)
    for form in (text, text.encode()):
        again = loads(form)
        assert again == value
        assert dumps(again) == text
    assert canonical.loads_trusted(text) == value


@given(JSON)
def test_spaces_escapes_and_the_order_of_keys_do_not_matter_to_a_reader(value: Any) -> None:
    assert dumps(loads(json.dumps(value, indent=2))) == dumps(value)


@given(JSON)
def test_a_digest_is_that_of_the_text(value: Any) -> None:
    assert canonical.digest(value) == hashlib.sha256(reference(value).encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, False, None]}, '{"a":[true,false,null],"b":1}'),
        ({"é": "é\x7f\u2028", "\uffff": 1}, '{"é":"é\x7f\u2028","\uffff":1}'),
        ({"\U0001f600": 1, "\uffff": 2}, '{"\uffff":2,"😀":1}'),
        ("\x00\x1f\"\\/", '"\\u0000\\u001f\\"\\\\/"'),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (0.1, "0.1"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
        (1.0, "1.0"),
        ({}, "{}"),
        ([], "[]"),
        ("", '""'),
    ],
)  # fmt: skip
def test_the_text_is_fixed(value: Any, text: str) -> None:
    assert dumps(value) == text
    assert loads(text) == value


class _Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "where", "reason"),
    [
        (float("nan"), "$", "nan"),
        (float("inf"), "$", "inf"),
        ({"a": [1, float("-inf")]}, "$.a[1]", "inf"),
        (2**63, "$", "64 bits"),
        ([0, {"n": -(2**63) - 1}], "$[1].n", "64 bits"),
        ("\ud800", "$", "surrogate"),
        ({"a": {"b": "x\udfff"}}, "$.a.b", "surrogate at character 1"),
        ({"\ud800": 1}, "$", "surrogate"),
        ({"a": {1: 2}}, "$.a", "not a string"),
        ({None: 1}, "$", "not a string"),
        ((1, 2), "$", "tuple"),
        ({"a": {1, 2}}, "$.a", "set"),
        ({"a": b"x"}, "$.a", "bytes"),
        ([object()], "$[0]", "object"),
        (_Text("x"), "$", "_Text"),
        ({"a": _Text("x")}, "$.a", "_Text"),
        (OrderedDict(a=1), "$", "OrderedDict"),
        (nested(MAX_DEPTH + 1), "$", "deeper than 64"),
    ],
    ids=lambda value: ascii(value).partition(" at 0x")[0][:40],
)
def test_what_json_cannot_hold_is_refused_by_its_path(value: Any, where: str, reason: str) -> None:
    with pytest.raises(InvalidJson) as refused:
        dumps(value)
    assert refused.value.path.startswith(where)
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON at line 1, column 1"),
        ("{", "not JSON"),
        ("[1,]", "not JSON"),
        ("{'a':1}", "not JSON"),
        ('"\n"', "not JSON"),
        ("01", "not JSON"),
        ("1 2", "not JSON"),
        ("nul", "not JSON"),
        ("\ufeff1", "not JSON"),
        ("NaN", "NaN"),
        ("[Infinity]", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("1e999", "not a finite number"),
        ("9223372036854775808", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ("1" * 5000, "64 bits"),
        ('{"a":1,"b":2,"a":3}', "'a' stands twice"),
        ('{"a":1,"\\u0061":2}', "'a' stands twice"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00x":1}', "surrogate"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('"\ud800"', "surrogate"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_text_that_is_not_strict_json_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidJson, match=reason) as refused:
        loads(text, "plan")
    assert refused.value.path.startswith("plan")
    assert len(refused.value.message) < 300


def test_escaped_pairs_are_one_character() -> None:
    assert loads('"\\ud83d\\ude00"') == "😀"


# Limits.


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_before_a_text_is_parsed(opening: str, closing: str) -> None:
    assert loads(opening * MAX_DEPTH + "1" + closing * MAX_DEPTH) is not None
    for levels in (MAX_DEPTH + 1, 200_000):
        with pytest.raises(InvalidJson, match="deeper"):
            loads(opening * levels + "1" + closing * levels)
        with pytest.raises(InvalidJson, match="deeper"):
            loads(opening * levels)


def test_brackets_within_strings_are_not_levels() -> None:
    value = {"a": "[{" * 500, "b": '"[' * 100, "c": "\\[" * 100}
    assert loads(dumps(value)) == value


def test_depth_of_a_value_is_bounded_also_far_beyond_the_stack() -> None:
    assert dumps(nested(MAX_DEPTH)) == "[" * MAX_DEPTH + "null" + "]" * MAX_DEPTH
    with pytest.raises(InvalidJson, match="deeper"):
        dumps(nested(100_000))
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(InvalidJson, match="deeper"):
        dumps(circular)


def test_size_is_bounded() -> None:
    fits = "x" * (MAX_BYTES - 2)
    assert loads(dumps([fits[:-2]])) == [fits[:-2]]
    for value in ([fits + "x"], {"a": "é" * (MAX_BYTES // 2)}):
        with pytest.raises(InvalidJson, match="larger"):
            dumps(value)
    with pytest.raises(InvalidJson, match="larger"):
        loads(f'"{fits}x"')
    with pytest.raises(InvalidJson, match="larger"):
        loads('"' + "é" * (MAX_BYTES // 2) + '"')


def test_the_size_of_a_plain_string_is_bounded_too() -> None:
    with pytest.raises(InvalidJson, match="larger"):
        dumps("x" * MAX_BYTES)


def test_a_limit_on_a_text_counts_its_bytes() -> None:
    assert loads('"éé"', max_bytes=6) == "éé"
    for text in ('"éé"', '"éé"'.encode()):
        with pytest.raises(InvalidJson, match="larger than 5 bytes"):
            loads(text, max_bytes=5)


@pytest.mark.parametrize(
    "text",
    ['"' * 200_000, '"\\' * 100_000, "[" * 65 + '"' * 200_000, '{"a":' * 70 + '"\\\\' * 60_000],
    ids=lambda text: text[:8],
)
def test_hostile_texts_take_no_time(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(InvalidJson):
        loads(text)
    assert time.perf_counter() - began < 2


@given(st.text(max_size=40))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    try:
        value = loads(text)
    except InvalidJson as refused:
        assert len(refused.message) < 400
    else:
        assert loads(dumps(value)) == value


@given(st.binary(max_size=40))
def test_no_bytes_make_it_fail_in_another_way(data: bytes) -> None:
    try:
        value = loads(data)
    except InvalidJson:
        pass
    else:
        assert loads(dumps(value)) == value


def test_check_refuses_what_dumps_refuses() -> None:
    canonical.check({"a": [1]})
    with pytest.raises(InvalidJson, match=r"\$\.x"):
        canonical.check(float("nan"), "$.x")


@given(JSON)
def test_what_was_written_is_read_back_quickly(value: Any) -> None:
    assert canonical.loads_trusted(canonical.dumps(value)) == value


@pytest.mark.parametrize("text", ["", " 1", "1 ", "{}x", "[1", "{", '"', "nul", "[1,]"])
def test_another_text_is_not_read_quickly_either(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical.loads_trusted(text)
