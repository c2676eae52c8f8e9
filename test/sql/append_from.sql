-- es_append() and es_append_events() in FROM: a custom scan, which answers as the functions do.
\set SHOW_CONTEXT never
SELECT es_create_store('regress_from');
SET eventsrc.store = 'regress_from';

-- plans
EXPLAIN (COSTS OFF) SELECT version FROM es_append('Order', '1', 'Placed');
EXPLAIN (COSTS OFF, VERBOSE) SELECT a, version FROM es_append_events('Order', '1', '{Placed,Paid}', '{"{}","{}"}') a;
EXPLAIN (COSTS OFF) SELECT s, a.version FROM generate_series(1, 3) s, es_append('Order', s::text, 'Placed') a;
-- the function scan remains: several functions, ordinality, subqueries that refer to the query, rows that may be looked at once more
EXPLAIN (COSTS OFF) SELECT * FROM ROWS FROM (es_append('Order', '1', 'Placed'), es_append('Order', '2', 'Placed')) r;
EXPLAIN (COSTS OFF) SELECT * FROM es_append('Order', '1', 'Placed') WITH ORDINALITY;
EXPLAIN (COSTS OFF) SELECT a.version FROM generate_series(1, 3) s, es_append('Order', (SELECT max(o)::text FROM generate_series(1, s) o), 'Placed') a;
CREATE TEMPORARY TABLE totals (n bigint);
INSERT INTO totals VALUES (0);
EXPLAIN (COSTS OFF) UPDATE totals SET n = a.version FROM es_append('Order', '1', 'Placed') a;
-- nothing was appended so far
SELECT count(*) FROM regress_from.events;

-- results: columns in any order and number, the row, conditions, none of them
SELECT version FROM es_append('Order', '1', 'Placed');
SELECT global_position > es_safe_position() AS not_safe_yet, version FROM es_append('Order', '1', 'Paid', expected_version => 1);
SELECT (a).version, version + 1 AS next, pg_typeof(a), to_jsonb(a) ->> 'version' AS inside FROM es_append('Order', '1', 'Sent') a;
SELECT a IS NULL AS is_null, a.* IS NOT NULL AS not_null FROM es_append('Order', '1', 'Sent') a;
SELECT 'nothing of it' AS what FROM es_append('Order', '1', 'Sent');
SELECT count(*) FROM es_append('Order', '1', 'Sent');
SELECT version FROM es_append('Order', '1', 'Sent') WHERE version < 7;
SELECT p > v AS beyond, v FROM es_append('Order', '1', 'Sent') a (v, p);
SELECT version FROM es_append_events('Order', '1', '{Sent,Arrived}', '{"{}","{}"}', 8);
SELECT es_stream_version('Order', '1');
-- once a row of what it depends on, and once where it depends on nothing
SELECT s, array_agg(version) FROM generate_series(1, 3) s, es_append('Order', '1' || s % 2, 'Placed') GROUP BY 1 ORDER BY 1;
SET enable_material = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT s, a.version FROM generate_series(1, 3) s LEFT JOIN es_append('Order', 'once', 'Placed') a ON a.version < s ORDER BY 1;
RESET enable_material;
RESET enable_hashjoin;
RESET enable_mergejoin;
SELECT s, (SELECT version FROM es_append('Order', 'inner', 'Placed') WHERE version <= s) FROM generate_series(1, 2) s;
SELECT s, (SELECT version FROM es_append('Order', 'inner', 'Placed', metadata => jsonb_build_object('s', s))) FROM generate_series(1, 2) s;
SELECT version FROM es_append('Order', (SELECT min(o)::text FROM generate_series(20, 22) o), 'Placed');
WITH a AS (SELECT * FROM es_append('Order', 'with', 'Placed')) SELECT x.version, y.version FROM a x, a y;
WITH a AS (SELECT * FROM es_append('Order', 'unread', 'Placed')) SELECT 1;
SELECT version FROM es_append('Order', 'unread', 'Placed') LIMIT 0;
SELECT version FROM es_append('Order', 'unread', 'Placed') WHERE false;
SELECT es_stream_version('Order', 'once'), es_stream_version('Order', 'inner'), es_stream_version('Order', 'with'),
    es_stream_version('Order', 'unread');
INSERT INTO totals SELECT version FROM es_append('Order', 'once', 'Placed', expected_version => 1) RETURNING n;
UPDATE totals SET n = a.version FROM es_append('Order', 'once', 'Placed') a WHERE n = 2 RETURNING n;

