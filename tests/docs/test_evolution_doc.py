"""docs/evolution.md names the fields that SQL reads; they stay as they are in all versions."""

import re
from pathlib import Path

import pytest
from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore.events import KINDS
from carstore.upcasts import UPCASTS
from tests.carstore.values import JSON
from tests.docs.markdown import DOCS, ROOT, body, sections

ROWS = body(sections(DOCS / "evolution.md")["Fields that SQL reads"], "Kind", "Fields")
READ = {kind.strip("`"): re.findall(r"`(\w+)`", names) for kind, names in ROWS}
IN_DATA = re.compile(r"'\$\.(\w+)'")


def statements() -> list[Path]:
    """The SQL of the packages, but for the changes, which lead to `schema.sql`, and the proofs,
    which look only at what they have written."""
    found = [ROOT / "schema.sql"]
    for package in ("carstore", "projections", "engine"):
        found += (ROOT / package).rglob("*.sql")
    return [path for path in found if path.parent.name not in ("changes", "prove")]


def test_every_field_that_sql_reads_is_listed() -> None:
    listed = {name for names in READ.values() for name in names}
    for path in statements():
        text = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
        assert set(IN_DATA.findall(text)) <= listed, path.name


@pytest.mark.parametrize("kind", READ)
def test_what_is_listed_is_a_field_of_its_kind(kind: str) -> None:
    assert set(READ[kind]) <= {field.name for field in fields(KINDS[kind])}


@pytest.mark.parametrize("step", UPCASTS, ids=lambda step: f"{step[0]} {step[1]}")
def test_no_upcast_touches_a_field_that_sql_reads(step: tuple[str, int]) -> None:
    names = READ.get(step[0], [])

    @settings(max_examples=30)
    @given(st.fixed_dictionaries(dict.fromkeys(names, JSON)))
    def holds(data: dict[str, object]) -> None:
        made = UPCASTS[step](data)
        assert {name: made[name] for name in names} == data

    holds()
