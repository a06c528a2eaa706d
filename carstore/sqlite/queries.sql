-- Named statements of the SQLite backend. `-- name:` begins one; the loader hands out the rest.

-- name: head
SELECT position, hash FROM events ORDER BY position DESC LIMIT 1;

-- name: schema
PRAGMA user_version;

-- Changes whenever another connection has written.
-- name: data_version
PRAGMA data_version;

-- What the appends of a batch depend on; names in a JSON list.
-- name: stream_heads
SELECT s.name, s.stream_id,
       coalesce((SELECT max(version) FROM events WHERE stream_id = s.stream_id), 0), s.lease
FROM streams AS s WHERE s.name IN (SELECT value FROM json_each(?));

-- name: lease_heads
SELECT name, token, expires_at FROM leases WHERE name IN (SELECT value FROM json_each(?));

-- The newest change of state keys, deletions included; [scope, key] in a JSON list.
-- name: key_heads
SELECT k.scope, k.key, (SELECT max(position) FROM events WHERE scope = k.scope AND key = k.key)
FROM (SELECT json_extract(value, '$[0]') AS scope, json_extract(value, '$[1]') AS key
      FROM json_each(?)) AS k;

-- name: next_stream_id
SELECT coalesce(max(stream_id), 0) + 1 FROM streams;

-- name: lease_row
SELECT name, token, holder, request_id, granted_at, expires_at, position FROM leases WHERE name = ?;

-- name: lease_rows
SELECT name, token, holder, request_id, granted_at, expires_at, position FROM leases
WHERE token IS NOT NULL ORDER BY name;

-- name: epoch
SELECT json_extract(data, '$.epoch'), json_extract(data, '$.log_id') FROM events
WHERE kind = 'log_epoch_started' ORDER BY position DESC LIMIT 1;

-- name: insert_stream
INSERT INTO streams (stream_id, name, lease) VALUES (?, ?, ?);

