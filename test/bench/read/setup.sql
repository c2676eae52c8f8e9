-- Streams of 100 events, ten written at a time, in a store and in the same order in a bare table.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_aggregate('Account', snapshot_every => 0);
\ir ../reference/bare.sql
-- in the select list: in FROM, a call whose arguments name only s would be computed once for each s
SELECT count(es_append_events('Account', s::text, array_fill('Deposited'::text, '{10}'), array_fill(:'payload'::jsonb, '{10}')))
FROM (SELECT s FROM generate_series(1, 10) ten, generate_series(0, :events / 100 - 1) s ORDER BY ten, s) streams;
SELECT 1 / (count(*) = :events)::int AS there_are_so_many FROM es.events;
INSERT INTO bare SELECT * FROM es.events ORDER BY global_position;
VACUUM (ANALYZE) es.events, es.streams, bare;
