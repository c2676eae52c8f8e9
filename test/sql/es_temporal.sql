-- States over time: es_states(), es_history(), es_diff(), es_fold(), state views, traces
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT es_create_store('regress_temporal');
SELECT es_create_store('Regress "other"');
SET eventsrc.store = 'regress_temporal';
RESET client_min_messages;

SELECT version FROM es_append('Order', '1', 'Placed', '{"status": "placed", "total": 10, "lines": {"a/b": 1, "c~d": [1, 2, 3]}}', occurred_at => '2024-01-02');
SELECT version FROM es_append('Order', '1', 'Paid', '{"status": "paid", "lines": {"c~d": [1, 9, 8, 3]}}', occurred_at => '2024-01-01');
SELECT version FROM es_append('Order', '2', 'Placed', '{"status": "placed", "total": 20.5, "tags": ["x", "y"]}', occurred_at => '2024-01-03');
SELECT version FROM es_append('Document', 'd', 'Written', '{"text": "Hello"}');
SELECT version FROM es_append('Order', '1', 'Shipped', '{"status": "shipped", "parcel": null}');

--
-- all aggregates of a type
--
SELECT * FROM es_states('Order');
SELECT * FROM es_states('None');
SELECT recorded_at AS t2 FROM regress_temporal.events WHERE aggregate_type = 'Order' AND aggregate_id = '1' AND version = 2 \gset
SELECT * FROM es_states('Order', :'t2');
SELECT * FROM es_states('Order', '-infinity');
SELECT count(*) FROM es_states('Order', 'infinity');
SELECT aggregate_id, version, state ->> 'status' AS status FROM es_states('Order', '2024-01-02', occurred => true);
SELECT aggregate_id, version, state ->> 'status' AS status FROM es_states('Order', '2024-01-01', occurred => true);
-- as es_state() says
SELECT bool_and(s.state = es_state('Order', s.aggregate_id, s.version)) AS same FROM es_states('Order') s;
SELECT es_states(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM es_states('Order', store => 'regress_nowhere');
\echo :LAST_ERROR_SQLSTATE
-- more than one page of rows, many ids, plans of all kinds
INSERT INTO regress_temporal.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Counter', (i % 700)::text, 'Counted', jsonb_build_object('n', i, 'k' || i % 5, i) FROM generate_series(1, 7000) i;
CREATE TEMPORARY TABLE model AS
    SELECT aggregate_id, count(*) AS version, (SELECT jsonb_object_agg(key, value ORDER BY x.version) FROM regress_temporal.events x, jsonb_each(x.data)
                                               WHERE x.aggregate_type = 'Counter' AND x.aggregate_id = e.aggregate_id) AS state
    FROM regress_temporal.events e WHERE aggregate_type = 'Counter' GROUP BY aggregate_id;
SELECT count(*), bool_and(s.state = m.state AND s.version = m.version) AS same FROM es_states('Counter') s FULL JOIN model m USING (aggregate_id);
SET enable_indexscan = off; SET enable_bitmapscan = off; SET work_mem = '64kB';
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT count(*), bool_and(s.state = m.state AND s.version = m.version) AS same FROM es_states('Counter') s FULL JOIN model m USING (aggregate_id);
-- (parallel workers read and sort, if the reducer says that it is safe beside them; those of es_fold() too)
CREATE FUNCTION regress_workers(state jsonb, event es_event) RETURNS jsonb STABLE PARALLEL SAFE LANGUAGE sql
AS $$ SELECT jsonb_build_object('workers', greatest((state -> 'workers')::int, (SELECT count(*) FROM pg_stat_activity WHERE leader_pid = pg_backend_pid()))) $$;
SELECT es_create_aggregate('Counter', 'regress_workers(jsonb,es_event)', snapshot_every => 0);
SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2;
SELECT max((state -> 'workers')::int) > 0 AS workers FROM es_states('Counter');
ALTER FUNCTION regress_workers(jsonb, es_event) PARALLEL UNSAFE;
SELECT max((state -> 'workers')::int) > 0 AS workers FROM es_states('Counter');
DELETE FROM regress_temporal.aggregates WHERE aggregate_type = 'Counter';
DROP FUNCTION regress_workers;
CREATE FUNCTION regress_plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || query;
END
$$;
SELECT count(*) FILTER (WHERE line ~ 'Gather') AS gathers, min(n) FILTER (WHERE line ~ 'Aggregate') < min(n) FILTER (WHERE line ~ 'Gather') AS above
FROM regress_plan('SELECT aggregate_id, es_fold(e ORDER BY version) FROM regress_temporal.events e WHERE aggregate_type = ''Counter'' GROUP BY 1')
    WITH ORDINALITY p (line, n);
SELECT count(*), bool_and(s.state = m.state) AS same
FROM (SELECT aggregate_id, es_fold(e ORDER BY version) AS state FROM regress_temporal.events e WHERE aggregate_type = 'Counter' GROUP BY 1) s
    FULL JOIN model m USING (aggregate_id);
DROP FUNCTION regress_plan;
RESET parallel_leader_participation; RESET max_parallel_workers_per_gather;
RESET enable_indexscan; RESET enable_bitmapscan; RESET work_mem;
RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size;

--
-- step by step
--
SELECT version, event_type, state, changes FROM es_history('Order', '1');
SELECT version, changes FROM es_history('Order', '1', 2, 2);
SELECT version FROM es_history('Order', '1', 3);
SELECT count(*) FROM es_history('Order', '1', 4);
SELECT count(*) FROM es_history('Order', 'none');
SELECT es_history('Order', '1', -1);
\echo :LAST_ERROR_SQLSTATE
SELECT user_id = session_user AS me, recorded_at = :'t2' AS then FROM es_history('Order', '1', 2, 2);
-- across snapshots
SELECT count(es_append('Long', '1', 'Counted', jsonb_build_object('n', i, 'k' || i % 7, i))) FROM generate_series(1, 250) i;
SELECT count(*), bool_and(h.state = es_state('Long', '1', h.version)) AS same FROM es_history('Long', '1', 199) h;
SELECT count(*), bool_and(h.state = es_state('Long', '1', h.version)) AS same FROM es_history('Long', '1', 50, 201) h;

--
-- differences
--
SELECT es_diff('Order', '1', 1, 2);
SELECT es_diff('Order', '1', 3, 1);
SELECT es_diff('Order', '1', 2, 2), es_diff('Order', '2', 0), es_diff('Order', 'none', 0), es_diff('Order', 'none', 1, 2);
SELECT es_diff('Order', '1', 1, 9);
\echo :LAST_ERROR_SQLSTATE
SELECT es_diff('Order', '1', -1);
\echo :LAST_ERROR_SQLSTATE

-- applying a difference gives the other state: a small JSON patch, and random values
CREATE FUNCTION regress_apply(target jsonb, path text[], op text, value jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    i int;
BEGIN
    IF path = '{}' THEN
        ASSERT op = 'replace';
        RETURN value;
    END IF;
    IF cardinality(path) > 1 THEN
        ASSERT (target -> path[1]) IS NOT NULL OR jsonb_typeof(target) = 'array';
        IF jsonb_typeof(target) = 'array' THEN
            ASSERT (target -> path[1]::int) IS NOT NULL;
            RETURN jsonb_set(target, path[1:1], regress_apply(target -> path[1]::int, path[2:], op, value));
        END IF;
        RETURN target || jsonb_build_object(path[1], regress_apply(target -> path[1], path[2:], op, value));
    END IF;
    IF jsonb_typeof(target) = 'array' THEN
        i := path[1];
        ASSERT i BETWEEN 0 AND jsonb_array_length(target) - CASE op WHEN 'add' THEN 0 ELSE 1 END;
        RETURN (SELECT coalesce(jsonb_agg(e ORDER BY n), '[]') FROM (
            SELECT e, n::numeric FROM jsonb_array_elements(target) WITH ORDINALITY a (e, n) WHERE op = 'add' OR n <> i + 1
            UNION ALL SELECT value, i + 0.5 WHERE op <> 'remove') x);
    END IF;
    ASSERT jsonb_typeof(target) = 'object' AND (target ? path[1]) = (op <> 'add');
    RETURN CASE op WHEN 'remove' THEN target - path[1] ELSE target || jsonb_build_object(path[1], value) END;
END
$$;
CREATE FUNCTION regress_apply(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    o jsonb;
BEGIN
    FOR o IN SELECT * FROM jsonb_array_elements(patch) LOOP
        target := regress_apply(target,
            ARRAY(SELECT replace(replace(p, '~1', '/'), '~0', '~') FROM string_to_table(o ->> 'path', '/') WITH ORDINALITY x (p, n) WHERE n > 1 ORDER BY n),
            o ->> 'op', o -> 'value');
    END LOOP;
    RETURN target;
END
$$;
CREATE FUNCTION regress_value(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN depth > 0 AND random() < 0.5
        THEN (SELECT coalesce(jsonb_object_agg((ARRAY['a', 'b/c', 'd~1', '', '~', 'long key'])[1 + floor(random() * 6)::int], regress_value(depth - 1)), '{}')
              FROM generate_series(1, (random() * 5)::int))
        WHEN depth > 0 AND random() < 0.6
        THEN (SELECT coalesce(jsonb_agg(regress_value(depth - 1)), '[]') FROM generate_series(1, (random() * 5)::int))
        ELSE (ARRAY['null', '1', '"text"', '1.0', 'true', 'false', '2', '""']::jsonb[])[1 + floor(random() * 8)::int] END;
END
$$;
SELECT setseed(0.25) IS NOT NULL AS seeded;
DO $$
DECLARE
    a jsonb := '{}';
    b jsonb;
BEGIN
    FOR i IN 1 .. 500 LOOP
        b := regress_value(4);
        ASSERT regress_apply(a, eventsrc.json_diff(a, b)) = b, format('from %s to %s by %s', a, b, eventsrc.json_diff(a, b));
        ASSERT eventsrc.json_diff(b, b) = '[]';
        a := b;
    END LOOP;
END
$$;

--
-- the fold as an aggregate
--
SELECT aggregate_id, es_fold(e ORDER BY version) = es_state('Order', aggregate_id) AS same
FROM regress_temporal.events e WHERE aggregate_type = 'Order' GROUP BY aggregate_id ORDER BY 1;
SELECT es_fold(e ORDER BY version) FROM es_read_stream('Order', '1') e;
SELECT es_fold(e ORDER BY version) FROM es_read_stream('Order', 'none') e;
SELECT version, es_fold(e) OVER (ORDER BY version) -> 'status' AS up_to_here,
       es_fold(e) OVER (ORDER BY version ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) -> 'lines' AS from_here,
       es_fold(e) OVER (ORDER BY version ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS of_two
FROM es_read_stream('Order', '1') e;
SELECT bool_and(state = es_state('Counter', aggregate_id, version)) AS same, count(*)
FROM (SELECT aggregate_id, version, es_fold(e) OVER (PARTITION BY aggregate_id ORDER BY version) AS state
      FROM regress_temporal.events e WHERE aggregate_type = 'Counter' AND aggregate_id < '11') x;
SELECT es_fold(e ORDER BY version) FILTER (WHERE event_type <> 'Paid') FROM es_read_stream('Order', '1') e;
SELECT es_fold(e) FROM regress_temporal.events e;
\echo :LAST_ERROR_SQLSTATE
SELECT es_fold(ROW(1, 2));
\echo :LAST_ERROR_SQLSTATE
SELECT es_fold(NULL::es_event);
-- by the reducer of the store that the rows are from
CREATE FUNCTION regress_count(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(state::int + 1) $$;
SELECT es_create_aggregate('Order', 'regress_count(jsonb,es_event)', '0', store => 'Regress "other"');
SELECT version FROM es_append('Order', '1', 'Placed', store => 'Regress "other"');
SELECT es_fold(e) FROM "Regress ""other""".events e;
SELECT version, es_fold(e) OVER (ORDER BY version) FROM "Regress ""other""".events e;

--
-- views
--
SELECT es_create_state_view('Order', columns => '{total numeric(10,2), status text, tags text[], "Odd ""name, (1)" jsonb}');
SELECT * FROM regress_temporal.order_now;
SELECT aggregate_id, status FROM regress_temporal.order_at(:'t2');
SELECT * FROM regress_temporal.order_at('-infinity');
SELECT sum(total) FROM regress_temporal.order_now;
-- of one aggregate: no other stream is folded (that of one would fail)
CREATE FUNCTION regress_picky(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.aggregate_id = 'bad' THEN RAISE EXCEPTION 'bad'; END IF;
    RETURN state || event.data;
END $$;
SELECT es_create_aggregate('Picky', 'regress_picky(jsonb,es_event)');
SELECT count(es_append('Picky', id, 'Changed', jsonb_build_object('id', id))) FROM unnest('{bad,good,fine}'::text[]) id;
SELECT es_create_state_view('Picky', '{id text}');
\set VERBOSITY terse
SELECT * FROM regress_temporal.picky_now;
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = 'good';
SELECT * FROM regress_temporal.picky_now WHERE 'fine' = aggregate_id AND id = 'fine';
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = 'good' AND aggregate_id = 'fine';
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = 'good' AND id = 'other';
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = NULL::text;
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = 'nobody';
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id IN ('good', 'fine') ORDER BY 1;
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = ANY ('{fine,NULL,nobody,good,fine}') AND aggregate_id <> 'fine';
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = ANY ('{fine,NULL}');
SELECT count(*) FROM regress_temporal.picky_now WHERE aggregate_id = ANY ('{}');
SELECT count(*) FROM regress_temporal.picky_now WHERE aggregate_id = ANY (NULL::text[]);
SELECT count(*) FROM regress_temporal.picky_now WHERE aggregate_id = ANY ('{NULL}');
SELECT * FROM regress_temporal.picky_at(now()) WHERE aggregate_id IN ('good', 'nobody');
-- (these want any)
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id NOT IN ('bad', 'fine');
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id <> ALL ('{bad,fine}');
SELECT * FROM regress_temporal.picky_now WHERE aggregate_id > ANY ('{c}');
SELECT * FROM regress_temporal.picky_at(now()) WHERE aggregate_id = 'good';
PREPARE one(text) AS SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = $1;
SET plan_cache_mode = force_generic_plan;
EXECUTE one('good');
EXECUTE one('fine');
EXECUTE one(NULL);
PREPARE several(text[]) AS SELECT * FROM regress_temporal.picky_now WHERE aggregate_id = ANY ($1) ORDER BY 1;
EXECUTE several('{good,fine}');
EXECUTE several(NULL);
DEALLOCATE several;
SELECT id, (SELECT state FROM es_states('Picky') WHERE aggregate_id = id) FROM unnest('{good,fine}'::text[]) id;
EXPLAIN (VERBOSE, COSTS OFF) SELECT version FROM es_states('Picky') WHERE aggregate_id = 'good';
EXPLAIN (VERBOSE, COSTS OFF) SELECT version FROM es_states('Picky') WHERE aggregate_id IN ('good', 'fine');
RESET plan_cache_mode;
DEALLOCATE one;
\set VERBOSITY default
SELECT es_drop_state_view('Picky');
DELETE FROM regress_temporal.aggregates WHERE aggregate_type = 'Picky';
DROP FUNCTION regress_picky;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'regress_temporal.order_now'::regclass AND attnum > 0 ORDER BY attnum;
SELECT es_create_state_view('Order', '{status text}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{"status": "text", "a b": "int"}', name => 'Odd "n');
SELECT * FROM regress_temporal."Odd ""n_now";
SELECT es_create_state_view('UserAction', '{at timestamptz}', store => 'Regress "other"');
SELECT * FROM "Regress ""other""".user_action_now;
SELECT es_drop_store('regress_temporal', 'regress_temporal');
\echo :LAST_ERROR_SQLSTATE
SELECT es_drop_state_view('Order');
SELECT es_drop_state_view('Order');
\echo :LAST_ERROR_SQLSTATE
SELECT es_drop_state_view('Order', 'Odd "n'), es_drop_state_view('UserAction', store => 'Regress "other"');
SELECT count(*) FROM pg_proc WHERE proname ~ '_at$' AND pronamespace = 'regress_temporal'::regnamespace;
CREATE VIEW regress_temporal.mine_now AS SELECT 1;
SELECT es_drop_state_view('Mine');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Mine', '{a int}');
\echo :LAST_ERROR_SQLSTATE
DROP VIEW regress_temporal.mine_now;
SELECT es_create_state_view('Order', '{a}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{}');
SELECT es_create_state_view('Order', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{a numeric(10}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{a regress_nothing}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{a int, a text}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{version int}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('Order', '{a int}', repeat('n', 60));
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_state_view('', '{a int}');
\echo :LAST_ERROR_SQLSTATE

--
-- traces
--
BEGIN;
SELECT es_set_context(correlation_id => 'c');
SELECT version FROM es_append('Document', 'd', 'Published', '{}', event_id => 'e1');
SELECT es_set_context(correlation_id => 'c', causation_id => 'e1');
SELECT version FROM es_append('Translation', 'd-de', 'Requested', '{}', event_id => 'e2', store => 'Regress "other"');
SELECT version FROM es_append('Translation', 'd-fr', 'Requested', '{}', event_id => 'e3', store => 'Regress "other"');
SELECT es_set_context(correlation_id => 'c', causation_id => 'e2');
SELECT version FROM es_append('Payment', 'p', 'Paid', '{}', event_id => 'e4');
COMMIT;
SELECT store, event_id, event_type FROM es_timeline('c');
SELECT store, event_id, event_type FROM es_timeline('c', 'regress_temporal');
SELECT count(*) FROM es_timeline('none');
SELECT count(*) FROM es_timeline(NULL);
SELECT depth, store, event_id, causation_id FROM es_causes('e4');
SELECT depth, event_id FROM es_causes('e1');
SELECT depth, store, event_id, causation_id FROM es_effects('e1');
SELECT depth, event_id FROM es_effects('e3');
SELECT count(*) FROM es_causes('none'), es_effects('none');
-- in a circle, by hand
BEGIN;
SELECT es_set_context(causation_id => 'f2');
SELECT version FROM es_append('Payment', 'q', 'Paid', '{}', event_id => 'f1');
SELECT es_set_context(causation_id => 'f1');
SELECT version FROM es_append('Payment', 'q', 'Paid', '{}', event_id => 'f2');
COMMIT;
SELECT depth, event_id FROM es_causes('f1');
SELECT depth, event_id FROM es_effects('f1');
SELECT es_timeline('c', 'regress_nowhere');
\echo :LAST_ERROR_SQLSTATE
-- by indexes
SELECT es_create_trace_indexes(), es_create_trace_indexes(store => 'Regress "other"');
SELECT es_create_trace_indexes();
SELECT version FROM es_append('Payment', 'p', 'Refunded', '{}', event_id => 'e5');
SELECT count(*) FROM es_effects('e1'), es_causes('e5');
-- only what one may read
CREATE ROLE regress_temporal_user;
GRANT USAGE ON SCHEMA regress_temporal TO regress_temporal_user;
GRANT SELECT ON regress_temporal.events TO regress_temporal_user;
SET ROLE regress_temporal_user;
SELECT store, event_id FROM es_timeline('c');
SELECT depth, event_id FROM es_causes('e4');
\set VERBOSITY sqlstate
SELECT es_timeline('c', 'Regress "other"');
\set VERBOSITY default
SELECT es_create_trace_indexes();
\echo :LAST_ERROR_SQLSTATE
SELECT es_states('Order', store => 'Regress "other"');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
ALTER TABLE regress_temporal.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON regress_temporal.events TO regress_temporal_user USING (aggregate_type = 'Order' AND version < 3);
SET ROLE regress_temporal_user;
SELECT aggregate_id, version, state ->> 'status' AS status FROM es_states('Order');
SELECT version, state ->> 'status' AS status FROM es_history('Order', '1');
SELECT count(*) FROM es_states('Counter');
SELECT es_diff('Order', '1', 1, 3);
SELECT count(*) FROM es_between(NULL);
RESET ROLE;

--
-- positions and times
--
SELECT es_position_at('-infinity');
SELECT count(*), bool_and(es_position_at(recorded_at) >= global_position) AS after,
       bool_and(es_position_at(recorded_at - interval '1 microsecond') < global_position) AS before
FROM regress_temporal.events WHERE aggregate_type IN ('Order', 'Document', 'Payment');
SELECT es_position_at('infinity') = max(global_position) AS last FROM regress_temporal.events;
SELECT es_position_at(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT aggregate_type, version FROM es_between('Order');
SELECT aggregate_type, version FROM es_between('Order', :'t2');
SELECT aggregate_type, version FROM es_between('Order', NULL, :'t2');
SELECT count(*) = (SELECT count(*) FROM regress_temporal.events) AS everything FROM es_between(NULL);

SET client_min_messages = warning;
SELECT es_drop_store('regress_temporal', 'regress_temporal');
SELECT es_drop_store('Regress "other"', 'Regress "other"');
DROP ROLE regress_temporal_user;
DROP FUNCTION regress_apply(jsonb, text[], text, jsonb), regress_apply(jsonb, jsonb), regress_value, regress_count;
