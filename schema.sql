-- carstore: what this file guarantees
--
-- A carstore database is one table, `events`, that is only ever appended to, and whatever can be
-- told from it. The rules below are triggers, so they hold for every program that opens the file,
-- also one that has never heard of carstore: no pragma switches a trigger off as one does a CHECK,
-- and a BEFORE INSERT trigger speaks before OR REPLACE has deleted anything. (Who means to can drop
-- a trigger, or ask SQLite's C interface to ignore them all; `carstore verify` finds what results.)
-- They refuse with RAISE(ABORT): the statement is undone and the transaction goes on.
--
--   1. `position` is the order of everything: 1, 2, 3 ... without gaps. `recorded_at` (microseconds
--      since 1970 UTC) tells people when; a clock may step back, so it orders nothing.
--   2. `(stream_id, version)` is the order within a stream, also without gaps.
--   3. `prev_hash` is the hash of the event before it, 64 zeros for the first. `hash` is the SHA-256
--      (hex) of the canonical JSON array [prev_hash, position, stream, version, kind,
--      schema_version, recorded_at, run_id, scope, key, fence, fence_token, data], with the stream
--      by name and `data` as its stored text. SQLite cannot compute it; `carstore verify` does.
--   4. `data` is JSON. Events of kind state_changed, and no others, name a scope and a key; so the
--      value of a key as of any position is one look-up in the index `events_key`.
--   5. A stream may name a lease. From the first grant of that lease on, an event of the stream
--      carries the lease's current fencing token, or is refused; when the lease is free, every
--      event of the stream is. No clock is read here: expiry decides who may acquire, a token
--      decides who may write.
--   6. Nothing is updated and nothing is deleted.
--   7. An epoch is larger than the one before: so tokens, which begin with it, only grow. It is less
--      than 2^23, so that they stay integers of 64 bits.
--
-- Nothing can be erased from a chain, so values that are large or sensitive live beside it: the
-- event holds {"$blob": HASH, "bytes": SIZE}, and `blobs` the value. An event of kind
-- blob_forgotten deletes it there, and nothing else does.
--
-- `streams` gives each stream a small number, once; the hashes cover its name. The head of a stream
-- is the last entry of the index on (stream_id, version), so it needs no keeping; `stream_heads`
-- shows it. `leases` is kept by a trigger, because rule 5 reads it between one row and the next: it
-- can be folded again from the events, and a write to it that says anything else than the newest
-- event is refused. All other views are tables named view_NAME_vVERSION with a plain SQL view NAME
-- on top (the full-text index, view_search_vVERSION, has none); they may be dropped at any time and
-- rebuilt.
--
-- To read history by hand, begin with the view `log`.

CREATE TABLE streams (
    stream_id INTEGER PRIMARY KEY,              -- 1, 2, 3 ...
    name      TEXT NOT NULL UNIQUE,
    lease     TEXT                              -- the lease that fences it, if any
) STRICT;

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    token      INTEGER,                         -- epoch * 2^40 + position of the grant; NULL: free
    holder     TEXT,                            -- JSON: instance, incarnation, host, process
    request_id TEXT,                            -- of the acquire that was granted
    granted_at INTEGER,                         -- microseconds UTC
    expires_at INTEGER,                         -- microseconds UTC
    position   INTEGER NOT NULL                 -- of the event that made this row
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    stream_id      INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    kind           TEXT NOT NULL,
    schema_version INTEGER NOT NULL,            -- of the shape of data, per kind
    recorded_at    INTEGER NOT NULL,            -- microseconds UTC
    run_id         TEXT,
    scope          TEXT,
    key            TEXT,
    fence          TEXT,                        -- lease under which it was appended
    fence_token    INTEGER,
    data           TEXT NOT NULL,               -- canonical JSON
    prev_hash      TEXT NOT NULL,
    hash           TEXT NOT NULL,
    UNIQUE (stream_id, version)
) STRICT;

-- The history of each state key, and the epochs of the log (one row, or a few).
CREATE INDEX events_key ON events (scope, key, position) WHERE key IS NOT NULL;
CREATE INDEX events_epoch ON events (position) WHERE kind = 'log_epoch_started';

