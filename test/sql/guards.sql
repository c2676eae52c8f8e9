-- Commands that would break a store are refused, to owners and superusers too; all others are not.
\set SHOW_CONTEXT never
CREATE ROLE regress_guards_owner;
CREATE ROLE regress_guards_other;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_guards_owner', current_database()); END $$;
SET ROLE regress_guards_owner;
SELECT es_create_store('regress_guards');
RESET ROLE;
SELECT version FROM es_append('Document', '1', 'Written', store => 'regress_guards');

-- attempt runs a statement (P stands for this month's partition) and takes it back; says what came of it
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    EXECUTE regexp_replace(statement, '\mP(?![A-Z])', 'events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'), 'g');
    RAISE EXCEPTION SQLSTATE 'RB000';
EXCEPTION
    WHEN SQLSTATE 'RB000' THEN RETURN 'done';
    WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
        RETURN concat_ws(' ', SQLSTATE, CASE WHEN SQLSTATE = 'VE016' THEN said END);
END
$$;
CREATE TABLE harm (n serial, statement text);
GRANT SELECT ON harm TO PUBLIC;
INSERT INTO harm (statement) VALUES
    ('DROP TABLE regress_guards.P'),
    ('DROP TABLE regress_guards.events'),
    ('DROP TABLE regress_guards.streams'),
    ('DROP TABLE regress_guards.snapshots'),
    ('DROP TABLE regress_guards.aggregates CASCADE'),
    ('DROP SCHEMA regress_guards CASCADE'),
    ('DO $do$ BEGIN DROP SCHEMA regress_guards CASCADE; END $do$'),
    ('ALTER TABLE regress_guards.events DETACH PARTITION regress_guards.P'),
    ('ALTER TABLE regress_guards.P SET ACCESS METHOD heap'),
    ('ALTER TABLE regress_guards.streams SET ACCESS METHOD append_only'),
    ('ALTER TABLE regress_guards.P SET UNLOGGED'),
    ('ALTER TABLE regress_guards.snapshots SET UNLOGGED'),
    ('ALTER TABLE regress_guards.events ALTER data TYPE json'),
    ('ALTER TABLE regress_guards.events ALTER data TYPE jsonb USING ''{"falsified": true}'''),
    ('ALTER TABLE regress_guards.events ALTER event_type TYPE text COLLATE "POSIX"'),
    ('ALTER TABLE regress_guards.streams ALTER closed TYPE text'),
    ('ALTER TABLE regress_guards.events DROP COLUMN user_id'),
    ('ALTER TABLE regress_guards.snapshots DROP COLUMN taken_at'),
    ('ALTER TABLE regress_guards.events RENAME data TO payload'),
    ('ALTER TABLE regress_guards.streams RENAME closed TO shut'),
    ('ALTER TABLE regress_guards.events ALTER data DROP NOT NULL'),
    ('ALTER TABLE regress_guards.streams ALTER closed DROP DEFAULT'),
    ('ALTER TABLE regress_guards.events ALTER recorded_at DROP DEFAULT'),
    ('ALTER TABLE regress_guards.events ALTER version ADD GENERATED ALWAYS AS IDENTITY'),
    ('ALTER TABLE regress_guards.events RENAME TO log'),
    ('ALTER TABLE regress_guards.streams RENAME TO brooks'),
    ('ALTER TABLE regress_guards.events SET SCHEMA regress_guards_more'),
    ('ALTER TABLE regress_guards.P SET SCHEMA regress_guards_more'),
    ('ALTER TABLE regress_guards.aggregates SET SCHEMA regress_guards_more'),
    ('ALTER TABLE regress_guards.events DISABLE TRIGGER eventsrc_append'),
    ('ALTER TABLE regress_guards.events DISABLE TRIGGER ALL'),
    ('ALTER TABLE regress_guards.events DISABLE TRIGGER USER'),
    ('ALTER TABLE regress_guards.P DISABLE TRIGGER USER'),
    ('ALTER TABLE regress_guards.events ENABLE TRIGGER USER'),
    ('ALTER TABLE regress_guards.events ENABLE REPLICA TRIGGER eventsrc_append'),
    ('DROP TRIGGER eventsrc_append ON regress_guards.events'),
    ('CREATE OR REPLACE TRIGGER eventsrc_append BEFORE INSERT ON regress_guards.events FOR EACH ROW WHEN (false) EXECUTE FUNCTION eventsrc.append_trigger()'),
    ('ALTER TABLE regress_guards.event_types DISABLE TRIGGER eventsrc_registry'),
    ('ALTER TABLE regress_guards.upcasters DISABLE TRIGGER ALL'),
    ('ALTER TABLE regress_guards.settings ENABLE REPLICA TRIGGER eventsrc_registry'),
    ('ALTER TABLE regress_guards.settings ENABLE TRIGGER eventsrc_registry'),
    ('DROP TRIGGER eventsrc_registry ON regress_guards.event_types'),
    ('CREATE OR REPLACE TRIGGER eventsrc_registry AFTER INSERT ON regress_guards.upcasters FOR EACH STATEMENT EXECUTE FUNCTION eventsrc.registry_trigger()'),
    ('DROP INDEX regress_guards.P_aggregate_type_aggregate_id_version_idx'),
    ('DROP INDEX regress_guards.P_global_position_idx'),
    ('ALTER INDEX regress_guards.P_global_position_idx RENAME TO another'),
    ('ALTER TABLE regress_guards.P ADD CONSTRAINT late UNIQUE USING INDEX P_global_position_idx DEFERRABLE'),
    ('ALTER TABLE regress_guards.streams DROP CONSTRAINT streams_pkey'),
    ('ALTER TABLE regress_guards.streams DROP CONSTRAINT streams_pkey, ADD PRIMARY KEY (aggregate_id, aggregate_type)'),
    ('ALTER TABLE regress_guards.streams RENAME CONSTRAINT streams_pkey TO another'),
    ('CREATE TABLE regress_guards.by_hand PARTITION OF regress_guards.events FOR VALUES FROM (''2001-01-01'') TO (''2001-02-01'')'),
    ('CREATE TABLE regress_guards.by_hand (LIKE regress_guards.events);
      ALTER TABLE regress_guards.events ATTACH PARTITION regress_guards.by_hand FOR VALUES FROM (''2001-01-01'') TO (''2001-02-01'')'),
    ('CREATE TABLE regress_guards.child () INHERITS (regress_guards.streams)');
SET ROLE regress_guards_owner;
CREATE SCHEMA regress_guards_more;
SET client_min_messages = error;
SELECT n, attempt(statement) FROM harm ORDER BY n;
SELECT attempt('DROP OWNED BY regress_guards_owner');
-- the superuser likewise, and others have no right to it anyway
RESET ROLE;
SELECT n, statement, attempt(statement) FROM harm WHERE attempt(statement) NOT LIKE 'VE016%';
SET ROLE regress_guards_other;
SELECT DISTINCT attempt(statement) FROM harm WHERE statement NOT LIKE 'CREATE TABLE%' ORDER BY 1;
RESET ROLE;
RESET client_min_messages;
-- outside of a function
\set VERBOSITY sqlstate
SELECT 'regress_guards.events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') AS partition \gset
SELECT :'partition' || '_global_position_idx' AS index \gset
DROP TABLE :partition;
ALTER TABLE regress_guards.events DETACH PARTITION :partition CONCURRENTLY;
SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = :'partition'::regclass;
DROP INDEX CONCURRENTLY :index;
DROP EXTENSION eventsrc;
\set VERBOSITY default
DROP TABLE regress_guards.streams;
ALTER TABLE regress_guards.aggregates DROP COLUMN reducer;
CREATE TABLE regress_guards.by_hand PARTITION OF regress_guards.events FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
ALTER TABLE regress_guards.settings ENABLE TRIGGER eventsrc_registry;

