-- snapshots: taken by triggers, used by es_state(), only a cache
SET client_min_messages = warning;
SELECT es_create_store('regress_snapshots');
SET eventsrc.store = 'regress_snapshots';
RESET client_min_messages;

CREATE FUNCTION regress_chain(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + 1,
                              'chain', md5(coalesce(state ->> 'chain', '') || event.version || event.event_type || event.data));
END
$$;

--
-- every 100 versions, and es_state() starts there
--
SELECT count(es_append('Order', '1', 'Changed', jsonb_build_object('k' || i % 7, i))) FROM generate_series(1, 250) i;
SELECT aggregate_type, aggregate_id, version, state, reducer FROM regress_snapshots.snapshots ORDER BY 1, 2, 3;
SELECT s.recorded_at = e.recorded_at AS of_its_event
FROM regress_snapshots.snapshots s JOIN regress_snapshots.events e USING (aggregate_type, aggregate_id, version);
SELECT v, version, snapshot_version, events_replayed
FROM unnest('{1,99,100,101,199,200,201,250}'::bigint[]) v, es_explain_state('Order', '1', v);
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Order', '1');
SELECT recorded_at AS t FROM regress_snapshots.events WHERE version = 150 \gset
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Order', '1', as_of => :'t');
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Order', '1', as_of => :'t', occurred => true);

-- several at once, by one INSERT
INSERT INTO regress_snapshots.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Order', 'bulk', 'Changed', jsonb_build_object('i', i) FROM generate_series(1, 320) i;
SELECT version, state FROM regress_snapshots.snapshots WHERE aggregate_id = 'bulk' ORDER BY 1;
-- and by one call
SELECT version FROM es_append_events('Order', 'array', array_fill('Changed'::text, ARRAY[210]),
                                     (SELECT array_agg(jsonb_build_object('i', i)) FROM generate_series(1, 210) i));
SELECT version, state FROM regress_snapshots.snapshots WHERE aggregate_id = 'array' ORDER BY 1;
-- a transaction that fails leaves none
BEGIN;
SELECT count(es_append('Order', 'undone', 'Changed')) FROM generate_series(1, 100);
SELECT count(*) FROM regress_snapshots.snapshots WHERE aggregate_id = 'undone';
ROLLBACK;
SELECT count(*) FROM regress_snapshots.snapshots WHERE aggregate_id = 'undone';
-- at every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(es_append('Order', 'rr', 'Changed', jsonb_build_object('i', i))) FROM generate_series(1, 150) i;
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', 'rr');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(es_append('Order', 'ssi', 'Changed', jsonb_build_object('i', i))) FROM generate_series(1, 150) i;
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', 'ssi');
COMMIT;
-- a reader that does not see a snapshot does not use it
BEGIN;
SELECT count(es_append('Order', 'cursor', 'Changed', jsonb_build_object('i', i))) FROM generate_series(1, 99) i;
DECLARE c CURSOR FOR SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', 'cursor');
SELECT version FROM es_append('Order', 'cursor', 'Changed', '{"i": 100}');
FETCH c;
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', 'cursor');
ROLLBACK;

--
-- another number: a trigger of the type's own
--
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{}', 10);
SELECT es_create_aggregate('Never', snapshot_every => 0);
SELECT es_create_aggregate(repeat('Long', 20) || t, snapshot_every => 5) FROM unnest('{a,b}'::text[]) t;
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgrelid = 'regress_snapshots.events'::regclass AND tgname LIKE 'eventsrc_snapshot%' ORDER BY 1;
SELECT count(es_append(t, '1', 'Changed', jsonb_build_object('i', i)))
FROM unnest(ARRAY['Often', 'Never', repeat('Long', 20) || 'a']) t, generate_series(1, 105) i;
SELECT aggregate_type, count(*), min(version), max(version) FROM regress_snapshots.snapshots
WHERE aggregate_id = '1' GROUP BY 1 ORDER BY 1;
-- the same again changes nothing, and locks nothing against appends
BEGIN;
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{}', 10);
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'regress_snapshots.events'::regclass
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');
COMMIT;
-- changed, replaced, and back to the store's own
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{}', 25);
SELECT count(es_append('Often', '2', 'Changed')) FROM generate_series(1, 105) i;
SELECT array_agg(version ORDER BY version) FROM regress_snapshots.snapshots WHERE aggregate_type = 'Often' AND aggregate_id = '2';
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{}');
SELECT count(es_append('Often', '3', 'Changed')) FROM generate_series(1, 105) i;
SELECT array_agg(version ORDER BY version) FROM regress_snapshots.snapshots WHERE aggregate_type = 'Often' AND aggregate_id = '3';
SELECT tgname FROM pg_trigger WHERE tgrelid = 'regress_snapshots.events'::regclass AND tgname LIKE 'eventsrc_snapshot%Often';

