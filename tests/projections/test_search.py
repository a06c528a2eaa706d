"""Searching events by their words, and the index that is kept for it."""

import asyncio
import re
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import Entry, Store, connect
from carstore.errors import Busy, ReadOnly, SchemaTooNew
from carstore.names import RunId, StreamName, inbox_stream, lease_stream, run_lease, run_stream
from carstore.redaction import Redaction
from carstore.sqlite.verify import verify
from projections import LAZY, ViewDamaged, catch_up, rebuild, search_hits, search_index
from projections.errors import InvalidSearch, NoFullText
from projections.kept import TAIL_EVENTS, Place
from projections.search import search
from projections.search_index import INDEX, SQL, catch_up_search, search_place, strings
from projections.search_rebuild import compare_search, rebuild_search
from tests.carstore.helpers import grant, in_loop, new_file, open_store, step
from tests.projections.plausible import (
    append,
    append_unknown,
    changed,
    failed,
    harm,
    metered,
    received,
    sql,
    succeeded,
)

search_module = import_module("projections.search")  # the package has a function of this name


async def found(store: Store, words: str | list[str], **options: Any) -> list[int]:
    return [hit.position for hit in await search(store, words, **options)]


def shown(hit: search_hits.Hit) -> list[str]:
    return [hit.snippet[begin:end] for begin, end in hit.marks]


def stored(path: Path) -> list[str]:
    """All that the index holds, as a program that has never heard of carstore reads it."""
    connection = sqlite3.connect(path)
    try:
        connection.execute(f"CREATE VIRTUAL TABLE temp.w USING fts5vocab(main, '{INDEX}', 'row')")
        return [word for (word,) in connection.execute("SELECT term FROM temp.w")]
    finally:
        connection.close()


# What is found.


@in_loop
async def test_names_and_texts_of_the_data_kind_stream_run_and_key_are_found(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, failed(error="connection refused by host"), run="r1")
        last = await append(store, changed("report", {"title": ["Quarterly"]}), run="r2")
        for words in ("refused", "CONNECTION host", "action_failed", "run/r1", "error", "r1"):
            assert await found(store, words) == [last - 1], words
        for words in ("quarterly", "title", "report", "state_changed r2"):
            assert await found(store, words) == [last], words
        await append(store, changed("report", deleted=True), run="r2")
        assert await found(store, "report") == [last + 1, last]
        assert await found(store, "connection quarterly") == [], "each word must be there"
        assert await found(store, "connect") == [], "a word is a whole one"
        assert await found(store, ["by host"]) == [last - 1]
        assert await found(store, ["host by"]) == [], "a phrase has an order"


@in_loop
async def test_hits_tell_the_event_and_where_the_words_are(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, changed("ключ", {"text": "Größe: ok\nand more"}), run="r1")
        [hit] = await search(store, ["große"])
        recorded = [one async for one in store.log.read()][-1]
        assert (hit.position, hit.stream, hit.kind) == (2, "run/r1", "state_changed")
        assert (hit.recorded_at, hit.run_id) == (recorded.recorded_at, "r1")
        assert (hit.scope, hit.key) == ("main", "ключ")
        assert shown(hit) == ["Größe"]


@in_loop
async def test_what_is_shown_is_of_the_data_if_a_word_is_there(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, failed(error="the run r1 was refused"), run="r1")
        [hit] = await search(store, "r1")
        assert (hit.snippet.count("was refused"), shown(hit)) == (1, ["r1"])
        [hit] = await search(store, "action_failed")
        assert (hit.snippet, shown(hit)) == ("action_failed", ["action_failed"])


