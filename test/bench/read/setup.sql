-- Streams of 100 events, ten written at a time, in a store and in the same order in a bare table.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_aggregate('Account', snapshot_every => 0);
\ir ../reference/bare.sql
SELECT count(*) FROM generate_series(1, 10), generate_series(0, :events / 100 - 1) s,
    es_append_events('Account', s::text, array_fill('Deposited'::text, '{10}'), array_fill(:'payload'::jsonb, '{10}'));
INSERT INTO bare SELECT * FROM es.events ORDER BY global_position;
VACUUM (ANALYZE) es.events, es.streams, bare;
