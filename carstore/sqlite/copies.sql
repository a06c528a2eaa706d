-- Statements of backup, restore, fork, export and import.

-- Runs whose newest event, in their own stream, is not the one that ends a run.
-- name: runs_without_end
SELECT r.run_id FROM (
    SELECT min(stream_id) AS first,
           substr(name, 5, length(name) - CASE WHEN name GLOB '*/inbox' THEN 10 ELSE 4 END)
               AS run_id
    FROM streams WHERE name GLOB 'run/?*' GROUP BY 2) AS r
WHERE instr(r.run_id, '/') = 0 AND r.run_id <> '' AND NOT EXISTS (
    SELECT 1 FROM streams AS s JOIN events AS e ON e.stream_id = s.stream_id
        AND e.version = (SELECT max(version) FROM events WHERE stream_id = s.stream_id)
    WHERE s.name = 'run/' || r.run_id AND e.kind = 'proposal_completed')
ORDER BY r.first;

-- All events of the streams in a JSON list.
-- name: history
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM streams AS s CROSS JOIN events AS e ON e.stream_id = s.stream_id
WHERE s.name IN (SELECT value FROM json_each(?))
ORDER BY e.position;

-- Events that may refer to values beside the log.
-- name: data_with_blobs
SELECT data FROM events WHERE position <= ? AND instr(data, '"$blob":"') > 0;

-- Values of a JSON list that may refer to others.
-- name: bodies_with_blobs
SELECT CAST(body AS TEXT) FROM blobs
WHERE hash IN (SELECT value FROM json_each(?)) AND instr(CAST(body AS TEXT), '"$blob":"') > 0;

-- name: origin_bodies_with_blobs
SELECT CAST(body AS TEXT) FROM origin.blobs
WHERE hash IN (SELECT value FROM json_each(?)) AND instr(CAST(body AS TEXT), '"$blob":"') > 0;

-- The event at a position of the file that is copied from.
-- name: origin_head
SELECT position, hash FROM origin.events WHERE position = ?;

-- name: origin_last
SELECT max(position) FROM origin.events;

-- Streams are numbered in order of their first event, so those of a prefix have the first numbers.
-- name: fork_streams
INSERT INTO streams (stream_id, name, lease)
SELECT stream_id, name, lease FROM origin.streams
WHERE stream_id <= (SELECT max(stream_id) FROM origin.events WHERE position <= ?)
ORDER BY stream_id;

-- name: fork_events
INSERT INTO events (position, stream_id, version, kind, schema_version, recorded_at, run_id, scope,
                    key, fence, fence_token, data, prev_hash, hash)
SELECT position, stream_id, version, kind, schema_version, recorded_at, run_id, scope,
       key, fence, fence_token, data, prev_hash, hash
FROM origin.events WHERE position > ? AND position <= ? ORDER BY position;

-- name: origin_has_blobs
SELECT 1 FROM origin.sqlite_master WHERE type = 'table' AND name = 'blobs';

-- name: fork_blobs
INSERT INTO blobs (hash, nonce, body)
SELECT hash, nonce, body FROM origin.blobs WHERE hash IN (SELECT value FROM json_each(?));

-- name: hash_at
SELECT hash FROM events WHERE position = ?;

-- The epoch that a position belongs to.
-- name: epoch_at
SELECT json_extract(data, '$.epoch'), json_extract(data, '$.log_id') FROM events
WHERE kind = 'log_epoch_started' AND position <= ? ORDER BY position DESC LIMIT 1;

-- name: blobs_of
SELECT hash, nonce, body FROM blobs WHERE hash IN (SELECT value FROM json_each(?)) ORDER BY hash;

-- name: last_position
SELECT max(position) FROM events;

-- name: stream_id
SELECT stream_id FROM streams WHERE name = ?;

-- name: kind_at
SELECT kind, schema_version FROM events WHERE position = ?;
