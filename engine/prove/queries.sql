-- What the proofs ask of a file, over connections that know nothing of this project.

-- name: is_made
SELECT 1 FROM sqlite_master WHERE name = 'events'

-- name: extent
SELECT count(*), coalesce(max(position), 0) FROM events

-- name: hash_at
SELECT hash FROM events WHERE position = ?

-- name: links_from
SELECT position, prev_hash, hash FROM events WHERE position >= ? ORDER BY position

-- name: kinds_after
SELECT position, run_id, kind FROM events WHERE position > ? ORDER BY position

-- name: newest
SELECT position, hash FROM events ORDER BY position DESC LIMIT 1

-- name: runs_of_kind
SELECT run_id FROM events WHERE kind = ?

-- name: first_data
SELECT data FROM events WHERE position = 1

-- What the log says of an action of a run: which attempt was meant, begun, ended.
-- name: action_history
SELECT kind, json_extract(data, '$.attempt') FROM events
WHERE stream_id = (SELECT stream_id FROM streams WHERE name = ?)
  AND json_extract(data, '$.action_id') = ?

-- name: count_successes
SELECT count(*) FROM events
WHERE kind = 'action_succeeded' AND run_id = ? AND json_extract(data, '$.action_id') = ?

-- Which process was granted a lease last.
-- name: owner
SELECT json_extract(data, '$.holder.pid') FROM events
WHERE kind = 'lease_granted' AND json_extract(data, '$.lease') = ?
ORDER BY position DESC LIMIT 1

-- name: changes
SELECT position, data FROM events WHERE kind = 'state_changed'

-- name: fenced
SELECT position, kind, recorded_at, fence, fence_token, data FROM events ORDER BY position

-- name: everything
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
    e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e LEFT JOIN streams AS s ON s.stream_id = e.stream_id
ORDER BY e.position

-- All that is told, in order.
-- name: story
SELECT e.position, s.name, e.version, e.kind, e.recorded_at, e.run_id, e.data
FROM events AS e JOIN streams AS s ON s.stream_id = e.stream_id
ORDER BY e.position

-- name: count_ended
SELECT count(*) FROM events WHERE kind = 'proposal_completed'

-- How many signals were sent to each run.
-- name: signals_sent
SELECT run_id, count(*) FROM events WHERE kind = 'signal_sent' GROUP BY run_id