-- the deliberate way: for superusers, or whom they let
SET ROLE regress_guards_owner;
SET eventsrc.allow_unsafe_ddl = on;
RESET ROLE;
SET eventsrc.allow_unsafe_ddl = on;
SET client_min_messages = error;
SELECT n, attempt(statement) FROM harm WHERE attempt(statement) <> 'done' ORDER BY n;
RESET client_min_messages;
RESET eventsrc.allow_unsafe_ddl;
SELECT count(*) FROM es_read_all(store => 'regress_guards');
SELECT version FROM es_append('Document', '1', 'Translated', store => 'regress_guards');

-- what breaks nothing is the owner's to do
CREATE FUNCTION regress_guards_more.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
GRANT EXECUTE ON FUNCTION attempt(text) TO PUBLIC;
SET ROLE regress_guards_owner;
CREATE TABLE regress_guards.fits (LIKE regress_guards.events INCLUDING ALL) USING append_only;
CREATE UNIQUE INDEX ON regress_guards.fits (aggregate_type, aggregate_id, version);
CREATE UNIQUE INDEX ON regress_guards.fits (global_position);
SELECT statement, attempt(statement) FROM (VALUES
    ('ALTER TABLE regress_guards.events ADD COLUMN own int DEFAULT 1, ADD CONSTRAINT mine CHECK (own > 0);
      ALTER TABLE regress_guards.events ALTER own TYPE bigint;
      ALTER TABLE regress_guards.events ALTER own SET NOT NULL;
      ALTER TABLE regress_guards.events ALTER own DROP NOT NULL, ALTER own DROP DEFAULT;
      ALTER TABLE regress_guards.events RENAME own TO mine;
      ALTER TABLE regress_guards.events DROP CONSTRAINT mine, DROP COLUMN mine'),
    ('ALTER TABLE regress_guards.streams ADD COLUMN own int; ALTER TABLE regress_guards.streams DROP COLUMN own'),
    ('CREATE INDEX mine ON regress_guards.events (user_id); DROP INDEX regress_guards.mine'),
    ('CREATE UNIQUE INDEX mine ON regress_guards.P (global_position); DROP INDEX regress_guards.P_global_position_idx'),
    ('CREATE TRIGGER mine BEFORE INSERT ON regress_guards.events FOR EACH ROW EXECUTE FUNCTION regress_guards_more.mine();
      CREATE OR REPLACE TRIGGER mine BEFORE INSERT ON regress_guards.events FOR EACH ROW EXECUTE FUNCTION regress_guards_more.mine();
      ALTER TABLE regress_guards.events DISABLE TRIGGER mine; ALTER TABLE regress_guards.events ENABLE TRIGGER mine;
      DROP TRIGGER mine ON regress_guards.events'),
    ('ALTER TABLE regress_guards.events DISABLE TRIGGER eventsrc_snapshot; DROP TRIGGER eventsrc_snapshot ON regress_guards.events'),
    ('ALTER TABLE regress_guards.events ENABLE ALWAYS TRIGGER eventsrc_append'),
    ('ALTER TABLE regress_guards.settings ENABLE ALWAYS TRIGGER eventsrc_registry'),
    ('ALTER TABLE regress_guards.events ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON regress_guards.events; DROP POLICY mine ON regress_guards.events'),
    ('GRANT SELECT ON regress_guards.events TO regress_guards_other; REVOKE SELECT ON regress_guards.events FROM regress_guards_other'),
    ('ALTER TABLE regress_guards.events ALTER data SET STATISTICS 10, ALTER data SET STORAGE external, ALTER data SET COMPRESSION pglz, ALTER recorded_at SET DEFAULT now()'),
    ('ALTER TABLE regress_guards.P SET (fillfactor = 90); ALTER TABLE regress_guards.P REPLICA IDENTITY FULL'),
    ('ALTER TABLE regress_guards.P RENAME TO this_month'),
    ('REINDEX TABLE regress_guards.P'),
    ('CLUSTER regress_guards.P USING P_global_position_idx'),
    ('ALTER TABLE regress_guards.events ATTACH PARTITION regress_guards.fits FOR VALUES FROM (''2001-01-01'') TO (''2001-02-01'')'),
    ('ALTER SCHEMA regress_guards RENAME TO regress_guards_other'),
    ('CREATE VIEW regress_guards_more.seen AS SELECT * FROM regress_guards.events; DROP VIEW regress_guards_more.seen'),
    -- names alone do not make a store
    ('CREATE TABLE regress_guards_more.events (a int) PARTITION BY RANGE (a); CREATE TABLE regress_guards_more.streams (a int PRIMARY KEY);
      CREATE TABLE regress_guards_more.part PARTITION OF regress_guards_more.events FOR VALUES FROM (1) TO (2);
      ALTER TABLE regress_guards_more.events DETACH PARTITION regress_guards_more.part; ALTER TABLE regress_guards_more.streams DROP COLUMN a;
      DROP TABLE regress_guards_more.events, regress_guards_more.streams'),
    ('CREATE TABLE regress_guards_more.ledger (a int) USING append_only; ALTER TABLE regress_guards_more.ledger SET ACCESS METHOD heap; DROP TABLE regress_guards_more.ledger')
) allowed (statement);
DROP TABLE regress_guards.fits;
RESET ROLE;
SELECT attempt('ALTER TABLE regress_guards.events OWNER TO regress_guards_other; ALTER SCHEMA regress_guards OWNER TO regress_guards_other');
REINDEX TABLE CONCURRENTLY regress_guards.events;
VACUUM FULL regress_guards.events, regress_guards.streams;
SELECT version FROM es_append('Document', '1', 'Published', store => 'regress_guards');

-- a trigger that was disabled on purpose can always be enabled
SET eventsrc.allow_unsafe_ddl = on;
ALTER TABLE regress_guards.events DISABLE TRIGGER eventsrc_append;
RESET eventsrc.allow_unsafe_ddl;
ALTER TABLE regress_guards.events ENABLE TRIGGER eventsrc_append;
ALTER TABLE regress_guards.events ENABLE ALWAYS TRIGGER eventsrc_append;

-- DROP EXTENSION ... CASCADE leaves nothing of a store, and what else is in its schema
BEGIN;
CREATE TABLE regress_guards.own (a int);
SET LOCAL client_min_messages = error;
DROP EXTENSION eventsrc CASCADE;
SELECT relname FROM pg_class WHERE relnamespace = 'regress_guards'::regnamespace;
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = error;
DROP EXTENSION eventsrc CASCADE;
SELECT to_regnamespace('regress_guards');
ROLLBACK;
SELECT count(*) FROM es_read_all(store => 'regress_guards');

-- es_drop_store() is the way, for the owner too; event triggers see what it drops
CREATE TABLE dropped (name text);
CREATE FUNCTION note_drops() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.dropped SELECT object_identity FROM pg_event_trigger_dropped_objects() WHERE object_type IN ('table', 'schema');
END
$$;
CREATE EVENT TRIGGER regress_guards_drops ON sql_drop EXECUTE FUNCTION note_drops();
SET ROLE regress_guards_other;
SELECT es_drop_store('regress_guards', confirm => 'regress_guards');
SET ROLE regress_guards_owner;
SELECT es_drop_store('regress_guards', confirm => 'regress_guards');
DROP SCHEMA regress_guards_more CASCADE;
RESET ROLE;
DROP EVENT TRIGGER regress_guards_drops;
SELECT name FROM dropped WHERE name !~ '\d' ORDER BY name;
DROP TABLE harm, dropped;
DROP FUNCTION attempt(text), note_drops();
DROP OWNED BY regress_guards_owner, regress_guards_other;
DROP ROLE regress_guards_owner, regress_guards_other;
