"""Names: which streams belong to a run, and which lease fences which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.errors import run_id_of
from carstore.names import (
    LeaseName,
    RunId,
    StreamName,
    inbox_stream,
    is_run_id,
    lease_of,
    lease_stream,
    run_lease,
    run_stream,
)

RUN_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True).map(RunId)


@given(RUN_IDS)
def test_what_happens_in_a_run_is_fenced_by_its_lease_and_nothing_else_is(run_id: RunId) -> None:
    assert is_run_id(run_id)
    assert lease_of(run_stream(run_id)) == run_lease(run_id)
    assert lease_of(inbox_stream(run_id)) is None
    assert lease_of(lease_stream(run_lease(run_id))) is None


@given(RUN_IDS, RUN_IDS)
def test_runs_share_no_stream(one: RunId, two: RunId) -> None:
    def streams(run_id: RunId) -> set[str]:
        return {run_stream(run_id), inbox_stream(run_id), lease_stream(run_lease(run_id))}

    assert len(streams(one)) == 3
    assert not (streams(one) & streams(two)) or one == two


@given(RUN_IDS)
def test_the_lease_of_a_run_leads_back_to_it(run_id: RunId) -> None:
    assert run_id_of(run_lease(run_id)) == run_id
    assert run_id_of(LeaseName(f"agent/{run_id}")) is None


@pytest.mark.parametrize(
    "text",
    ["", "a/b", "-a", ".a", "a b", "a\n", "é", "a" * 129, "a\0", "../a", "a%", " a", "🙂"],
    ids=ascii,
)
def test_other_texts_name_no_run(text: str) -> None:
    assert not is_run_id(text)


@pytest.mark.parametrize("stream", ["", "run", "run/", "run/a/b", "runs/a", "log", "lease/run/a"])
def test_other_streams_are_not_fenced(stream: str) -> None:
    assert lease_of(StreamName(stream)) is None