-- name: insert_event
INSERT INTO events (position, stream_id, version, kind, schema_version, recorded_at, run_id, scope,
                    key, fence, fence_token, data, prev_hash, hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- A value that is there already is kept as it is: it has the same hash.
-- name: insert_blob
INSERT INTO blobs (hash, nonce, body)
SELECT hash, nonce, body FROM (SELECT ? AS hash, ? AS nonce, ? AS body)
WHERE hash NOT IN (SELECT hash FROM blobs);

-- Those of the hashes in a JSON list that are there, or were until they were forgotten.
-- name: known_blobs
SELECT k.value FROM json_each(?) AS k
WHERE EXISTS (SELECT 1 FROM blobs WHERE hash = k.value)
   OR EXISTS (SELECT 1 FROM streams WHERE name = 'blob/' || k.value);

-- Those of the hashes in a JSON list that are of sensitive values.
-- name: hidden_blobs
SELECT hash FROM blobs WHERE hash IN (SELECT value FROM json_each(?)) AND length(nonce) > 0;

-- name: blobs
SELECT hash, body FROM blobs WHERE hash IN (SELECT value FROM json_each(?));

-- Those of the hashes in a JSON list that are there.
-- name: present_blobs
SELECT hash FROM blobs WHERE hash IN (SELECT value FROM json_each(?));

-- name: blob_infos
SELECT hash, length(body), length(nonce) > 0 FROM blobs ORDER BY length(body) DESC, hash;

-- name: has_blobs
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'blobs';

-- The names that are sensitive, as far as the file says so, oldest first.
-- name: redaction_names
SELECT n.value
FROM streams AS s CROSS JOIN events AS e ON e.stream_id = s.stream_id
CROSS JOIN json_each(e.data, '$.names') AS n
WHERE s.name = 'redaction' AND e.kind = 'redaction_declared' AND n.type = 'text'
ORDER BY e.version, n.key;

-- Reading, a page at a time: positions after :after, at most :until, kinds in the JSON list :kinds
-- (null: all).
-- name: page_all
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position > :after AND e.position <= :until
ORDER BY e.position LIMIT :limit;

-- name: page_kinds
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position > :after AND e.position <= :until
  AND e.kind IN (SELECT value FROM json_each(:kinds))
ORDER BY e.position LIMIT :limit;

-- :streams is a JSON list of names. Each is read by its own index range, then merged.
-- name: page_streams
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM streams AS s CROSS JOIN events AS e ON e.stream_id = s.stream_id
WHERE s.name IN (SELECT value FROM json_each(:streams))
  AND e.position > :after AND e.position <= :until
  AND (:kinds IS NULL OR e.kind IN (SELECT value FROM json_each(:kinds)))
ORDER BY e.position LIMIT :limit;

-- The same in a range of few events: all of them are looked at.
-- name: page_streams_near
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position > :after AND e.position <= :until
  AND s.name IN (SELECT value FROM json_each(:streams))
  AND (:kinds IS NULL OR e.kind IN (SELECT value FROM json_each(:kinds)))
ORDER BY e.position LIMIT :limit;

-- One stream, by its own order.
-- name: page_stream
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM streams AS s CROSS JOIN events AS e ON e.stream_id = s.stream_id
WHERE s.name = :stream AND e.version > :version
  AND e.position > :after AND e.position <= :until
  AND (:kinds IS NULL OR e.kind IN (SELECT value FROM json_each(:kinds)))
ORDER BY e.version LIMIT :limit;

-- name: page_state
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.scope = :scope AND e.key = :key AND e.position > :after AND e.position <= :until
  AND (:kinds IS NULL OR e.kind IN (SELECT value FROM json_each(:kinds)))
ORDER BY e.position LIMIT :limit;

-- The newest change, at or before :until, of each key of the JSON list :keys in a scope.
-- name: state_of_keys
SELECT k.value, e.position, e.run_id, e.data
FROM json_each(:keys) AS k CROSS JOIN events AS e
  ON e.position = (SELECT max(position) FROM events
                   WHERE scope = :scope AND key = k.value AND position <= :until);

-- The whole state of a scope at a position: the newest change of each key, deletions left out.
-- name: state_at
SELECT e.key, e.position, e.run_id, e.data
FROM (SELECT max(position) AS newest FROM events
      WHERE scope = :scope AND key IS NOT NULL AND position <= :until GROUP BY key) AS n
CROSS JOIN events AS e ON e.position = n.newest
WHERE json_extract(e.data, '$.deleted') IS NULL
ORDER BY e.key;

-- Of each key of the JSON list :keys: the newest change, the run's newest, the newest of others.
-- name: trails
SELECT k.value, part.name, e.position, e.run_id, e.data
FROM json_each(:keys) AS k
CROSS JOIN (SELECT 'newest' AS name UNION ALL SELECT 'ours' UNION ALL SELECT 'base') AS part
CROSS JOIN events AS e
  ON e.position = CASE part.name
    WHEN 'newest' THEN (SELECT max(position) FROM events WHERE scope = :scope AND key = k.value)
    WHEN 'ours' THEN (SELECT position FROM events
                      WHERE scope = :scope AND key = k.value AND run_id = :run_id
                      ORDER BY position DESC LIMIT 1)
    ELSE (SELECT position FROM events
          WHERE scope = :scope AND key = k.value AND run_id IS NOT :run_id
          ORDER BY position DESC LIMIT 1)
  END;

-- What this file's schema is made of, for comparison with schema.sql.
-- name: schema_objects
SELECT type, name, sql FROM sqlite_master
WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY type, name;

-- The place of a consumer, in the database of its rows.
-- name: has_cursors
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'carstore_cursors';

-- name: create_cursors
CREATE TABLE IF NOT EXISTS carstore_cursors (
    consumer TEXT PRIMARY KEY,
    log_id   TEXT NOT NULL,
    position INTEGER NOT NULL,
    hash     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- name: cursor
SELECT log_id, position, hash FROM carstore_cursors WHERE consumer = ?;

-- name: move_cursor
INSERT INTO carstore_cursors (consumer, log_id, position, hash) VALUES (?, ?, ?, ?)
ON CONFLICT (consumer) DO UPDATE
SET log_id = excluded.log_id, position = excluded.position, hash = excluded.hash;