--
-- the reducer's identity
--
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Often', '3');
CREATE OR REPLACE FUNCTION regress_chain(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('count', coalesce((state ->> 'count')::int, 0) + 1);
END
$$;
SELECT * FROM (SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Often', '3')) s;
-- another initial state is another identity, too
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{"count": 1000}');
SELECT count(es_append('Often', '3', 'Changed')) FROM generate_series(1, 100) i;
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Often', '3');
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{"count": 2000}');
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Often', '3');
-- undone with its transaction
BEGIN;
CREATE OR REPLACE FUNCTION regress_chain(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT '"other"'::jsonb $$;
SELECT es_state('Often', '3');
ROLLBACK;
SELECT es_state('Often', '3');
-- the function's settings count, its statistics do not hurt
SELECT es_create_aggregate('Often', 'regress_chain(jsonb,es_event)', '{"count": 1000}');
SELECT snapshot_version FROM es_explain_state('Often', '3');
ALTER FUNCTION regress_chain(jsonb, es_event) SET work_mem = '8MB';
SELECT snapshot_version FROM es_explain_state('Often', '3');
ALTER FUNCTION regress_chain(jsonb, es_event) RESET work_mem;
SELECT snapshot_version FROM es_explain_state('Often', '3');

--
-- an append is never refused for a snapshot
--
CREATE FUNCTION regress_fails(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.version = 7 THEN
        RAISE EXCEPTION 'seven' USING HINT = 'Skip it.';
    END IF;
    RETURN state;
END
$$;
SELECT es_create_aggregate('Fails', 'regress_fails(jsonb,es_event)', '{}', 5);
SELECT count(es_append('Fails', '1', 'Changed')) FROM generate_series(1, 12);
SELECT version FROM regress_snapshots.snapshots WHERE aggregate_type = 'Fails';
DROP FUNCTION regress_fails(jsonb, es_event);
SELECT count(es_append('Fails', '1', 'Changed')) FROM generate_series(1, 3);
DELETE FROM regress_snapshots.aggregates WHERE aggregate_type = 'Fails';
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Fails', '1');

--
-- the appender needs no rights on snapshots, and has no say in them
--
CREATE ROLE regress_es_appender;
GRANT USAGE ON SCHEMA regress_snapshots TO regress_es_appender;
GRANT SELECT, INSERT ON regress_snapshots.events TO regress_es_appender;
CREATE SCHEMA regress_evil AUTHORIZATION regress_es_appender;
CREATE FUNCTION regress_calls(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN state || jsonb_build_object('length', length('three'), 'who', current_user = session_user);
END
$$;
SELECT es_create_aggregate('Calls', 'regress_calls(jsonb,es_event)', '{}', 10);
SET ROLE regress_es_appender;
CREATE FUNCTION regress_evil.length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked by %', current_user; END $$;
SET search_path = regress_evil, pg_catalog, public;
SELECT count(es_append('Calls', '1', 'Changed')) FROM generate_series(1, 20);
SHOW search_path;
SELECT current_user;
RESET search_path;
SELECT * FROM regress_snapshots.snapshots;
SELECT snapshot_version, events_replayed FROM es_explain_state('Calls', '1');
RESET ROLE;
SELECT version, state FROM regress_snapshots.snapshots WHERE aggregate_type = 'Calls' ORDER BY 1;

-- row security: not for whom it binds, neither to read nor to write
ALTER TABLE regress_snapshots.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY r ON regress_snapshots.events FOR SELECT TO regress_es_appender USING (version % 2 = 0);
CREATE POLICY a ON regress_snapshots.events FOR INSERT TO regress_es_appender WITH CHECK (true);
SET ROLE regress_es_appender;
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Order', '1');
INSERT INTO regress_snapshots.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Order', 'rls', 'Changed', jsonb_build_object('k' || i % 2, i) FROM generate_series(1, 100) i;
SELECT es_state('Order', 'rls');
RESET ROLE;
SELECT version, state FROM regress_snapshots.snapshots WHERE aggregate_id = 'rls';
ALTER TABLE regress_snapshots.events DISABLE ROW LEVEL SECURITY;
SET ROLE regress_es_appender;
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', 'rls');
RESET ROLE;

-- not where replication applies: it brings the snapshots
SET session_replication_role = replica;
SELECT count(es_append('Order', 'replica', 'Changed')) FROM generate_series(1, 100) i;
RESET session_replication_role;
SELECT count(*) FROM regress_snapshots.snapshots WHERE aggregate_id = 'replica';

-- the trigger function is for stores
CREATE TABLE regress_plain (version bigint);
CREATE TRIGGER t AFTER INSERT ON regress_plain FOR EACH ROW EXECUTE FUNCTION eventsrc.snapshot_trigger();
INSERT INTO regress_plain VALUES (100);
\echo :LAST_ERROR_SQLSTATE
DROP TABLE regress_plain;

--
-- only a cache: random histories, every version, against a model, with all
-- snapshots, with some, and with none
--
CREATE FUNCTION regress_mix(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + 1,
                              'keys', jsonb_typeof(event.data),
                              'chain', md5(coalesce(state ->> 'chain', '') || event.version || event.data));
END
$$;
CREATE TEMP TABLE model (aggregate_type text, aggregate_id text, version bigint, state jsonb);
CREATE FUNCTION regress_random_data() RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN random() < 0.1 THEN to_jsonb(random())
                ELSE coalesce(jsonb_object_agg(k, v), '{}') END
    FROM (SELECT repeat('x', (random() * 3)::int) || (random() * 20)::int AS k,
                 CASE (random() * 6)::int WHEN 0 THEN 'null'
                                          WHEN 1 THEN to_jsonb(random() < 0.5)
                                          WHEN 2 THEN to_jsonb(random() * 1e6)
                                          WHEN 3 THEN to_jsonb(md5(random()::text))
                                          WHEN 4 THEN jsonb_build_array(random(), 'a')
                                          ELSE jsonb_build_object('a', random(), 'b', null) END AS v
          FROM generate_series(1, (random() * 6)::int)) pairs
$$;
CREATE FUNCTION regress_compare() RETURNS TABLE (aggregate_type text, versions bigint, wrong bigint, from_snapshots bigint) LANGUAGE sql AS $$
    SELECT m.aggregate_type, count(*),
           count(*) FILTER (WHERE s.state IS DISTINCT FROM m.state OR s.version <> m.version
                               OR s.events_replayed <> m.version - coalesce(s.snapshot_version, 0)),
           count(s.snapshot_version)
    FROM model m, es_explain_state(m.aggregate_type, m.aggregate_id, m.version) s
    GROUP BY 1 ORDER BY 1
$$;
SELECT setseed(0.42);
SELECT es_create_aggregate('Merge7', initial => '{"init": 1}', snapshot_every => 7, keep_snapshots => NULL);
SELECT es_create_aggregate('Mix1', 'regress_mix(jsonb,es_event)', snapshot_every => 1, keep_snapshots => NULL);
SELECT es_create_aggregate('Mix100', 'regress_mix(jsonb,es_event)');
SELECT es_create_aggregate('Mix0', 'regress_mix(jsonb,es_event)', snapshot_every => 0);
DO $$
DECLARE
    type text;
    id text;
    current jsonb;
    piece jsonb;
    event es_event;
BEGIN
    FOREACH type IN ARRAY '{Plain,Merge7,Mix1,Mix100,Mix0}'::text[] LOOP
        FOR i IN 1..3 LOOP
            id := 'r' || i;
            current := CASE type WHEN 'Merge7' THEN '{"init": 1}' ELSE '{}' END;
            FOR v IN 1..(CASE i WHEN 1 THEN 15 WHEN 2 THEN 100 ELSE 210 END) LOOP
                piece := regress_random_data();
                PERFORM es_append(type, id, 'Changed', piece);
                event.version := v;
                event.data := piece;
                IF type LIKE 'Mix%' THEN
                    current := regress_mix(current, event);
                ELSIF jsonb_typeof(piece) = 'object' THEN
                    current := current || piece;
                END IF;
                INSERT INTO model VALUES (type, id, v, current);
            END LOOP;
        END LOOP;
    END LOOP;
END
$$;
SELECT * FROM regress_compare();
DELETE FROM regress_snapshots.snapshots WHERE random() < 0.5;
SELECT aggregate_type, versions, wrong FROM regress_compare();
-- rows of other reducers do not matter, and are replaced by the trigger
UPDATE regress_snapshots.snapshots SET reducer = 'wrong', state = '"wrong"';
SELECT * FROM regress_compare();
DELETE FROM regress_snapshots.snapshots;
SELECT * FROM regress_compare();
INSERT INTO regress_snapshots.snapshots (aggregate_type, aggregate_id, version, recorded_at, state, reducer)
VALUES ('Plain', 'left', 100, now(), '"wrong"', 'wrong');
SELECT count(es_append('Plain', 'left', 'Changed', jsonb_build_object('i', i))) FROM generate_series(1, 100) i;
SELECT state, reducer FROM regress_snapshots.snapshots WHERE aggregate_id = 'left';

SET client_min_messages = warning;
SELECT es_drop_store('regress_snapshots', 'regress_snapshots');
DROP FUNCTION regress_chain, regress_calls, regress_mix, regress_random_data, regress_compare;
DROP TABLE model;
DROP SCHEMA regress_evil CASCADE;
DROP ROLE regress_es_appender;