@in_loop
async def test_hits_can_be_narrowed(path: Path) -> None:
    async with open_store(path) as store:
        r1 = RunId("r1")
        streams = [run_stream(r1), inbox_stream(r1), lease_stream(run_lease(r1))]
        streams.append(StreamName("run/r10"))
        entries = [Entry(stream, failed(error="boom")) for stream in streams]
        await store.log.append(*entries, Entry(StreamName("notes"), succeeded(output="boom")))
        assert await found(store, "boom") == [6, 5, 4, 3, 2]
        assert await found(store, "boom", run=r1) == [4, 3, 2]
        assert await found(store, "boom", kinds=["action_succeeded"]) == [6]
        assert await found(store, "boom", kinds=["action_succeeded", "action_failed"], limit=2) == [
            6,
            5,
        ]
        assert await found(store, "boom", kinds=["state_changed"]) == []
        assert await found(store, "boom", run=RunId("none")) == []
        assert await found(store, "boom", at=4, limit=1) == [4]
        assert await found(store, "boom", at=1) == []
        with pytest.raises(ValueError, match="1 or more"):
            await search(store, "boom", limit=0)


@in_loop
async def test_the_best_come_first_if_asked_for(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, failed(error="disk"), failed(error="disk full: disk disk disk"))
        await append(store, failed(error=f"disk {'and other words ' * 20}"))
        assert await found(store, "disk") == [4, 3, 2]
        assert await found(store, "disk", best=True) == [3, 2, 4]
        assert (await search_place(store)).behind == 0, "ranks need one index of everything"
        await append(store, failed(error=f"disk {'and still more words ' * 40}"))
        async with open_store(path, readonly=True) as other:
            assert await found(other, "disk", best=True) == [3, 2, 4, 5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("第三季度报告已完成", "报告"),
        ("カタカナとひらがな", "ひら"),
        ("v2报告final", "final"),
        ("Ünïcödé", "unicode"),
        ("e\u0301tude", "étude"),
        ("a\0b\2c\3d", "b c d"),
        ("nul\0after", "after"),
        ("price: 5€", "5"),
        ("snake_case-and/slash", "case"),
    ],
)
@in_loop
async def test_words_of_any_script_are_found(path: Path, text: str, words: str) -> None:
    async with open_store(path) as store:
        last = await append(store, changed("k", text))
        [hit] = await search(store, words)
        assert hit.position == last
        assert len(hit.marks) == len(words.split())
        assert search_index.SEPARATOR not in hit.snippet


@in_loop
async def test_events_of_a_newer_carstore_are_found_too(path: Path) -> None:
    position = append_unknown(path)
    async with open_store(path) as store:
        assert await found(store, "of_the_future") == [position]


@in_loop
async def test_values_beside_the_log_are_there_by_their_hash_only(path: Path) -> None:
    redaction = Redaction(names=("password",), inline_bytes=500)
    async with connect(path, durability="crash", redaction=redaction) as store:
        first = await append(store, changed("login", {"password": "swordfish", "user": "ann"}))
        second = await append(store, changed("large", "plankton " * 100))
        data = sql(path, "SELECT data FROM events WHERE kind = 'state_changed'")
        hashes = [re.findall("[0-9a-f]{64}", text)[0] for (text,) in data]
        await catch_up_search(store)
        assert [await found(store, word) for word in hashes] == [[first], [second]]
        assert await found(store, "ann") == [first]
        for word in ("swordfish", "plankton", "$blob", "bytes", "sensitive"):
            assert await found(store, word) == [], word
    assert {"swordfish", "plankton", "blob"}.isdisjoint(stored(path))


def test_what_only_looks_like_a_reference_is_a_text() -> None:
    assert strings('{"$blob":"abc","bytes":1}') == "$blob: abc \u00b7 bytes"
    assert strings('{"a":[{"$blob":"' + "0" * 64 + '","bytes":1}]}') == "a \u00b7 " + "0" * 64


@pytest.mark.parametrize("data", ["no json", "[" * 100_000, '{"a":'])
def test_data_that_are_no_json_are_taken_as_they_stand(data: str) -> None:
    assert strings(data) == data


# What is asked for.


