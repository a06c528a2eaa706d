"""How ids, tool names and state keys may be spelled."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rules.identifiers import (
    MAX_ID_CHARS,
    MAX_STATE_KEY_BYTES,
    problem_with_id,
    problem_with_state_key,
)

ID_CHARACTERS = "ABCXYZabcxyz0189._:/-"


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", fullmatch=True))
def test_an_id_of_allowed_characters_has_no_problem(text: str) -> None:
    assert problem_with_id(text) is None


@given(st.one_of(st.text(max_size=200), st.text(ID_CHARACTERS + "é \n\u0661", max_size=140)))
def test_ids_are_judged_as_the_rule_says(text: str) -> None:
    allowed = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", text) is not None
    assert (problem_with_id(text) is None) == allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a" * (MAX_ID_CHARS + 1), "has 129 characters"),
        ("a\n", r"'a\n' holds '\n'"),
        ("a b", "holds ' '"),
        ("-a", "begins with '-'"),
        ("/a", "begins with '/'"),
        ("é", r"holds '\xe9'"),
        ("\u0661", r"holds '\u0661'"),
        (7, "is of type int, not a string"),
        (None, "is of type NoneType, not a string"),
    ],
)
def test_what_is_wrong_with_an_id_is_said(text: object, said: str) -> None:
    problem = problem_with_id(text)
    assert problem is not None
    assert said in problem


@given(st.text())
def test_state_keys_are_judged_as_the_rule_says(text: str) -> None:
    allowed = (
        text != ""
        and len(text.encode()) <= MAX_STATE_KEY_BYTES
        and unicodedata.is_normalized("NFC", text)
        and not any(unicodedata.category(character) == "Cc" for character in text)
    )
    assert (problem_with_state_key(text) is None) == allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a" * 513, "has 513 bytes"),
        ("é" * 257, "has 514 bytes"),
        ("a\0", r"control character '\x00' at character 1"),
        ("\x7f", "control character"),
        ("\x85", "control character"),
        ("e\u0301", "not in Unicode's form NFC"),
        ("a\ud800", "lone surrogate at character 1"),
        (b"a", "is of type bytes, not a string"),
    ],
)
def test_what_is_wrong_with_a_state_key_is_said(text: object, said: str) -> None:
    problem = problem_with_state_key(text)
    assert problem is not None
    assert said in problem


@pytest.mark.parametrize("text", ["a", "build/état", "with space", "日本", "é" * 256, "👩‍👩‍👧"])
def test_state_keys_may_be_words_of_any_language(text: str) -> None:
    assert problem_with_state_key(text) is None


@given(st.text(st.characters(exclude_categories=()), max_size=2000))
def test_problems_are_short_and_fit_any_terminal(text: str) -> None:
    for problem in (problem_with_id(text), problem_with_state_key(text)):
        assert problem is None or (len(problem) < 400 and problem.isascii())
