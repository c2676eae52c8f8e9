-- Private objects live in the schema eventsrc; everything public is es_* in the extension's schema.
CREATE SCHEMA eventsrc;
GRANT USAGE ON SCHEMA eventsrc TO PUBLIC;
COMMENT ON SCHEMA eventsrc IS 'private objects of the extension eventsrc';

-- What an event is; also the row type of every store's events table.
CREATE TYPE es_event AS (
    global_position bigint,
    aggregate_type  text,
    aggregate_id    text,
    version         bigint,
    event_id        text,
    event_type      text,
    schema_version  int,
    data            jsonb,
    metadata        jsonb,
    user_id         text,
    correlation_id  text,
    causation_id    text,
    traceparent     text,
    recorded_at     timestamptz,
    occurred_at     timestamptz,
    transaction     xid8
);
COMMENT ON TYPE es_event IS 'an event as the es_* functions return it: the columns of a store''s events table';

-- Where global positions come from; one for all stores of the database.
CREATE SEQUENCE eventsrc.position;
COMMENT ON SEQUENCE eventsrc.position IS 'global positions reserved by the backends; read es_safe_position() instead';
SELECT pg_extension_config_dump('eventsrc.position', '');

-- The safe position as the primary's worker last published it, for standbys.
CREATE TABLE eventsrc.published_position (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position      bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO eventsrc.published_position (position) VALUES (0);
COMMENT ON TABLE eventsrc.published_position IS 'the safe position, published by the database''s worker; standbys read up to it';
