-- Stores: made, found, dropped; names; partitions.
\set SHOW_CONTEXT never
SELECT es_create_store('regress_store');
SELECT relname, relkind, amname
FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam
WHERE relnamespace = 'regress_store'::regnamespace AND relkind IN ('r', 'p') AND relname !~ '\d' ORDER BY 1;
-- this month and as many ahead as the setting says, all append-only
SELECT count(*) = 1 + current_setting('eventsrc.partitions_ahead')::int AS made_ahead,
       bool_and(amname = 'append_only') AS append_only,
       bool_and(relname = 'events_' || to_char(now() AT TIME ZONE 'UTC' + (n - 1) * interval '1 month', 'YYYY_MM')) AS named
FROM (SELECT c.relname, a.amname, row_number() OVER (ORDER BY c.relname) AS n
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_am a ON a.oid = c.relam
      WHERE i.inhparent = 'regress_store.events'::regclass) p;
SELECT store, events::regclass FROM eventsrc.stores WHERE store LIKE 'regress%';

-- names
SELECT es_create_store('regress_store');
SELECT es_create_store('public');
SELECT es_create_store('pg_mine');
SELECT es_create_store('eventsrc');
SELECT es_create_store(NULL);
SELECT es_create_store('');
SELECT es_create_store('regress "Größe", it''s; DROP');
SELECT version FROM es_append('T', '1', 'E', store => 'regress "Größe", it''s; DROP');
SELECT version FROM es_append_events('T', '1', '{E,F}', '{"{}","{}"}', store => 'regress "Größe", it''s; DROP');
INSERT INTO "regress ""Größe"", it's; DROP".events (aggregate_type, aggregate_id, event_type, data) VALUES ('T', '1', 'G', '{}');
SELECT version, event_type FROM es_read_stream('T', '1', store => 'regress "Größe", it''s; DROP');
SELECT repeat('s', 63) AS long \gset
SELECT es_create_store(:'long');
SELECT version FROM es_append('T', '1', 'E', store => :'long');
SELECT count(*) FROM es_read_all(store => :'long');

-- the setting names the store
SET eventsrc.store = 'regress_store';
SELECT version FROM es_append('T', '1', 'E');
SELECT count(*) FROM es_read_all();
SET eventsrc.store = 'nowhere';
SELECT version FROM es_append('T', '1', 'E');
SET eventsrc.store = '';
SELECT version FROM es_append('T', '1', 'E');
RESET eventsrc.store;
SELECT version FROM es_append('T', '1', 'E', store => 'public');

-- what follows breaks the store on purpose
SET eventsrc.allow_unsafe_ddl = on;
-- a partition that is missing is made by the append, the INSERT or the COPY that needs it
SELECT 'regress_store.events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') AS partition \gset
DROP TABLE :partition;
SELECT version FROM es_append('Again', '1', 'E', store => 'regress_store');
SELECT relname = split_part(:'partition', '.', 2) AS made FROM pg_class WHERE oid = :'partition'::regclass;
DROP TABLE :partition;
INSERT INTO regress_store.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Again', '2', 'E', '{}');
DROP TABLE :partition;
COPY regress_store.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Again	3	E	{}
\.
SELECT aggregate_id, version FROM es_read_all(store => 'regress_store');
-- what stands in its place is not touched
ALTER TABLE regress_store.events DETACH PARTITION :partition;
-- (the message names the month)
\set VERBOSITY sqlstate
SELECT version FROM es_append('Again', '1', 'E', store => 'regress_store');
\set VERBOSITY default
SELECT split_part(:'partition', '.', 2) AS name \gset
ALTER TABLE :partition RENAME TO kept;
SELECT version FROM es_append('Again', '4', 'E', store => 'regress_store');
ALTER TABLE regress_store.kept SET SCHEMA public;
DROP TABLE public.kept;

-- a store with changed tables
ALTER TABLE regress_store.streams RENAME TO brooks;
SELECT version FROM es_append('T', '9', 'E', store => 'regress_store');
ALTER TABLE regress_store.brooks RENAME TO streams;
SELECT version FROM es_append('T', '9', 'E', store => 'regress_store');

ALTER TABLE regress_store.streams ALTER first_partition TYPE text;
SELECT version FROM es_append('T', '9', 'E', store => 'regress_store');
ALTER TABLE regress_store.streams ALTER first_partition TYPE timestamptz USING first_partition::timestamptz;
ALTER TABLE regress_store.snapshots DROP CONSTRAINT snapshots_pkey;
SELECT count(*) > 0 AS read FROM es_read_all(store => 'regress_store');
ALTER TABLE regress_store.snapshots ADD PRIMARY KEY (aggregate_type, aggregate_id, version);
SELECT version FROM es_append('T', '9', 'E', store => 'regress_store');
RESET eventsrc.allow_unsafe_ddl;

-- renamed
ALTER SCHEMA regress_store RENAME TO regress_renamed;
SELECT version FROM es_append('T', '9', 'E', store => 'regress_store');
SELECT version FROM es_append('T', '9', 'E', store => 'regress_renamed');

-- dropped only when said twice, and only if nothing else is in it
SELECT es_drop_store('regress_renamed', NULL);
SELECT es_drop_store('regress_renamed', 'regress_store');
SELECT es_drop_store('nowhere', 'nowhere');
SELECT es_drop_store('public', 'public');
CREATE TABLE regress_renamed.mine ();
CREATE VIEW regress_renamed.a_view AS SELECT 1;
SELECT es_drop_store('regress_renamed', 'regress_renamed');
SELECT count(*) FROM es_read_all(store => 'regress_renamed');
DROP TABLE regress_renamed.mine;
DROP VIEW regress_renamed.a_view;
SELECT es_drop_store('regress_renamed', confirm => 'regress_renamed');
SELECT es_drop_store(:'long', :'long');
SELECT es_drop_store('regress "Größe", it''s; DROP', 'regress "Größe", it''s; DROP');
SELECT store FROM eventsrc.stores WHERE store LIKE 'regress%';
SELECT version FROM es_append('T', '9', 'E', store => 'regress_renamed');

-- in one transaction, and rolled back
BEGIN;
SELECT es_create_store('regress_store');
SELECT version FROM es_append('T', '1', 'E', store => 'regress_store');
SELECT es_drop_store('regress_store', 'regress_store');
SELECT es_create_store('regress_store');
SELECT version FROM es_append('T', '1', 'E', store => 'regress_store');
ROLLBACK;
SELECT version FROM es_append('T', '1', 'E', store => 'regress_store');
