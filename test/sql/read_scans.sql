-- es_read_stream() and es_read_all() in FROM: a custom scan, which answers as the functions do.
\set SHOW_CONTEXT never
SELECT es_create_store('regress_scan');
SET eventsrc.store = 'regress_scan';
SELECT count(*) FROM generate_series(1, 3) s, generate_series(1, 5) v, es_append('Order', s::text, 'Placed', jsonb_build_object('v', v));
SELECT min(global_position) - 1 AS start FROM regress_scan.events \gset

-- plans: the order is known, backwards too
EXPLAIN (COSTS OFF) SELECT * FROM es_read_stream('Order', '1') ORDER BY version;
EXPLAIN (COSTS OFF) SELECT * FROM es_read_stream('Order', '1', backward => true) ORDER BY version DESC;
EXPLAIN (COSTS OFF) SELECT * FROM es_read_stream('Order', '1', backward => true) ORDER BY version;
EXPLAIN (COSTS OFF) SELECT * FROM es_read_all() WHERE version > 2 ORDER BY global_position LIMIT 3;
EXPLAIN (COSTS OFF) SELECT s, r.version FROM generate_series(1, 3) s, es_read_stream('Order', s::text) r;
EXPLAIN (COSTS OFF, VERBOSE) SELECT e, version FROM es_read_stream('Order', '1') e;
-- the function scan remains: several functions, ordinality, rows that may be looked at once more
EXPLAIN (COSTS OFF) SELECT * FROM ROWS FROM (es_read_stream('Order', '1'), es_read_stream('Order', '2')) r;
EXPLAIN (COSTS OFF) SELECT * FROM es_read_stream('Order', '1') WITH ORDINALITY;
CREATE TEMPORARY TABLE totals (n bigint);
INSERT INTO totals VALUES (0);
EXPLAIN (COSTS OFF) UPDATE totals SET n = e.version FROM es_read_stream('Order', '1', 5) e;
UPDATE totals SET n = e.version FROM es_read_stream('Order', '1', 5) e RETURNING n;

-- the same rows as the functions return
SELECT count(*), count(DISTINCT e) FROM (SELECT e FROM es_read_all(:start, NULL) e UNION ALL SELECT es_read_all(:start, NULL)) e;
SELECT count(*) FROM (SELECT e.*::es_event FROM es_read_stream('Order', '2') e EXCEPT SELECT es_read_stream('Order', '2')) e;
SELECT version, (e).event_type, e.aggregate_id, (e).data FROM es_read_stream('Order', '3', 4) e;
SELECT pg_typeof(e), (e).version FROM es_read_stream('Order', '3', max_count => 2, backward => true) e;
SELECT r.* IS NULL AS is_null, s FROM generate_series(3, 4) s LEFT JOIN LATERAL (SELECT e FROM es_read_stream('Order', s::text) e LIMIT 1) r ON true;
SELECT s, array_agg(version) FROM generate_series(0, 4) s, es_read_stream('Order', s::text, s) r WHERE r.version <> 4 GROUP BY 1 ORDER BY 1;
SELECT s, (SELECT array_agg(version) FROM es_read_stream('Order', '1', backward => s % 2 = 0) WHERE version <= s) FROM generate_series(1, 4) s;
SELECT version FROM es_read_stream('Order', '1', 4) UNION ALL SELECT version FROM es_read_all(:start, 2);
SELECT count(*) FROM es_read_all(:start) a JOIN es_read_all(:start) b USING (aggregate_id) WHERE a.version < b.version;
SELECT count(*) FROM es_read_stream('Order', (SELECT '2')) WHERE version > (SELECT min(version) FROM es_read_stream('Order', '1'));
SET enable_material = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT count(*) FROM es_read_all(:start) a, es_read_all(:start) b WHERE a.version < b.version;
RESET enable_material;
RESET enable_hashjoin;
RESET enable_mergejoin;

-- what the query itself appends is not in its result
SELECT version, (es_append('Order', '1', 'More')).version AS appended FROM es_read_stream('Order', '1');
SELECT count(*) FROM (SELECT es_append('Order', '2', 'More') FROM es_read_all(:start, NULL)) a;
SELECT array_agg(version ORDER BY version) FROM es_read_stream('Order', '2');
-- nor when it is scanned once more
SELECT s, (SELECT count(*) FROM es_read_all(:start, NULL) e WHERE e.version >= s),
    (es_append('Order', '4', 'More')).version FROM generate_series(1, 3) s;

-- prepared statements, generic plans
PREPARE stream(text, bigint) AS SELECT version FROM es_read_stream('Order', $1, $2, 2);
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE stream('3', 2);
EXECUTE stream('3', 2);
EXECUTE stream('3', NULL);
EXECUTE stream(NULL, NULL);
EXECUTE stream('3', -1);
RESET plan_cache_mode;

