"""The chain: what a hash covers, computed here from the definition alone."""

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from carstore.chain import GENESIS, frame, link
from tests.carstore.values import INT64, TEXT

COLUMNS = (
    "prev_hash", "position", "stream", "version", "kind", "schema_version", "recorded_at",
    "run_id", "scope", "key", "fence", "fence_token", "data",
)  # fmt: skip
OPTIONAL = st.none() | TEXT
ROWS = st.fixed_dictionaries(
    {
        "prev_hash": st.just(GENESIS) | st.text("0123456789abcdef", min_size=64, max_size=64),
        "position": st.integers(1, 2**63 - 1),
        "stream": TEXT,
        "version": st.integers(1, 2**63 - 1),
        "kind": TEXT,
        "schema_version": st.integers(1, 2**31),
        "recorded_at": INT64,
        "run_id": OPTIONAL,
        "scope": OPTIONAL,
        "key": OPTIONAL,
        "fence": OPTIONAL,
        "fence_token": st.none() | INT64,
        "data": TEXT,
    }
)


def defined(row: dict[str, Any]) -> str:
    text = json.dumps([row[name] for name in COLUMNS], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def computed(row: dict[str, Any]) -> str:
    covered = frame(
        row["stream"], row["kind"], row["schema_version"], row["run_id"], row["scope"], row["key"],
        row["data"],
    )  # fmt: skip
    return link(
        row["prev_hash"], row["position"], row["version"], row["recorded_at"], row["fence"],
        row["fence_token"], covered,
    )  # fmt: skip


@given(ROWS)
def test_a_hash_is_that_of_the_canonical_array(row: dict[str, Any]) -> None:
    assert computed(row) == defined(row)


@given(ROWS, st.data())
def test_every_column_is_covered(row: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(row)))
    other = data.draw(ROWS)[name]
    changed = {**row, name: other}
    assert (computed(changed) == computed(row)) == (other == row[name])


def test_null_is_not_the_text_null() -> None:
    row: dict[str, Any] = {
        "prev_hash": GENESIS, "position": 1, "stream": "s", "version": 1, "kind": "k",
        "schema_version": 1, "recorded_at": 1, "run_id": None, "scope": None, "key": None,
        "fence": None, "fence_token": None, "data": "{}",
    }  # fmt: skip
    hashes = {computed({**row, name: "null"}) for name in ("run_id", "scope", "key", "fence")}
    assert len(hashes | {computed(row)}) == 5


def test_a_known_event_has_its_known_hash() -> None:
    """Written down, because a hash that changes makes every log of the world invalid."""
    row: dict[str, Any] = {
        "prev_hash": GENESIS, "position": 1, "stream": "run/é", "version": 1,
        "kind": "state_changed", "schema_version": 1, "recorded_at": 1_700_000_000_000_000,
        "run_id": "r", "scope": "main", "key": "k", "fence": "run/é", "fence_token": 2**40 + 7,
        "data": '{"prev":null,"value":"\\u0001😀"}',
    }  # fmt: skip
    assert computed(row) == "5d93df639ce90f9ac9874932513b08688d46b0891bef58385c05f16511dfd084"
