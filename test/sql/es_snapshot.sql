-- snapshots on demand, how many are kept, what invalidates them, and the trial of those that there are
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
SELECT es_create_store('regress_kept');
SET eventsrc.store = 'regress_kept';

-- on demand: of one, of all; nothing is taken twice
SELECT count(es_append('Order', id::text, 'Placed', jsonb_build_object('v', v))) FROM generate_series(1, 5) id, generate_series(1, 3) v;
SELECT count(es_append('Payment', '1', 'Paid', '{"paid": true}'));
SELECT es_snapshot('Order', '2'), es_snapshot('Order', '2');
SELECT es_snapshot('Order'), es_snapshot('Order');
SELECT es_snapshot('Nothing'), es_snapshot('Order', 'nobody');
SELECT aggregate_type, aggregate_id, version, state FROM regress_kept.snapshots ORDER BY 1, 2;
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Order', '4');
SELECT version FROM es_append('Order', '4', 'Placed', '{"v": 4}');
SELECT es_snapshot('Order'), array_agg(version) FROM regress_kept.snapshots WHERE aggregate_id = '4';
SELECT array_agg(version ORDER BY version) FROM regress_kept.snapshots WHERE aggregate_id = '4';
SELECT es_snapshot(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT es_snapshot('Order', '');
\echo :LAST_ERROR_SQLSTATE

-- the last ones are kept, by the trigger and on demand
SELECT es_create_aggregate('Stock', snapshot_every => 2, keep_snapshots => 3);
SELECT count(es_append('Stock', 'a', 'Counted', jsonb_build_object('n', i))) FROM generate_series(1, 21) i;
SELECT array_agg(version ORDER BY version) FROM regress_kept.snapshots WHERE aggregate_type = 'Stock';
SELECT es_snapshot('Stock', 'a');
SELECT array_agg(version ORDER BY version) FROM regress_kept.snapshots WHERE aggregate_type = 'Stock';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(es_append('Stock', 'a', 'Counted', jsonb_build_object('n', i))) FROM generate_series(22, 27) i;
COMMIT;
SELECT array_agg(version ORDER BY version) FROM regress_kept.snapshots WHERE aggregate_type = 'Stock';
SELECT es_create_aggregate('Stock', snapshot_every => 2, keep_snapshots => NULL);
SELECT count(es_append('Stock', 'a', 'Counted', jsonb_build_object('n', i))) FROM generate_series(28, 33) i;
SELECT array_agg(version ORDER BY version) FROM regress_kept.snapshots WHERE aggregate_type = 'Stock';
SELECT es_state('Stock', 'a', 7), snapshot_version FROM es_explain_state('Stock', 'a', 25);
SELECT es_create_aggregate('Stock', keep_snapshots => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT aggregate_type, snapshot_every, keep_snapshots FROM regress_kept.aggregates ORDER BY 1;
-- \d shows when they are taken
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'regress_kept.events'::regclass AND tgname LIKE 'eventsrc_snapshot%' ORDER BY tgname;

-- what a reducer calls counts as part of it
CREATE FUNCTION kept_inner(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 2 $$;
CREATE FUNCTION "Kept Outer"(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.kept_inner (n); END $$;
CREATE FUNCTION kept_text(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_build_object('n', public."Kept Outer"((event.data ->> 'n')::int));
END $$;
CREATE FUNCTION kept_standard(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN jsonb_build_object('n', public."Kept Outer"((event.data ->> 'n')::int));
SELECT es_create_aggregate('Text', 'kept_text(jsonb,es_event)'), es_create_aggregate('Standard', 'kept_standard(jsonb,es_event)');
SELECT count(es_append(t, '1', 'Counted', '{"n": 10}')) FROM unnest('{Text,Standard}'::text[]) t;
SELECT es_snapshot('Text'), es_snapshot('Standard');
SELECT t, snapshot_version, state FROM unnest('{Text,Standard}'::text[]) t, es_explain_state(t, '1');
CREATE OR REPLACE FUNCTION kept_inner(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 3 $$;
SELECT t, snapshot_version, state FROM unnest('{Text,Standard}'::text[]) t, es_explain_state(t, '1');
-- one that shadows it counts too, one of another name does not
SELECT es_snapshot('Text'), es_snapshot('Standard');
CREATE FUNCTION kept_other() RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
CREATE FUNCTION pg_temp.kept_inner(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 3 $$;
SELECT t, snapshot_version, state FROM unnest('{Text,Standard}'::text[]) t, es_explain_state(t, '1');
CREATE FUNCTION kept_inner(n numeric) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
SELECT t, snapshot_version, state FROM unnest('{Text,Standard}'::text[]) t, es_explain_state(t, '1');
-- the columns of composite types, nested ones too
CREATE TYPE kept_part AS (a int);
CREATE TYPE kept_state AS (n int, part kept_part);
CREATE FUNCTION kept_typed(state kept_state, event es_event) RETURNS kept_state LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    state.n := (event.data ->> 'n')::int;
    RETURN state;
END $$;
SELECT es_create_aggregate('Typed', 'kept_typed(kept_state,es_event)');
SELECT count(es_append('Typed', '1', 'Counted', '{"n": 10}'));
SELECT es_snapshot('Typed');
SELECT snapshot_version, state FROM es_explain_state('Typed', '1');
ALTER TYPE kept_part ADD ATTRIBUTE b text;
SELECT snapshot_version, state FROM es_explain_state('Typed', '1');
SELECT es_snapshot('Typed');
ALTER TYPE kept_state DROP ATTRIBUTE part;
SELECT snapshot_version, state FROM es_explain_state('Typed', '1');
-- what an upcaster calls
CREATE FUNCTION kept_upcast(event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN jsonb_build_object('m', kept_inner((event.data ->> 'n')::int)); END $$;
SELECT es_create_upcaster('Recounted', 1, 'kept_upcast(es_event)');
SELECT count(es_append('Upcasted', '1', 'Recounted', '{"n": 1}', schema_version => 1));
SELECT es_snapshot('Upcasted');
SELECT snapshot_version, state FROM es_explain_state('Upcasted', '1');
CREATE OR REPLACE FUNCTION kept_inner(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 4 $$;
SELECT snapshot_version, state FROM es_explain_state('Upcasted', '1');

SELECT es_drop_upcaster('Recounted', 1);

-- wrong ones are found, named and dropped
SELECT * FROM es_verify_snapshots();
UPDATE regress_kept.snapshots SET state = '{"v": 33}' WHERE aggregate_type = 'Order' AND aggregate_id = '1';
UPDATE regress_kept.snapshots SET state = '{"v": 3.0}' WHERE aggregate_type = 'Order' AND aggregate_id = '2';
UPDATE regress_kept.snapshots SET recorded_at = recorded_at - interval '1 s' WHERE aggregate_type = 'Order' AND aggregate_id = '3';
UPDATE regress_kept.snapshots SET version = 9 WHERE aggregate_type = 'Order' AND aggregate_id = '5';
UPDATE regress_kept.snapshots SET state = '{"n": 0}' WHERE aggregate_type = 'Stock' AND version = 28;
INSERT INTO regress_kept.snapshots SELECT 'Order', 'nobody', 1, now(), '{}', reducer FROM regress_kept.snapshots WHERE aggregate_type = 'Order' LIMIT 1;
SELECT es_state('Order', '1');
SELECT * FROM es_verify_snapshots('Payment');
SELECT * FROM es_verify_snapshots('Order');
SELECT * FROM es_verify_snapshots();
SELECT * FROM es_verify_snapshots();
SELECT es_state('Order', '1');
SELECT array_agg(version ORDER BY version) FROM regress_kept.snapshots WHERE aggregate_type = 'Stock';
-- a reducer that fails: of one it is an error, of all a warning
CREATE FUNCTION kept_fails(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' THEN RAISE EXCEPTION 'cannot count'; END IF;
    RETURN event.data;
END $$;
SELECT es_create_aggregate('Fails', 'kept_fails(jsonb,es_event)');
SELECT count(es_append('Fails', id, 'Counted', data)) FROM (VALUES ('1', '{}'::jsonb), ('2', '{"bad": 1}'), ('3', '{}')) e (id, data);
\set VERBOSITY terse
SELECT es_snapshot('Fails', '2');
SELECT es_snapshot('Fails');
DROP FUNCTION kept_fails;
SELECT * FROM es_verify_snapshots('Fails');
\set VERBOSITY default

-- only the owner; never a state that row security cut short
CREATE ROLE regress_kept_reader;
SELECT es_grant('regress_kept_reader', 'writer');
SET ROLE regress_kept_reader;
SELECT es_snapshot('Order');
SELECT * FROM es_verify_snapshots();
\set VERBOSITY sqlstate
SELECT eventsrc.take_snapshot('Order', '1', true, 'regress_kept');
SELECT eventsrc.verify_snapshot('Order', '1', 1, now(), '{}', '', 0, '{}', 'regress_kept');
\set VERBOSITY default
RESET ROLE;
CREATE ROLE regress_kept_owner;
GRANT CREATE ON DATABASE :DBNAME TO regress_kept_owner;
SET ROLE regress_kept_owner;
SELECT es_create_store('regress_forced');
ALTER TABLE regress_forced.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON regress_forced.events USING (true);
SELECT es_append('Order', '1', 'Placed', store => 'regress_forced') IS NOT NULL;
SELECT es_snapshot('Order', store => 'regress_forced');
RESET ROLE;

-- es_describe
SELECT es_create_event_type('Placed', 1, '{"type": "object"}', description => 'an order came in');
SELECT es_create_event_type('Placed', 2);
SELECT store, kind, name, detail - 'bytes' - 'last_taken_at' - 'owner' - 'partitions' - 'events' FROM es_describe('regress_kept') WHERE kind <> 'snapshot hit rate';
SELECT kind, name = current_database(), (detail ->> 'hits')::int > 0, (detail ->> 'rate')::numeric BETWEEN 0 AND 1 FROM es_describe('regress_kept') WHERE kind = 'snapshot hit rate';
SELECT DISTINCT store FROM es_describe() WHERE store LIKE 'regress\_%' ORDER BY 1;
SET ROLE regress_kept_reader;
SELECT store, kind FROM es_describe() WHERE store LIKE 'regress\_%';
RESET ROLE;
SELECT * FROM es_describe('nowhere');
\echo :LAST_ERROR_SQLSTATE
-- hits and misses: where a snapshot should be
SELECT hits AS h, misses AS m FROM eventsrc.snapshot_counts() \gset
SELECT es_state('Order', '4'), es_state('Payment', '1');
SELECT hits - :h, misses - :m FROM eventsrc.snapshot_counts();
DELETE FROM regress_kept.snapshots WHERE aggregate_type = 'Stock';
SELECT es_state('Stock', 'a'), es_state('Stock', 'a', 1);
SELECT hits - :h, misses - :m FROM eventsrc.snapshot_counts();

-- es_event_stats
SELECT day = (now() AT TIME ZONE 'UTC')::date OR day = (now() AT TIME ZONE 'UTC')::date - 1, aggregate_type, event_type, events, bytes > 0, per_second > 0
FROM es_event_stats() ORDER BY 2, 3;
SELECT sum(events) = (SELECT count(*) FROM regress_kept.events) FROM es_event_stats(estimate => true);
SELECT aggregate_type, sum(events) FROM es_event_stats('Order') GROUP BY 1;
SELECT * FROM es_event_stats(to_time => '2000-01-01');
SELECT * FROM es_event_stats(store => 'nowhere');
\echo :LAST_ERROR_SQLSTATE
-- nothing runs
SELECT count(*) FROM es_progress WHERE store = 'regress_kept';

SELECT es_drop_store('regress_kept', 'regress_kept'), es_drop_store('regress_forced', 'regress_forced');
DROP FUNCTION kept_inner(int), kept_inner(numeric), kept_other, "Kept Outer", kept_text, kept_standard, kept_upcast(es_event);
DROP FUNCTION kept_typed;
DROP TYPE kept_state, kept_part;
DROP OWNED BY regress_kept_owner;
DROP ROLE regress_kept_reader, regress_kept_owner;