@pytest.mark.parametrize(
    "words",
    [
        ["a OR b"],
        ["a", "OR", "b"],
        ["NOT", "b"],
        ["b", "AND", "a"],
        ["NEAR(a b)"],
        ['a"'],
        ['"a b'],
        ["kind:a"],
        ["a*"],
        ["^b"],
        ["-a"],
        ["(a"],
        ["a", "b)"],
        ["text:", "a"],
    ],
)
@in_loop
async def test_nothing_in_words_is_syntax(path: Path, words: list[str]) -> None:
    texts = ["a", "b", "ab", "a b", "b a", "a or b", "a and b", "not b", "near a b", "kind a text"]

    def is_hit(text: str) -> bool:
        phrases = [" ".join(re.findall(r"\w+", word.lower())) for word in words]
        return all(f" {phrase} " in f" {text} " for phrase in phrases)

    async with open_store(path) as store:
        await append(store, *[failed(error=text) for text in texts], run=None)
        expected = [n + 2 for n, text in enumerate(texts) if is_hit(text)]
        assert await found(store, words) == expected[::-1]


@in_loop
async def test_a_text_in_place_of_kinds_is_refused(path: Path) -> None:
    async with open_store(path, readonly=True) as store:
        with pytest.raises(TypeError, match="kinds are several texts"):
            await search(store, "boom", kinds="action_failed")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=3), st.booleans())
def test_any_text_is_searched_for_or_refused(words: list[str], syntax: bool) -> None:
    with search_index.scratch() as scratch:
        make = search_module._as_it_is if syntax else search_module._all_of
        try:
            query = make(scratch, words)
        except InvalidSearch as refused:
            assert refused.message
        else:
            sql = SQL["matching"].format(index=INDEX, order="i.rank")
            scratch.execute(sql, _wanted(query)).fetchall()


def _wanted(query: str) -> dict[str, Any]:
    return {"query": query, "kinds": None, "streams": None, "until": 9, "limit": 9}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "no word"),
        (" \t", "no word"),
        ([], "no word"),
        ("ok !!!", "'!!!': it has no letter and no digit"),
        ("🎉", "no letter"),
        ("\ud800", "no letter"),
        ("a" * 4_001, "longer than 4,000"),
    ],
)
@in_loop
async def test_words_that_cannot_be_searched_for_are_refused(
    path: Path, words: str | list[str], reason: str
) -> None:
    async with open_store(path) as store:
        with pytest.raises(InvalidSearch, match=reason) as caught:
            await search(store, words)
        assert caught.value.code == "invalid_search"


@in_loop
async def test_a_query_can_be_given_in_the_syntax_of_fts5(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, failed(error="timeout"), failed(error="refused"), changed("timeout", 1))
        assert await found(store, "timeout OR refused", syntax=True) == [4, 3, 2]
        assert await found(store, "kind:action* NOT refus*", syntax=True) == [2]
        assert await found(store, "key:timeout", syntax=True) == [4]
        assert await found(store, ["key", ":", "timeout"], syntax=True) == [4]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("a OR", "it ends too early"),
        ('"a', "unterminated string"),
        ("stage:a", "no such column: stage; there are kind, stream, run, key and text"),
        ("a-b", "no such column: b"),
        ("*a", "unknown special query"),
        ("(" * 300 + "a" + ")" * 300, "parser stack overflow"),
        (" ", "no word"),
    ],
)
@in_loop
async def test_a_query_that_fts5_does_not_understand_is_refused(
    path: Path, query: str, reason: str
) -> None:
    async with open_store(path) as store:
        with pytest.raises(InvalidSearch, match=re.escape(reason)):
            await search(store, query, syntax=True)


# Against an oracle, whatever is in the index.

