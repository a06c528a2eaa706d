"""The tools of the demonstration do what they say, also in a folder that changes."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from engine.context import ToolContext
from engine.demo import tools


def test_a_file_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "a b\n").write_bytes(b"content")
    found = tools.hash_file(str(tmp_path), "a b\n")
    assert found["sha256"] == hashlib.sha256(b"content").hexdigest()
    assert (found["bytes"], found["problem"]) == (7, None)


def test_a_file_that_is_gone_is_a_finding_and_no_failure(tmp_path: Path) -> None:
    found = tools.hash_file(str(tmp_path), "gone")
    assert (found["sha256"], found["problem"]) == (None, "No such file or directory")
    assert tools.count(str(tmp_path), "gone", "Python", None)["problem"] is not None


def test_a_file_that_became_a_pipe_or_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert tools.hash_file(str(tmp_path), "pipe")["problem"] == "no regular file any more"
    assert tools.hash_file(str(tmp_path), "folder")["problem"] is not None


def test_a_file_that_has_grown_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "MAX_READ_BYTES", 3)
    (tmp_path / "a").write_bytes(b"1234")
    assert "grown" in tools.hash_file(str(tmp_path), "a")["problem"]


@pytest.mark.parametrize(
    ("content", "lines", "words"),
    [(b"", 0, 0), (b"one", 1, 1), (b"one two\n", 1, 2), (b"\n\n", 2, 0), ("ä ö\nü".encode(), 2, 3)],
)
def test_lines_and_words_are_counted(
    tmp_path: Path, content: bytes, lines: int, words: int
) -> None:
    (tmp_path / "a").write_bytes(content)
    found = tools.count(str(tmp_path), "a", "text", hashlib.sha256(content).hexdigest())
    assert (found["lines"], found["words"], found["language"]) == (lines, words, "text")


def test_a_binary_file_has_no_lines(tmp_path: Path) -> None:
    content = b"\n\0\n"
    (tmp_path / "a").write_bytes(content)
    found = tools.count(str(tmp_path), "a", "other", hashlib.sha256(content).hexdigest())
    assert (found["language"], found["lines"]) == ("binary", 0)


def test_what_changed_since_it_was_hashed_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    found = tools.count(str(tmp_path), "a", "text", hashlib.sha256(b"old").hexdigest())
    assert (found["lines"], found["problem"]) == (0, "it changed while it was being looked at")


def test_the_price_list_refuses_the_first_call_and_no_other() -> None:
    with pytest.raises(ConnectionError):
        tools.prices(ctx=ToolContext.detached(attempt=1))
    assert tools.prices(ctx=ToolContext.detached(attempt=2)) == {"in": 5, "out": 25}


def test_duplicates_are_grouped_and_empty_files_are_none() -> None:
    hashes = [
        {"path": name, "sha256": digest, "bytes": size, "problem": None}
        for name, digest, size in [
            ("a", "x", 5), ("b", "y", 9), ("c", "x", 5), ("d", "y", 9), ("e", "z", 1),
            ("f", "0", 0), ("g", "0", 0), ("h", None, None),
        ]
    ]  # fmt: skip
    ctx = ToolContext.detached()
    found = tools.duplicates(hashes=hashes, ctx=ctx)
    assert found == {"groups": [["b", "d"], ["a", "c"]], "wasted_bytes": 14}
    assert ctx.changes == {"files/duplicated": 2}


def test_sums_are_of_one_language_and_become_state() -> None:
    counts = [
        {"language": "Python", "lines": 3, "words": 5},
        {"language": "binary", "lines": 0, "words": 0},
        {"language": "Python", "lines": 4, "words": 1},
    ]
    ctx = ToolContext.detached()
    found = tools.add_up(language="Python", counts=counts, ctx=ctx)
    assert found == {"language": "Python", "files": 2, "lines": 7, "words": 6}
    assert ctx.changes == {"lines/Python": 7}


def test_two_agents_are_metered() -> None:
    ctx = ToolContext.detached()
    asyncio.run(tools.classify(path="tests/a.py", size=400, latency_ms=0, ctx=ctx))
    asyncio.run(
        tools.write_section(
            topic="sizes", facts=[], price={"in": 5, "out": 25}, latency_ms=0, ctx=ctx
        )
    )
    assert [metered.agent for metered in ctx.buffered.metered] == ["reader", "writer"]
    assert all(metered.cost_micros > 0 for metered in ctx.buffered.metered)


def test_publishing_twice_leaves_one_report_and_withdrawing_twice_none(tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    for _ in range(2):
        output = tools.publish(file=str(file), text="ä", ctx=ToolContext.detached())
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    for _ in range(2):
        tools.withdraw(parameters={"file": str(file), "text": "ä"}, output=output)
    assert list(tmp_path.iterdir()) == []
