-- Named statements of the views. `-- name:` begins one. Braces stand for identifiers, which `View`
-- has checked; values are always parameters.

-- The events that matter to a view: all but the known kinds in the JSON list :others.
-- name: events
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM events AS e CROSS JOIN streams AS s ON s.stream_id = e.stream_id
WHERE e.position > :after AND e.position <= :until
  AND e.kind NOT IN (SELECT value FROM json_each(:others))
ORDER BY e.position LIMIT :limit;

-- How far a view has come, whether its table and the one it is built in are there, and the head.
-- name: place
SELECT (SELECT position FROM view_positions WHERE name = :name AND version = :version),
       EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :table),
       EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :building),
       (SELECT coalesce(max(position), 0) FROM events);

-- name: head
SELECT coalesce(max(position), 0) FROM events;

-- name: set_position
INSERT INTO view_positions (name, version, position) VALUES (:name, :version, :position)
ON CONFLICT (name, version) DO UPDATE SET position = excluded.position;

-- A column that is missing would be taken for a text in quotes, were it not for the `r.`.
-- name: select_rows
SELECT {columns} FROM {source} AS r WHERE {where};

-- name: delete_row
DELETE FROM "{table}" AS r WHERE {where};

-- name: pointer
SELECT {columns} FROM {source} AS r

-- name: object
SELECT type, sql FROM sqlite_master WHERE name = :name COLLATE NOCASE;

-- name: table_names
SELECT name FROM sqlite_master WHERE type = 'table';

-- name: rename
ALTER TABLE "{table}" RENAME TO "{other}";

-- name: view_positions
SELECT name, version, position FROM view_positions ORDER BY name, version;

-- name: count_rows
SELECT count(*) FROM {source} AS r;

-- The first event of each kind and schema version that is not among the pairs of the JSON list
-- :known. It has to look at every event.
-- name: unknown_events
SELECT kind, schema_version, min(position) AS first FROM events
WHERE (kind, schema_version) NOT IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:known))
GROUP BY kind, schema_version ORDER BY first;

-- The first event of a kind that is not in the JSON list :kinds.
-- name: unknown_kind
SELECT kind, schema_version, position FROM events
WHERE position <= :until AND kind NOT IN (SELECT value FROM json_each(:kinds))
ORDER BY position LIMIT 1;

-- The newest change of each key of the state as of a position, deletions included.
-- name: newest_state
SELECT e.position, s.name, e.version, e.kind, e.schema_version, e.recorded_at, e.run_id, e.scope,
       e.key, e.fence, e.fence_token, e.data, e.prev_hash, e.hash
FROM (SELECT max(position) AS newest FROM events
      WHERE key IS NOT NULL AND position <= :until GROUP BY scope, key) AS n
CROSS JOIN events AS e ON e.position = n.newest
CROSS JOIN streams AS s ON s.stream_id = e.stream_id
ORDER BY e.position;

-- name: stream_heads
SELECT name, lease, version, position FROM stream_heads;

-- The token as the position of its grant. One of another epoch than the grant's stays whole.
-- name: lease_rows
SELECT l.name, l.holder, l.request_id,
       CASE WHEN l.token / 1099511627776 IS
                (SELECT json_extract(e.data, '$.epoch') FROM events AS e
                 WHERE e.kind = 'log_epoch_started' AND e.position <= l.token % 1099511627776
                 ORDER BY e.position DESC LIMIT 1)
            THEN l.token % 1099511627776 ELSE l.token END AS granted_position,
       l.granted_at, l.expires_at, l.position
FROM leases AS l;

-- A change was made by the action of the nearest success before it in its stream, or by no action if
-- a rollback, which names none, is nearer. Its agent is whoever proposed the run.
-- name: changes_of_key
SELECT e.scope, e.key, e.position, e.data, e.run_id,
       CASE WHEN e.run_id IS NOT NULL THEN
           (SELECT json_extract(a.data, '$.action_id') FROM events AS a
            WHERE a.stream_id = e.stream_id AND a.version < e.version
              AND a.kind IN ('action_succeeded', 'state_rollback')
            ORDER BY a.version DESC LIMIT 1)
       END AS action_id,
       (SELECT json_extract(p.data, '$.source')
        FROM streams AS s JOIN events AS p ON p.stream_id = s.stream_id
        WHERE s.name = 'run/' || e.run_id AND p.kind = 'proposal_received'
        ORDER BY p.version LIMIT 1) AS agent,
       e.recorded_at
FROM events AS e
WHERE e.scope = :scope AND e.key = :key AND e.position <= :until
ORDER BY e.position DESC LIMIT :limit;

-- The plus keeps SQLite from searching the whole history of the scope for a few positions.
-- name: changes_between
SELECT e.scope, e.key, e.position, e.data, e.run_id,
       CASE WHEN e.run_id IS NOT NULL THEN
           (SELECT json_extract(a.data, '$.action_id') FROM events AS a
            WHERE a.stream_id = e.stream_id AND a.version < e.version
              AND a.kind IN ('action_succeeded', 'state_rollback')
            ORDER BY a.version DESC LIMIT 1)
       END AS action_id,
       (SELECT json_extract(p.data, '$.source')
        FROM streams AS s JOIN events AS p ON p.stream_id = s.stream_id
        WHERE s.name = 'run/' || e.run_id AND p.kind = 'proposal_received'
        ORDER BY p.version LIMIT 1) AS agent,
       e.recorded_at
FROM events AS e
WHERE +e.scope = :scope AND e.position > :after AND e.position <= :until
ORDER BY e.position;