-- How far each stored view has been folded.
CREATE TABLE view_positions (
    name     TEXT NOT NULL,
    version  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;

-- Values that events refer to by hash.
CREATE TABLE blobs (
    hash  TEXT PRIMARY KEY,                     -- SHA-256 (hex) of nonce and body
    nonce BLOB NOT NULL,                        -- 16 random bytes if it is sensitive, else empty
    body  BLOB NOT NULL                         -- canonical JSON, UTF-8
) STRICT;

CREATE VIEW log AS
SELECT e.position, s.name AS stream, e.version, e.kind, e.schema_version,
       strftime('%Y-%m-%dT%H:%M:%S', e.recorded_at / 1000000, 'unixepoch')
           || printf('.%06dZ', e.recorded_at % 1000000) AS time,
       e.recorded_at, e.run_id, e.scope, e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e JOIN streams AS s USING (stream_id);

CREATE VIEW stream_heads AS
SELECT s.stream_id, s.name, s.lease, h.version,
       (SELECT position FROM events WHERE stream_id = s.stream_id AND version = h.version)
           AS position
FROM streams AS s
JOIN (SELECT stream_id, max(version) AS version FROM events GROUP BY stream_id) AS h
    USING (stream_id);

-- The rows of `leases` that the newest event makes.
CREATE VIEW lease_effects AS
SELECT json_extract(e.data, '$.lease') AS name,
       (SELECT json_extract(data, '$.epoch') FROM events WHERE kind = 'log_epoch_started'
        ORDER BY position DESC LIMIT 1) * 1099511627776 + e.position AS token,
       json_extract(e.data, '$.holder') AS holder,
       json_extract(e.data, '$.request_id') AS request_id,
       e.recorded_at AS granted_at,
       e.recorded_at + json_extract(e.data, '$.ttl_us') AS expires_at,
       e.position AS position
FROM events AS e
WHERE e.position = (SELECT max(position) FROM events) AND e.kind = 'lease_granted'
UNION ALL
SELECT l.name, l.token, l.holder, l.request_id, l.granted_at,
       max(l.expires_at, e.recorded_at + json_extract(e.data, '$.ttl_us')), e.position
FROM events AS e, json_each(e.data, '$.leases') AS renewed
JOIN leases AS l ON l.name = json_extract(renewed.value, '$.lease')
                AND l.token = json_extract(renewed.value, '$.token')
WHERE e.position = (SELECT max(position) FROM events) AND e.kind = 'lease_renewed'
UNION ALL
SELECT l.name, NULL, NULL, NULL, NULL, NULL, e.position
FROM events AS e
JOIN leases AS l ON l.name = json_extract(e.data, '$.lease')
                AND l.token = json_extract(e.data, '$.token')
WHERE e.position = (SELECT max(position) FROM events) AND e.kind = 'lease_released';

CREATE TRIGGER events_insert BEFORE INSERT ON events BEGIN
    SELECT CASE
        WHEN NEW.position IS NOT coalesce(newest.position, 0) + 1
            THEN RAISE(ABORT, 'carstore: position is not the next one')
        WHEN NEW.version IS NOT
                coalesce((SELECT max(version) FROM events WHERE stream_id = NEW.stream_id), 0) + 1
            THEN RAISE(ABORT, 'carstore: version is not the next one of its stream')
        WHEN s.stream_id IS NULL
            THEN RAISE(ABORT, 'carstore: there is no such stream')
        WHEN NEW.prev_hash IS NOT coalesce(newest.hash,
                '0000000000000000000000000000000000000000000000000000000000000000')
            THEN RAISE(ABORT, 'carstore: prev_hash is not the hash of the event before')
        WHEN coalesce(json_valid(NEW.data), 0) = 0
            THEN RAISE(ABORT, 'carstore: data is not JSON')
        WHEN (NEW.kind = 'state_changed') IS NOT (NEW.scope IS NOT NULL AND NEW.key IS NOT NULL)
                OR (NEW.scope IS NULL) IS NOT (NEW.key IS NULL)
            THEN RAISE(ABORT, 'carstore: state_changed names a scope and a key, others do not')
        WHEN NEW.fence IS NOT l.name OR NEW.fence_token IS NOT l.token
                OR (l.name IS NOT NULL AND l.token IS NULL)
            THEN RAISE(ABORT, 'carstore: not the current fencing token')
        WHEN NEW.kind = 'log_epoch_started' AND coalesce(
                json_type(NEW.data, '$.epoch') <> 'integer'
                OR json_extract(NEW.data, '$.epoch') >= 8388608
                OR json_extract(NEW.data, '$.epoch') <=
                    (SELECT coalesce(max(json_extract(data, '$.epoch')), -1) FROM events
                     WHERE kind = 'log_epoch_started'), 1)
            THEN RAISE(ABORT, 'carstore: an epoch is larger than the one before')
    END
    FROM (SELECT max(position) AS head FROM events)
    LEFT JOIN events AS newest ON newest.position = head
    LEFT JOIN streams AS s ON s.stream_id = NEW.stream_id
    LEFT JOIN leases AS l ON l.name = s.lease;
END;

CREATE TRIGGER events_update BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'carstore: events are never updated');
END;

