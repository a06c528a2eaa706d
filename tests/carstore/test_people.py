"""When two names are one person's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.people import person, unseen_in

UNSEEN = [
    *("\u200b", "\u200d", "\ufeff", "\u2060", "\u00ad", "\u202e", "\u034f", "\u115f", "\u3164"),
    *("\ufe0f", "\U000e0101", "\u2800", "\x00", "\ue000"),
]


@pytest.mark.parametrize("one", UNSEEN, ids=ascii)
def test_what_nobody_sees_makes_no_other_person(one: str) -> None:
    for name in (f"ann{one}", f"{one}ann", f"a{one}nn"):
        assert person(name) == person("ann")
        assert unseen_in(name) == one


@pytest.mark.parametrize("name", ["Ann", "ANN", "\uff41nn", " ann", "ann\u00a0"])
def test_other_forms_of_a_letter_make_no_other_person(name: str) -> None:
    assert person(name) == person("ann")


def test_spaces_within_count_as_one() -> None:
    assert person("ann  lee") == person("Ann\u00a0Lee") == person("ann\u2003lee")
    assert person("ann lee") != person("annlee")
    assert unseen_in("ann\u00a0lee") == "\u00a0"


def test_accents_are_the_same_in_either_form() -> None:
    assert person("Zo\u00eb") == person("zoe\u0308") != person("zoe")


@pytest.mark.parametrize(
    "name", ["ann", "Ann Lee", "Zo\u00eb", "李雷", "Ольга", "علي", "ann@x.org"]
)
def test_a_plain_name_holds_nothing_unseen(name: str) -> None:
    assert unseen_in(name) is None


@given(st.text())
def test_a_person_is_the_same_however_often_it_is_asked(name: str) -> None:
    assert person(person(name)) == person(name)
