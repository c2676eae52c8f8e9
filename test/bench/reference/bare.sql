-- The bare table: a heap of the same columns and indexes as a store's events, filled by defaults.
CREATE SEQUENCE bare_position;
CREATE TABLE bare (LIKE es.events INCLUDING DEFAULTS);
ALTER TABLE bare ALTER global_position SET DEFAULT nextval('bare_position'),
    ALTER event_id SET DEFAULT gen_random_uuid(), ALTER schema_version SET DEFAULT 1,
    ALTER user_id SET DEFAULT session_user, ALTER transaction SET DEFAULT pg_current_xact_id();
CREATE UNIQUE INDEX ON bare (aggregate_type, aggregate_id, version);
CREATE UNIQUE INDEX ON bare (global_position);