CREATE TRIGGER events_delete BEFORE DELETE ON events BEGIN
    SELECT RAISE(ABORT, 'carstore: events are never deleted');
END;

-- In two steps, since a trigger's whole program is set up before its WHEN is asked; and without IN,
-- which would fill a table with the three names for each event.
CREATE TRIGGER events_leases AFTER INSERT ON events
WHEN NEW.kind = 'lease_granted' OR NEW.kind = 'lease_renewed' OR NEW.kind = 'lease_released' BEGIN
    INSERT INTO lease_effects (position) VALUES (NEW.position);
END;

CREATE TRIGGER lease_effects_insert INSTEAD OF INSERT ON lease_effects BEGIN
    UPDATE leases SET (token, holder, request_id, granted_at, expires_at, position) =
        (SELECT token, holder, request_id, granted_at, expires_at, position
         FROM lease_effects AS x WHERE x.name = leases.name)
    WHERE name IN (SELECT name FROM lease_effects);
    INSERT INTO leases (name, token, holder, request_id, granted_at, expires_at, position)
    SELECT name, token, holder, request_id, granted_at, expires_at, position
    FROM lease_effects WHERE name NOT IN (SELECT name FROM leases);
END;

CREATE TRIGGER streams_insert BEFORE INSERT ON streams
WHEN NEW.stream_id IS NOT coalesce((SELECT max(stream_id) FROM streams), 0) + 1
    OR EXISTS (SELECT 1 FROM streams WHERE name = NEW.name) BEGIN
    SELECT RAISE(ABORT, 'carstore: a stream gets the next number, once');
END;

CREATE TRIGGER streams_update BEFORE UPDATE ON streams BEGIN
    SELECT RAISE(ABORT, 'carstore: streams are never updated');
END;

CREATE TRIGGER streams_delete BEFORE DELETE ON streams BEGIN
    SELECT RAISE(ABORT, 'carstore: streams are never deleted');
END;

CREATE TRIGGER leases_insert BEFORE INSERT ON leases
WHEN EXISTS (SELECT 1 FROM leases WHERE name = NEW.name)
    OR NOT EXISTS (SELECT 1 FROM lease_effects AS x WHERE x.name IS NEW.name
        AND x.token IS NEW.token AND x.holder IS NEW.holder AND x.request_id IS NEW.request_id
        AND x.granted_at IS NEW.granted_at AND x.expires_at IS NEW.expires_at
        AND x.position IS NEW.position) BEGIN
    SELECT RAISE(ABORT, 'carstore: leases follow the events');
END;

CREATE TRIGGER leases_update BEFORE UPDATE ON leases
WHEN NEW.name IS NOT OLD.name
    OR NOT EXISTS (SELECT 1 FROM lease_effects AS x WHERE x.name IS NEW.name
        AND x.token IS NEW.token AND x.holder IS NEW.holder AND x.request_id IS NEW.request_id
        AND x.granted_at IS NEW.granted_at AND x.expires_at IS NEW.expires_at
        AND x.position IS NEW.position) BEGIN
    SELECT RAISE(ABORT, 'carstore: leases follow the events');
END;

CREATE TRIGGER leases_delete BEFORE DELETE ON leases BEGIN
    SELECT RAISE(ABORT, 'carstore: leases are never deleted');
END;

CREATE TRIGGER events_blobs AFTER INSERT ON events WHEN NEW.kind = 'blob_forgotten' BEGIN
    DELETE FROM blobs WHERE hash = json_extract(NEW.data, '$.hash');
END;

CREATE TRIGGER blobs_insert BEFORE INSERT ON blobs
WHEN EXISTS (SELECT 1 FROM blobs WHERE hash = NEW.hash) BEGIN
    SELECT RAISE(ABORT, 'carstore: a blob is written once');
END;

CREATE TRIGGER blobs_update BEFORE UPDATE ON blobs BEGIN
    SELECT RAISE(ABORT, 'carstore: blobs are never updated');
END;

CREATE TRIGGER blobs_delete BEFORE DELETE ON blobs
WHEN NOT EXISTS (SELECT 1 FROM events
    WHERE position = (SELECT max(position) FROM events) AND kind = 'blob_forgotten'
        AND json_extract(data, '$.hash') = OLD.hash) BEGIN
    SELECT RAISE(ABORT, 'carstore: a blob is deleted by the event that says so');
END;
