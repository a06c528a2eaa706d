-- Statements of `doctor`, which reads files of any kind and condition.

-- name: tables
SELECT count(*) FROM sqlite_master;

-- name: user_version
PRAGMA user_version;

-- name: application_id
PRAGMA application_id;

-- name: compile_options
PRAGMA compile_options;

-- name: json
SELECT json_valid('[]');

-- name: newest
SELECT max(position) FROM events;

-- name: held_leases
SELECT name, holder, expires_at FROM leases WHERE token IS NOT NULL ORDER BY name;

-- Values that were forgotten: each has a stream of its own.
-- name: forgotten
SELECT count(*) FROM streams WHERE name >= 'blob/' AND name < 'blob0';

-- name: quick_check
PRAGMA quick_check(10);