_word = st.sampled_from(["ann", "bob", "cat"])
_texts = st.lists(st.lists(_word, max_size=4).map(" ".join), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(_texts, _texts, st.lists(_word, min_size=1, max_size=3), st.integers(0, 20), st.booleans())
def test_a_search_finds_what_is_there(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[str],
    after: list[str],
    words: list[str],
    at: int,
    phrase: bool,
) -> None:
    path = new_file(tmp_path_factory.mktemp("any") / "log.db")
    asked = [" ".join(words)] if phrase else words

    def is_hit(text: str) -> bool:
        return all(f" {word} " in f" {text} " for word in asked)

    texts = ["", *before, *after]
    expected = [n for n in range(len(texts), 1, -1) if n <= at and is_hit(texts[n - 1])]

    async def run() -> None:
        async with open_store(path) as store:
            await store.log.append(*[Entry(StreamName("s"), changed("k", text)) for text in before])
            assert await found(store, asked, at=at) == [n for n in expected if n <= len(before) + 1]
            await catch_up_search(store)
            await store.log.append(*[Entry(StreamName("s"), changed("k", text)) for text in after])
            assert await found(store, asked, at=at) == expected, "half of it is stored"
            assert await found(store, asked, at=at, limit=1) == expected[:1]
            assert sorted(await found(store, asked, at=at, best=True), reverse=True) == expected
            assert (await search_place(store)).behind == 0
            assert await found(store, asked, at=at) == expected, "all is stored"
            assert await compare_search(store) == []

    asyncio.run(run())


# How the index is kept.


@in_loop
async def test_the_index_is_stored_when_it_is_worth_it(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * (TAIL_EVENTS - 1))
        assert len(await found(store, "boom", limit=999)) == TAIL_EVENTS - 1
        assert (await search_place(store)).position is None
        last = await append(store, failed(error="boom"))
        assert len(await found(store, "boom", limit=999)) == TAIL_EVENTS
        assert await search_place(store) == Place(last, last)
    assert sql(path, "SELECT version, position FROM view_positions") == [(1, last)]
    newest = f"SELECT max(rowid) FROM {INDEX} WHERE {INDEX} MATCH 'boom'"
    assert sql(path, newest) == [(last,)], "any program can search"


@in_loop
async def test_pages_of_any_size_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(path) as store:
        await append(store, *[changed("k", f"word{n}") for n in range(30)])
        said: list[tuple[int, int]] = []
        for name, size in (("PAGE_EVENTS", 3), ("PAGE_CHARS", 100)):
            with monkeypatch.context() as patch:
                patch.setattr(search_index, name, size)
                harm(path, "DELETE FROM view_positions")
                assert await catch_up_search(store, progress=lambda *at: said.append(at)) == 31
                assert await compare_search(store) == []
                for n in (0, 2, 3, 29):
                    assert await found(store, f"word{n}") == [n + 2], name
        assert said[0] == (3, 31)
        assert said[-1] == (31, 31)


@in_loop
async def test_two_stores_and_many_tasks_index_each_event_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "PAGE_EVENTS", 7)
    async with open_store(path) as one, open_store(path) as two:
        await append(one, *[failed(error="boom")] * 100)
        await asyncio.gather(
            *[catch_up_search(store) for _ in range(8) for store in (one, two)],
            append(two, *[failed(error="boom")] * 20),
        )
        await catch_up_search(one)
        assert await found(two, "boom", limit=999) == list(range(121, 1, -1))
        assert await compare_search(one) == []


@in_loop
async def test_a_step_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "PAGE_EVENTS", 5)
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * 12)
        with monkeypatch.context() as patch:
            patch.setattr(search_index, "text_of", _failing_at(9, search_index.text_of))
            with pytest.raises(RuntimeError):
                await catch_up_search(store)
        assert await search_place(store) == Place(5, 13)  # type: ignore[arg-type]
        assert await compare_search(store) == []
        assert await catch_up_search(store) == 13
        assert await compare_search(store) == []


def _failing_at(position: int, whole: Any) -> Any:
    def text_of(row: Any) -> Any:
        if row[0] == position:
            raise RuntimeError
        return whole(row)

    return text_of


