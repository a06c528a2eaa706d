-- From schema 1 to 2: values beside the log, and epochs that grow.

-- Values that events refer to by hash.
CREATE TABLE blobs (
    hash  TEXT PRIMARY KEY,                     -- SHA-256 (hex) of nonce and body
    nonce BLOB NOT NULL,                        -- 16 random bytes if it is sensitive, else empty
    body  BLOB NOT NULL                         -- canonical JSON, UTF-8
) STRICT;

DROP TRIGGER events_insert;

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
