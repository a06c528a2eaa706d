"""docs/errors.md lists exactly the errors there are, and how commands end with each."""

import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module

import pytest

import carstore
import engine
import projections
from carstore.errors import CarstoreError
from engine.cli.errors import BAD_INPUT, FAILED
from engine.problems import ProblemCode
from tests.docs.markdown import DOCS, ROOT, body, plain, sections

SECTIONS = sections(DOCS / "errors.md")
HEADER = ("Code", "Class", "Exit", "What happened", "What to do")
CODES = re.compile(r'[pP]roblem\(\s*[^,()]+(?:\(\))?,\s*"(\w+)"')
RETURNED = re.compile(r'return \(?"(\w+)", f"')
"""What `lease_fold` answers with: a code and a message, which the audit makes a problem of."""


def classes() -> list[type[CarstoreError]]:
    """Every error that any module of the packages defines."""
    for package in (carstore, projections, engine):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__") and ".template" not in module.name:
                import_module(module.name)
    return sorted(set(_below(CarstoreError)), key=lambda cls: cls.__name__)


def _below(cls: type[CarstoreError]) -> Iterator[type[CarstoreError]]:
    for one in cls.__subclasses__():
        if one.__module__.partition(".")[0] in ("carstore", "projections", "engine"):
            yield one
            yield from _below(one)


def documented() -> dict[str, tuple[str, int]]:
    """Class name -> code and exit code."""
    rows = [
        row
        for heading, found in SECTIONS.items()
        if heading.startswith("Errors ")
        for row in body(found, *HEADER)
    ]
    found = {plain(name): (plain(code), int(status)) for code, name, status, *_ in rows}
    assert len(found) == len(rows), "a class stands twice in docs/errors.md"
    return found


def exit_code(code: str) -> int:
    if code == "interrupted":
        return 130
    return 2 if code in BAD_INPUT else 1


def test_every_error_is_documented_with_its_code_and_exit_code() -> None:
    expected = {cls.__name__: (cls.code, exit_code(cls.code)) for cls in classes()}
    assert documented() == expected


def test_commands_know_no_other_codes() -> None:
    known = {cls.code for cls in classes()} | {"internal"}
    assert known.issuperset(BAD_INPUT | FAILED)


def test_codes_are_spelled_alike() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", cls.code) for cls in classes())


def test_every_problem_of_a_proposal_is_documented() -> None:
    rows = body(SECTIONS["Problems of a proposal"], "Code", "What is wrong")
    assert [plain(code) for code, _ in rows] == [code.value for code in ProblemCode]


def test_every_problem_that_verify_finds_is_documented() -> None:
    found: set[str] = set()
    for source in (*(ROOT / "carstore/sqlite").glob("*.py"), ROOT / "engine/cli/check.py"):
        text = source.read_text(encoding="utf-8")
        found |= set(CODES.findall(text))
        found |= set(RETURNED.findall(text)) if source.name == "lease_fold.py" else set()
    rows = body(SECTIONS["Problems found by verify"], "Code", "What is wrong")
    assert {plain(code) for code, _ in rows} == found


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_is(cls: type[CarstoreError]) -> None:
    assert cls.__doc__
    assert cls.code != CarstoreError.code