-- cursors
BEGIN;
DECLARE forth NO SCROLL CURSOR FOR SELECT version FROM es_read_stream('Order', '3');
DECLARE scroll SCROLL CURSOR FOR SELECT version FROM es_read_stream('Order', '3');
DECLARE held CURSOR WITH HOLD FOR SELECT aggregate_id, version FROM es_read_all(:start, NULL);
FETCH 2 FROM forth;
FETCH 3 FROM scroll;
FETCH BACKWARD 2 FROM scroll;
FETCH 1 FROM held;
SELECT version FROM es_append('Order', '3', 'More');
SAVEPOINT before;
FETCH 1 FROM forth;
SELECT 1 / (version - 4) FROM es_read_stream('Order', '3');
ROLLBACK TO before;
FETCH ALL FROM scroll;
COMMIT;
FETCH 2 FROM held;
CLOSE held;
DO $$
DECLARE
    event es_event;
    seen text := '';
BEGIN
    FOR event IN SELECT * FROM es_read_stream('Order', '3', 3) LOOP
        BEGIN
            seen := seen || event.version || ' ' || 1 / (event.version - 4) || '; ';
            PERFORM es_append('Order', '3', 'More');
        EXCEPTION WHEN division_by_zero THEN
            seen := seen || 'x; ';
        END;
    END LOOP;
    RAISE NOTICE '%', seen;
END
$$;

-- views, INSERT ... SELECT, a table with one column more
CREATE VIEW regress_scan.orders AS SELECT aggregate_id, version, e FROM es_read_all(0, NULL) e WHERE global_position > :start;
SELECT aggregate_id, version, (e).event_type FROM regress_scan.orders WHERE version = 5 ORDER BY 1;
INSERT INTO totals SELECT version FROM es_read_stream('Order', '3', 1, 2) RETURNING n;
INSERT INTO regress_scan.events (aggregate_type, aggregate_id, event_type, data)
    SELECT aggregate_type, 'copy', event_type, data FROM es_read_stream('Order', '3', 1, 2) RETURNING version;

-- errors come as from the functions
SELECT * FROM es_read_stream(NULL, '1');
SELECT * FROM es_read_stream('Order', '1', max_count => -1);
SELECT * FROM es_read_all(-1);
SELECT * FROM es_read_all(event_types => '{A,NULL}');
SELECT * FROM es_read_all(store => 'nowhere');

-- privileges: EXECUTE is asked for when the executor starts, SELECT at the first row, of whoever executes
CREATE ROLE regress_scan_reader;
PREPARE one AS SELECT version FROM es_read_stream('Order', '3', max_count => 1, store => 'regress_scan');
EXECUTE one;
SET ROLE regress_scan_reader;
EXECUTE one;
RESET ROLE;
GRANT USAGE ON SCHEMA regress_scan TO regress_scan_reader;
GRANT SELECT ON regress_scan.events TO regress_scan_reader;
SET ROLE regress_scan_reader;
EXECUTE one;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION es_read_stream FROM PUBLIC;
SET ROLE regress_scan_reader;
EXECUTE one;
EXPLAIN EXECUTE one;
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_read_stream TO PUBLIC;
-- a function that runs as its owner is called as before
ALTER FUNCTION es_read_stream SECURITY DEFINER;
EXPLAIN (COSTS OFF) EXECUTE one;
ALTER FUNCTION es_read_stream SECURITY INVOKER;

-- row security; a cursor goes on as the role that it began with
ALTER TABLE regress_scan.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON regress_scan.events USING (version % 2 = 0 AND aggregate_id IN ('1', 'many'));
SELECT count(*) FROM es_append_events('Order', 'many', array_fill('Placed'::text, ARRAY[3000]), array_fill('{}'::jsonb, ARRAY[3000]));
GRANT USAGE ON SCHEMA regress_scan TO PUBLIC;
SET ROLE regress_scan_reader;
SELECT array_agg(version) FROM es_read_stream('Order', '1');
SELECT count(*), count(*) FILTER (WHERE version % 2 = 1) FROM es_read_all(:start, NULL);
DO $$
DECLARE
    reader CURSOR FOR SELECT version FROM es_read_all(0, NULL);
    event_version bigint;
    seen int := 0;
    hidden int := 0;
BEGIN
    OPEN reader;
    FETCH reader INTO event_version;
    RESET ROLE;
    WHILE FOUND LOOP
        seen := seen + 1;
        hidden := hidden + event_version % 2;
        FETCH reader INTO event_version;
    END LOOP;
    RAISE NOTICE '% events, % hidden ones', seen, hidden;
END
$$;

-- whole rows go to the parent as they are stored
CREATE TEMP TABLE copied AS SELECT * FROM es_read_stream('Order', '1');
INSERT INTO copied SELECT * FROM es_read_stream('Order', '1');
SELECT count(*), count(DISTINCT c) FROM copied c;
SELECT count(*) FROM (SELECT DISTINCT * FROM es_read_stream('Order', '1')) e;
SELECT version, x ->> 'version' AS same FROM (SELECT e.version, to_jsonb(e) x FROM (SELECT * FROM es_read_stream('Order', '1') OFFSET 0) e ORDER BY e.data, e.version DESC LIMIT 1) y;
DROP TABLE copied;

-- beside parallel workers, in a session that knows nothing of the store yet
\c -
SET eventsrc.store = 'regress_scan';
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT count(es_state(aggregate_type, aggregate_id)) > 0 AS read FROM regress_scan.streams;
SELECT count(es_state(aggregate_type, aggregate_id)) > 0 AS read FROM regress_scan.streams;

DROP VIEW regress_scan.orders;
SELECT es_drop_store('regress_scan', 'regress_scan');
DROP ROLE regress_scan_reader;
