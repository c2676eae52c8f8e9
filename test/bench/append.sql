-- What test/bench/run.sh measures with: a store, and a bare heap table of the same columns and indexes.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
-- the snapshots that every hundredth event takes have no counterpart in a bare INSERT
ALTER TABLE es.events DISABLE TRIGGER eventsrc_snapshot;
CREATE SEQUENCE bare_position;
CREATE TABLE bare (LIKE es.events INCLUDING DEFAULTS);
ALTER TABLE bare ALTER global_position SET DEFAULT nextval('bare_position'),
    ALTER event_id SET DEFAULT gen_random_uuid(), ALTER schema_version SET DEFAULT 1,
    ALTER user_id SET DEFAULT session_user, ALTER transaction SET DEFAULT pg_current_xact_id();
CREATE UNIQUE INDEX ON bare (aggregate_type, aggregate_id, version);
CREATE UNIQUE INDEX ON bare (global_position);
-- 1,000 streams of 100 events in both, for the reads
SELECT count(*) FROM generate_series(1, 1000) s,
    es_append_events('Read', s::text, array_fill('Deposited'::text, ARRAY[100]),
                     array_fill(jsonb_build_object('amount', 10, 'note', repeat('x', 180)), ARRAY[100]));
INSERT INTO bare SELECT * FROM es.events ORDER BY global_position;
SELECT setval('bare_position', max(global_position)) FROM bare;
VACUUM ANALYZE es.events, bare;