@in_loop
async def test_a_file_that_cannot_be_written_is_searched_too(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * (TAIL_EVENTS + 100))
    before = path.read_bytes()
    async with open_store(path, readonly=True) as store:
        assert len(await found(store, "boom", limit=999)) == TAIL_EVENTS + 100
        assert len(await found(store, "boom", limit=999, best=True)) == TAIL_EVENTS + 100
        for keep in (catch_up_search, rebuild_search):
            with pytest.raises(ReadOnly):
                await keep(store)
    assert path.read_bytes() == before
    async with open_store(path, busy_timeout_ms=1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            assert len(await found(store, "boom", limit=999)) == TAIL_EVENTS + 100
            with pytest.raises(Busy):
                await catch_up_search(store)
        finally:
            other.close()


@in_loop
async def test_a_file_that_was_migrated_meanwhile_is_left_alone(path: Path) -> None:
    async with open_store(path) as store:
        sql(path, "PRAGMA user_version = 99")
        with pytest.raises(SchemaTooNew):
            await catch_up_search(store)


@in_loop
async def test_without_fts5_it_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SQL, "create", SQL["create"].replace("fts5", "fts_that_is_not_there"))
    async with open_store(path) as store:
        await append(store, metered())
        for call in (search(store, "x"), catch_up_search(store), rebuild_search(store)):
            with pytest.raises(NoFullText, match="built without FTS5") as caught:
                await call
        assert caught.value.code == "no_full_text"
        await append(store, metered())


# Damage, and the rest of the file.


@pytest.mark.parametrize(
    "damage",
    [
        *[f"DROP TABLE {INDEX}_{part}" for part in ("data", "idx", "config")],
        f"DELETE FROM {INDEX}_data",
        f"UPDATE {INDEX}_data SET block = randomblob(20)",
        f"UPDATE {INDEX}_config SET v = 99",
        "UPDATE view_positions SET position = 9999",
    ],
)
@in_loop
async def test_a_damaged_index_is_told_and_made_anew(path: Path, damage: str) -> None:
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * 3)
        await catch_up_search(store)
    harm(path, damage)
    async with open_store(path) as store:
        with pytest.raises(ViewDamaged, match=r"'search' cannot be used.*`carstore rebuild`"):
            await search(store, "boom")
        [difference] = await compare_search(store)
        assert difference.view == "search"
        await append(store, failed(error="boom"))
        assert (await rebuild_search(store)).before == "damaged"
        assert await compare_search(store) == []
        assert await found(store, "boom") == [5, 4, 3, 2]


@pytest.mark.parametrize("damage", [f"DROP TABLE {INDEX}", "DELETE FROM view_positions"])
@in_loop
async def test_an_index_that_is_gone_is_made_anew(path: Path, damage: str) -> None:
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * 3)
        await catch_up_search(store)
        harm(path, damage)
        await catch_up_search(store)
        assert await found(store, "boom") == [4, 3, 2]
        assert await compare_search(store) == []


@in_loop
async def test_what_the_log_does_not_say_is_no_hit(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, failed(error="boom"))
        await catch_up_search(store)
        sql(path, f"INSERT INTO {INDEX} (rowid, text) VALUES (1, 'invented')")
        with pytest.raises(ViewDamaged, match="it finds event 1, which has no such words"):
            await search(store, "invented")
        [difference] = await compare_search(store)
        assert "'invented' is in 1 events, 1 times, and by the log in no event" in difference.reason
        assert (await rebuild_search(store)).before == "different"
        assert await found(store, "invented") == []


@in_loop
async def test_a_word_that_is_missing_is_a_difference(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, failed(error="boom"))
        await catch_up_search(store)
        await append(store, failed(error="boom"))
        assert await compare_search(store) == [], "what is not indexed yet is no difference"
        harm(path, "UPDATE view_positions SET position = 3")
        [difference] = await compare_search(store)
        assert (difference.position, difference.key) == (3, None)
        assert "in 1 events" in difference.reason