-- prepared statements, generic plans
PREPARE append(text, bigint) AS SELECT version FROM es_append('Order', $1, 'Placed', expected_version => $2);
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE append('3', 0);
EXECUTE append('3', 0);
EXECUTE append('3', NULL);
EXECUTE append('3', 0);
EXECUTE append(NULL, NULL);
EXECUTE append('3', 2);
RESET plan_cache_mode;

-- cursors: appended when the first row is fetched, once; back and forth
BEGIN;
DECLARE scroll SCROLL CURSOR FOR SELECT version FROM es_append('Order', '4', 'Placed');
DECLARE plain CURSOR FOR SELECT version FROM es_append('Order', '5', 'Placed');
DECLARE held CURSOR WITH HOLD FOR SELECT version FROM es_append('Order', '6', 'Placed');
SELECT es_stream_version('Order', '4'), es_stream_version('Order', '5'), es_stream_version('Order', '6');
FETCH 1 FROM scroll;
FETCH 1 FROM scroll;
FETCH BACKWARD 1 FROM scroll;
FETCH BACKWARD 1 FROM scroll;
FETCH FORWARD 2 FROM scroll;
FETCH FIRST FROM scroll;
FETCH 2 FROM plain;
FETCH PRIOR FROM plain;
COMMIT;
FETCH ALL FROM held;
SELECT es_stream_version('Order', '4'), es_stream_version('Order', '5'), es_stream_version('Order', '6');
CLOSE held;
DO $$
DECLARE
    appended record;
    seen text := '';
BEGIN
    FOR i IN 1 .. 3 LOOP
        SELECT * INTO STRICT appended FROM es_append('Order', '7', 'Placed', expected_version => i - 1);
        BEGIN
            PERFORM * FROM es_append('Order', '7', 'Placed', expected_version => 5);
        EXCEPTION WHEN SQLSTATE 'VE001' THEN
            seen := seen || appended.version || ' ';
        END;
    END LOOP;
    RAISE NOTICE '%', seen;
END
$$;

-- errors come as from the functions
SELECT * FROM es_append(NULL, '1', 'Placed');
SELECT * FROM es_append('Order', '1', 'Placed', 'null');
SELECT * FROM es_append('Order', '1', 'Placed', expected_version => 3);
SELECT * FROM es_append('Order', '1', 'Placed', store => 'nowhere');
BEGIN READ ONLY;
SELECT * FROM es_append('Order', '1', 'Placed');
ROLLBACK;

-- a view; calls are counted where they are to be
CREATE VIEW regress_from.appended AS SELECT version FROM es_append('Order', 'view', 'Placed');
SELECT version FROM regress_from.appended;
SELECT version FROM regress_from.appended;
BEGIN;
SET LOCAL track_functions = 'all';
SELECT version FROM es_append('Order', 'counted', 'Placed');
SELECT pg_stat_get_xact_function_calls('es_append'::regproc) AS calls;
ROLLBACK;

-- privileges: EXECUTE is asked for when the executor starts, INSERT of whoever executes
CREATE ROLE regress_from_writer;
PREPARE one AS SELECT version FROM es_append('Order', 'one', 'Placed', store => 'regress_from');
EXECUTE one;
SET ROLE regress_from_writer;
EXECUTE one;
RESET ROLE;
GRANT USAGE ON SCHEMA regress_from TO regress_from_writer;
GRANT INSERT ON regress_from.events TO regress_from_writer;
SET ROLE regress_from_writer;
EXECUTE one;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION es_append FROM PUBLIC;
SET ROLE regress_from_writer;
EXECUTE one;
EXPLAIN EXECUTE one;
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_append TO PUBLIC;
-- functions that are not as they were made are called as before
EXPLAIN (COSTS OFF) EXECUTE one;
ALTER FUNCTION es_append SECURITY DEFINER;
EXPLAIN (COSTS OFF) EXECUTE one;
ALTER FUNCTION es_append SECURITY INVOKER STRICT;
EXPLAIN (COSTS OFF) EXECUTE one;
EXECUTE one;
ALTER FUNCTION es_append CALLED ON NULL INPUT SET work_mem = '1MB';
EXPLAIN (COSTS OFF) EXECUTE one;
ALTER FUNCTION es_append RESET ALL;
EXPLAIN (COSTS OFF) EXECUTE one;
EXECUTE one;

-- row security: by the executor
ALTER TABLE regress_from.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON regress_from.events USING (aggregate_id = 'mine');
SET ROLE regress_from_writer;
SELECT version FROM es_append('Order', 'mine', 'Placed', store => 'regress_from');
SELECT version FROM es_append('Order', 'other', 'Placed', store => 'regress_from');
RESET ROLE;

DROP VIEW regress_from.appended;
SELECT es_drop_store('regress_from', 'regress_from');
DROP ROLE regress_from_writer;
