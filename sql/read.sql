-- Reading events: one stream, or all in global order.

CREATE FUNCTION es_read_stream(aggregate_type text, aggregate_id text, from_version bigint DEFAULT NULL,
                               max_count bigint DEFAULT NULL, backward boolean DEFAULT false,
                               store name DEFAULT NULL)
    RETURNS SETOF es_event
    LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'es_read_stream';
COMMENT ON FUNCTION es_read_stream(text, text, bigint, bigint, boolean, name) IS
    'one stream''s events by version, from from_version on (backward: from there down), at most max_count';

-- VOLATILE: it reads with a snapshot of its own, taken after the safe position (DESIGN: never skips).
CREATE FUNCTION es_read_all(after_position bigint DEFAULT 0, max_count bigint DEFAULT 1000,
                            aggregate_types text[] DEFAULT NULL, event_types text[] DEFAULT NULL,
                            store name DEFAULT NULL)
    RETURNS SETOF es_event
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'es_read_all';
COMMENT ON FUNCTION es_read_all(bigint, bigint, text[], text[], name) IS
    'a store''s events in global order, after a position and never past the safe position; each committed event exactly once for who goes on from the last position';

CREATE FUNCTION es_safe_position() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_safe_position';
COMMENT ON FUNCTION es_safe_position() IS
    'the global position up to which every event is committed and visible, or will never exist';

-- VOLATILE: what it returns moves while it runs.
CREATE FUNCTION es_wait(after_position bigint, timeout interval DEFAULT '30s', store name DEFAULT NULL)
    RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_wait';
COMMENT ON FUNCTION es_wait(bigint, interval, name) IS
    'sleeps until the safe position exceeds after_position or the timeout is over, and returns the safe position; more than after_position means that there may be more to read';

CREATE FUNCTION es_stream_version(aggregate_type text, aggregate_id text, store name DEFAULT NULL)
    RETURNS bigint
    LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'es_stream_version';
COMMENT ON FUNCTION es_stream_version(text, text, name) IS
    'a stream''s last version; NULL if it has no events';