@in_loop
async def test_a_rebuild_says_what_came_out(path: Path) -> None:
    async with open_store(path) as store:
        last = await append(store, *[failed(error="boom")] * 3)
        first = await rebuild_search(store)
        assert (first.view, first.version, first.position, first.rows) == ("search", 1, last, last)
        assert (first.before, len(first.checksum)) == ("none", 64)
        again = await rebuild_search(store)
        assert (again.checksum, again.before) == (first.checksum, "equal")
        await append(store, failed(error="bang"))
        more = await rebuild_search(store)
        assert (more.position, more.before) == (last + 1, "equal")
        assert more.checksum != first.checksum


@in_loop
async def test_the_index_stays_in_use_during_a_rebuild(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "PAGE_EVENTS", 2)
    async with open_store(path) as store, open_store(path) as other:
        await append(store, *[failed(error="boom")] * 9)
        await catch_up_search(store)
        seen: list[asyncio.Task[Any]] = []

        def progress(*_: int) -> None:
            seen.append(asyncio.create_task(search(other, "boom")))

        rebuilt = await rebuild_search(store, progress=progress)
        assert {len(await task) for task in seen} == {9}
        assert rebuilt.before == "equal"
        one, two = await asyncio.gather(
            rebuild_search(store), rebuild_search(other), return_exceptions=True
        )
        ended = sorted(type(result).__name__ for result in (one, two))
        assert ended in (["Rebuilt", "Rebuilt"], ["RebuildOvertaken", "Rebuilt"])
        assert await compare_search(store) == []


@in_loop
async def test_a_rebuild_removes_what_an_interrupted_one_has_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = f"SELECT count(*) FROM sqlite_master WHERE name LIKE '{INDEX}_new%'"
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * 9)
        await catch_up_search(store)
        with monkeypatch.context() as patch:
            patch.setattr(search_index, "text_of", _failing_at(9, search_index.text_of))
            with pytest.raises(RuntimeError):
                await rebuild_search(store)
        assert sql(path, left) == [(5,)]
        assert await found(store, "boom") == list(range(10, 1, -1)), "the old one is in use"
        await rebuild_search(store)
        assert sql(path, left) == [(0,)]
        assert await compare_search(store) == []


@in_loop
async def test_a_comparison_begins_again_if_the_index_is_put_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "PAGE_EVENTS", 2)
    async with open_store(path) as store:
        await append(store, *[failed(error="boom")] * 9)
        await catch_up_search(store)
        older = [False]

        def progress(done: int, _: int) -> None:
            if done == 8 and not older[0]:
                older[0] = True
                harm(
                    path,
                    f"DROP TABLE {INDEX}; {SQL['create'].format(index=INDEX)};"
                    "UPDATE view_positions SET position = 1",
                )

        [difference] = await compare_search(store, progress=progress)
        assert (older, difference.position) == ([True], 1)


@in_loop
async def test_the_rest_of_the_file_is_content_with_the_index(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), changed("k", "boom"), metered())
        await store.log.append(step(), grant("agent/x"))
        await catch_up_search(store)
        for view in LAZY:
            await catch_up(store, view)
            await rebuild(store, view)
        assert (await verify(store)).problems == ()
        assert await compare_search(store) == []
        assert await found(store, "boom") == [3]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@in_loop
async def test_a_word_of_any_length_is_shown_in_part(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, changed("k", f"{'x' * 30_000} boom {'y' * 30_000}"))
        await append(store, changed("m", "z" * 3_000))
        [hit] = await search(store, "boom")
        assert shown(hit) == ["boom"]
        [long] = await search(store, "z" * 3_000)
        for one in (hit, long):
            assert len(one.snippet) <= search_hits.SNIPPET_CHARS
        assert set(shown(long)[0]) == {"z"}
