-- Statements of `verify`, which reads rows as they stand: also such as should not be there.

-- name: last_position
SELECT max(position) FROM events;

-- name: rows_after
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash, s.lease
FROM events AS e LEFT JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position > ? ORDER BY e.position LIMIT ?;

-- name: row_at
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash, s.lease
FROM events AS e LEFT JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position = ?;

-- name: streams
SELECT stream_id, name, lease FROM streams ORDER BY stream_id;

-- name: leases
SELECT name, token, holder, request_id, granted_at, expires_at, position FROM leases ORDER BY name;

-- name: stored_blobs
SELECT hash FROM blobs ORDER BY hash;

-- name: blob
SELECT hash, nonce, body FROM blobs WHERE hash = ?;

-- name: blobs_after
SELECT hash, nonce, body FROM blobs WHERE hash > ? ORDER BY hash;

-- name: application_id
PRAGMA application_id;

-- name: schema_number
PRAGMA user_version;

-- name: objects
SELECT type, name, tbl_name, sql FROM sqlite_master
WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY type, name;

-- name: integrity
PRAGMA integrity_check(100);
