-- Appending events.

CREATE FUNCTION es_append(aggregate_type text, aggregate_id text, event_type text, data jsonb DEFAULT '{}',
                          expected_version bigint DEFAULT NULL, metadata jsonb DEFAULT NULL,
                          event_id text DEFAULT NULL, occurred_at timestamptz DEFAULT NULL,
                          schema_version int DEFAULT NULL, store name DEFAULT NULL,
                          OUT version bigint, OUT global_position bigint)
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_append';
COMMENT ON FUNCTION es_append(text, text, text, jsonb, bigint, jsonb, text, timestamptz, int, name) IS
    'appends one event; expected_version: NULL any, 0 a new stream, n that version, -1 an existing stream; VE001 on conflict';

CREATE FUNCTION es_append_events(aggregate_type text, aggregate_id text, event_types text[], data jsonb[],
                                 expected_version bigint DEFAULT NULL, metadata jsonb[] DEFAULT NULL,
                                 event_ids text[] DEFAULT NULL, occurred_at timestamptz[] DEFAULT NULL,
                                 schema_versions int[] DEFAULT NULL, store name DEFAULT NULL,
                                 OUT version bigint, OUT global_position bigint)
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_append_events';
COMMENT ON FUNCTION es_append_events(text, text, text[], jsonb[], bigint, jsonb[], text[], timestamptz[], int[], name) IS
    'appends many events to one stream, all or none; returns the version and position of the last';

CREATE FUNCTION es_append_batch(batch jsonb, store name DEFAULT NULL)
    RETURNS TABLE (aggregate_type text, aggregate_id text, version bigint, global_position bigint)
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_append_batch';
COMMENT ON FUNCTION es_append_batch(jsonb, name) IS
    'appends to many streams, all or none, without deadlocks: [{"aggregate_type", "aggregate_id", "expected_version", "events": [{"event_type", "data", ...}]}]; an entry without events only checks the version';

CREATE FUNCTION es_import(query text, clamp boolean DEFAULT false, store name DEFAULT NULL,
                          OUT imported bigint, OUT skipped bigint)
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_import';
COMMENT ON FUNCTION es_import(text, boolean, name) IS
    'appends the events that a query returns, in its order and all or none, with the versions, ids and times that it gives; events that are there already are skipped; clamp: times that run backwards within a stream are moved up';

CREATE FUNCTION es_close_stream(aggregate_type text, aggregate_id text, reason text DEFAULT NULL,
                                expected_version bigint DEFAULT NULL, store name DEFAULT NULL,
                                OUT version bigint, OUT global_position bigint)
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_close_stream';
COMMENT ON FUNCTION es_close_stream(text, text, text, bigint, name) IS
    'appends an event of type StreamClosed; every later append to the stream is refused with VE015';

CREATE FUNCTION es_set_context(user_id text DEFAULT NULL, correlation_id text DEFAULT NULL,
                               causation_id text DEFAULT NULL, traceparent text DEFAULT NULL)
    RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_set_context';
COMMENT ON FUNCTION es_set_context(text, text, text, text) IS
    'sets, until the transaction ends, who appends and why; NULL leaves a setting as it is, an empty text clears it';

CREATE FUNCTION es_caused_by(event es_event) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    BEGIN ATOMIC
        SELECT es_set_context(causation_id => (event).event_id,
                              correlation_id => coalesce((event).correlation_id, (event).event_id),
                              traceparent => (event).traceparent);
    END;
COMMENT ON FUNCTION es_caused_by(es_event) IS
    'declares an event the cause of what the transaction appends: its id is the causation, its correlation is inherited';
