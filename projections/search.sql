-- Named statements of the search. Braces stand for the name of an index, which is ours.

-- The words only, without the texts they are from: these stand in the events.
-- name: create
CREATE VIRTUAL TABLE "{index}"
USING fts5(kind, stream, run, key, text, content = '', tokenize = 'unicode61 remove_diacritics 2');

-- How far the index is (null: there is none), and the head of the log.
-- name: place
SELECT (SELECT position FROM view_positions WHERE name = :name AND version = :version
        AND EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :index)),
       (SELECT coalesce(max(position), 0) FROM events);

-- An index of a few events with their texts, to cut out what is shown of each.
-- name: create_shown
CREATE VIRTUAL TABLE shown
USING fts5(kind, stream, run, key, text, tokenize = 'unicode61 remove_diacritics 2');

-- What a scratch database needs besides an index to be searched like the file.
-- name: create_events
CREATE TABLE events (position INTEGER PRIMARY KEY, stream_id INTEGER, kind TEXT);

-- name: create_streams
CREATE TABLE streams (stream_id INTEGER PRIMARY KEY, name TEXT);

-- name: create_tokens
CREATE VIRTUAL TABLE tokens USING fts5vocab(shown, instance);

-- name: texts_after
SELECT e.position, e.stream_id, e.kind, s.name, e.run_id, e.key, e.data
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position > :after AND e.position <= :until
ORDER BY e.position LIMIT :limit;

-- name: insert
INSERT INTO "{index}" (rowid, kind, stream, run, key, text) VALUES (?, ?, ?, ?, ?, ?);

-- name: insert_event
INSERT INTO events (position, stream_id, kind) VALUES (?, ?, ?);

-- name: insert_stream
INSERT OR IGNORE INTO streams (stream_id, name) VALUES (?, ?);

-- name: insert_shown
INSERT INTO shown (rowid, kind, stream, run, key, text) VALUES (?, ?, ?, ?, ?, ?);

-- name: clear_shown
DELETE FROM shown;

-- name: has_token
SELECT 1 FROM tokens WHERE doc = ? LIMIT 1;

-- name: try_query
SELECT 1 FROM shown WHERE shown MATCH ?;

-- {order} is by rank or by position, newest first.
-- name: matching
SELECT i.rowid
FROM "{index}" AS i CROSS JOIN events AS e ON e.position = i.rowid
WHERE "{index}" MATCH :query AND i.rowid <= :until
  AND (:kinds IS NULL OR e.kind IN (SELECT value FROM json_each(:kinds)))
  AND (:streams IS NULL OR e.stream_id IN
       (SELECT stream_id FROM streams WHERE name IN (SELECT value FROM json_each(:streams))))
ORDER BY {order} LIMIT :limit;

-- name: found
SELECT e.position, e.stream_id, e.kind, s.name, e.run_id, e.key, e.data, e.scope, e.recorded_at
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position IN (SELECT value FROM json_each(:positions));

-- Of the data, and of whatever has most of the words.
-- name: snippets
SELECT rowid, snippet(shown, 4, char(2), char(3), char(8230), :words),
       snippet(shown, -1, char(2), char(3), char(8230), :words) FROM shown
WHERE shown MATCH :query;

-- An index that SQLite cannot open cannot be dropped either. With empty tables beneath it can.
-- name: sql_of
SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?;

-- name: drop
DROP TABLE IF EXISTS "{table}";

-- name: copy
INSERT INTO "{table}" SELECT * FROM "{other}";

-- How often each word is there. On a reading connection, so in a temporary table of its own.
-- name: create_words
CREATE VIRTUAL TABLE temp."words_of_{index}" USING fts5vocab('main', '{index}', 'row');

-- name: words
SELECT term, doc, cnt FROM temp."words_of_{index}";
