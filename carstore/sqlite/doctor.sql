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

-- name: quick_check
PRAGMA quick_check(10);
