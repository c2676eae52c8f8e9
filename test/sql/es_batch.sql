-- es_append_batch(), es_close_stream(), and retries without an expected version.
\set SHOW_CONTEXT never
SELECT es_create_store('regress_batch');
SET eventsrc.store = 'regress_batch';

-- many streams at once, one row an entry, positions in the order of the batch
PREPARE batch AS SELECT aggregate_type, aggregate_id, version,
    global_position > coalesce(max(global_position) OVER (ORDER BY ordinality ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS in_order
FROM es_append_batch($1) WITH ORDINALITY ORDER BY ordinality;
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 0,
                 "events": [{"event_type": "OrderPlaced", "data": {"total": 5}}, {"event_type": "OrderPaid"}]},
                {"aggregate_type": "Order", "aggregate_id": "o-1", "events": [{"event_type": "OrderPlaced", "data": [1, {"a": null}]}]},
                {"aggregate_type": "Stock", "aggregate_id": "o-1", "expected_version": null,
                 "events": [{"event_type": "Reserved", "data": "text", "metadata": {"m": 1}, "event_id": "r1",
                             "occurred_at": "2020-02-29T12:00:00+02:00", "schema_version": 3},
                            {"event_type": "Reserved", "data": 1.5, "metadata": null, "event_id": null, "occurred_at": null, "schema_version": null}]}]');
SELECT aggregate_type, aggregate_id, version, event_type, data, metadata, nullif(event_id, 'r1') LIKE '________-____-7___-%' AS uuid,
       schema_version, occurred_at AT TIME ZONE 'UTC' AS occurred_at
FROM es_read_all();
-- checks without events
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 2},
                {"aggregate_type": "Order", "aggregate_id": "o-1", "expected_version": -1, "events": []},
                {"aggregate_type": "Order", "aggregate_id": "none", "expected_version": 0, "events": null},
                {"aggregate_type": "Order", "aggregate_id": "o-3", "expected_version": 0, "events": [{"event_type": "OrderPlaced"}]}]');
-- alone, too
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 2}]');

-- conflicts: nothing is written, no position is taken
SELECT max(global_position) AS before FROM regress_batch.events \gset
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "o-4", "events": [{"event_type": "A"}]},
                {"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 1, "events": [{"event_type": "A"}]}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "o-4", "events": [{"event_type": "A"}]},
                {"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 1}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "none", "expected_version": -1}]');
SELECT es_stream_version('Order', 'o-4');
SELECT global_position - :before AS step FROM es_append('Order', 'o-4', 'A');

-- a batch that is repeated, all its events with ids, gets the first result
SELECT '[{"aggregate_type": "Order", "aggregate_id": "r-1", "expected_version": 0, "events": [{"event_type": "A", "event_id": "1a"}, {"event_type": "B", "event_id": "1b"}]},
         {"aggregate_type": "Order", "aggregate_id": "o-4", "expected_version": 1},
         {"aggregate_type": "Order", "aggregate_id": "r-2", "events": [{"event_type": "A", "event_id": "2a"}]},
         {"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": -1, "events": [{"event_type": "C", "event_id": "3c"}]}]' AS batch \gset
CREATE TEMPORARY TABLE first AS SELECT * FROM es_append_batch(:'batch');
SELECT aggregate_id, version FROM first;
SELECT * FROM es_append_batch(:'batch') EXCEPT TABLE first;
-- also when the streams have moved on
SELECT version FROM es_append_events('Order', 'r-2', '{X,Y}', '{"{}","{}"}');
SELECT version FROM es_append('Order', 'o-4', 'X');
SELECT * FROM es_append_batch(:'batch') EXCEPT TABLE first;
-- but not a part of it among other events
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "r-2", "events": [{"event_type": "A", "event_id": "2a"}]},
                {"aggregate_type": "Order", "aggregate_id": "r-3", "events": [{"event_type": "A", "event_id": "4a"}]}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "r-1", "expected_version": 0, "events": [{"event_type": "A", "event_id": "1a"}]},
                {"aggregate_type": "Order", "aggregate_id": "r-3", "events": [{"event_type": "A"}]}]');
SELECT es_stream_version('Order', 'r-3');

-- more streams than are locked one by one, twice; and what was locked before
BEGIN;
SELECT version FROM es_append('Many', '7', 'Before');
SELECT count(*), sum(version), count(DISTINCT global_position), count(DISTINCT aggregate_id)
FROM es_append_batch((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'Many', 'aggregate_id', n::text, 'events',
                                                         jsonb_build_array(jsonb_build_object('event_type', 'A')))) FROM generate_series(1, 1500) n));
SELECT count(*), sum(version)
FROM es_append_batch((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'Many', 'aggregate_id', n::text, 'expected_version', -1, 'events',
                                                         jsonb_build_array(jsonb_build_object('event_type', 'B')))) FROM generate_series(1500, 1, -1) n));
SELECT count(*) < 700 AS few_locks FROM pg_locks WHERE locktype = 'advisory' AND objsubid = -6911;
COMMIT;
SELECT count(*), sum(version) FROM regress_batch.events WHERE aggregate_type = 'Many';

-- what the executor must do: the same
CREATE FUNCTION regress_batch_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_type = 'Unwanted' THEN RETURN NULL; END IF;
    IF NEW.event_type = 'Bad' THEN RAISE EXCEPTION 'bad event'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON regress_batch.events FOR EACH ROW EXECUTE FUNCTION regress_batch_refuse();
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "t-1", "expected_version": 0, "events": [{"event_type": "A", "event_id": "t1"}, {"event_type": "B", "event_id": "t2"}]},
                {"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 3},
                {"aggregate_type": "Order", "aggregate_id": "t-2", "events": [{"event_type": "A", "event_id": "t3"}]}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "t-1", "expected_version": 0, "events": [{"event_type": "A", "event_id": "t1"}, {"event_type": "B", "event_id": "t2"}]},
                {"aggregate_type": "Order", "aggregate_id": "o-2", "expected_version": 3},
                {"aggregate_type": "Order", "aggregate_id": "t-2", "events": [{"event_type": "A", "event_id": "t3"}]}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "t-3", "events": [{"event_type": "A"}]},
                {"aggregate_type": "Order", "aggregate_id": "t-1", "expected_version": 1, "events": [{"event_type": "C"}]}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "t-3", "events": [{"event_type": "A"}]},
                {"aggregate_type": "Order", "aggregate_id": "t-1", "events": [{"event_type": "C"}, {"event_type": "Unwanted"}]}]');
DO $$
DECLARE context text;
BEGIN
    PERFORM es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "t-3", "events": [{"event_type": "A"}]},
                              {"aggregate_type": "Order", "aggregate_id": "t-1", "events": [{"event_type": "Bad"}]}]');
EXCEPTION WHEN raise_exception THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RAISE NOTICE '%', substring(context, 'entry \d+ of the batch');
END $$;
SELECT es_stream_version('Order', 't-3'), es_stream_version('Order', 't-1'), es_stream_version('Order', 't-2');
SELECT version FROM es_append('Order', 't-1', 'C', event_id => 'c1');
SELECT version FROM es_append('Order', 't-1', 'C', event_id => 'c1');
SELECT version FROM es_close_stream('Order', 't-1', 'by the executor', 3);
SELECT version, event_type, data FROM es_read_stream('Order', 't-1', 4);
\set VERBOSITY sqlstate
SELECT es_append('Order', 't-1', 'D');
SELECT es_close_stream('Order', 't-1');
\set VERBOSITY default
DROP TRIGGER refuse ON regress_batch.events;
DROP FUNCTION regress_batch_refuse();

-- a trigger that appends to a stream that the batch is yet to come to
CREATE FUNCTION regress_batch_react() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('Order', 'u-2', 'Reaction', store => 'regress_batch');
    RETURN NULL;
END $$;
CREATE TRIGGER react AFTER INSERT ON regress_batch.events FOR EACH ROW WHEN (NEW.event_type = 'Action') EXECUTE FUNCTION regress_batch_react();
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "u-1", "events": [{"event_type": "Action"}]},
                {"aggregate_type": "Order", "aggregate_id": "u-2", "events": [{"event_type": "A"}]}]');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "u-1", "events": [{"event_type": "Action"}]},
                {"aggregate_type": "Order", "aggregate_id": "u-2", "expected_version": 2, "events": [{"event_type": "A"}]}]');
SELECT aggregate_id, version, event_type FROM es_read_all(max_count => NULL) WHERE aggregate_id LIKE 'u-_';
-- and one that appends to the stream that is being closed
DROP TRIGGER react ON regress_batch.events;
CREATE TRIGGER react AFTER INSERT ON regress_batch.events FOR EACH ROW WHEN (NEW.event_type = 'StreamClosed') EXECUTE FUNCTION regress_batch_react();
\set VERBOSITY sqlstate
SELECT es_close_stream('Order', 'u-2');
\set VERBOSITY default
SELECT closed FROM regress_batch.streams WHERE aggregate_id = 'u-2';
DROP TRIGGER react ON regress_batch.events;
DROP FUNCTION regress_batch_react();

-- retries without an expected version: among the stream's last events
SELECT version FROM es_append('Order', 'w', 'A', event_id => 'w1');
SELECT version FROM es_append('Order', 'w', 'A', event_id => 'w1');
SELECT version FROM es_append('Order', 'w', 'A', event_id => 'w1', expected_version => -1);
SELECT version FROM es_append('Order', 'w', 'B', event_id => 'w1');
SELECT version FROM es_append('Order', 'w2', 'A', event_id => 'w1');
SELECT version FROM es_append('Order', 'w3', 'A', event_id => 'w1', expected_version => -1);
SELECT version FROM es_append_events('Order', 'w', '{C,D,E}', '{"{}","{}","{}"}', event_ids => '{w3,w4,w5}');
SELECT version FROM es_append_events('Order', 'w', '{C,D,E}', '{"{}","{}","{}"}', event_ids => '{w3,w4,w5}');
-- the run as it was, not a part of it, nor in another order; but any run that is there
SELECT version FROM es_append_events('Order', 'w', '{D,E,F}', '{"{}","{}","{}"}', event_ids => '{w4,w5,w6}');
SELECT version FROM es_append_events('Order', 'w', '{D,C}', '{"{}","{}"}', event_ids => '{w4,w3}');
SELECT version FROM es_append_events('Order', 'w', '{C,D}', '{"{}","{}"}', event_ids => '{w3,w4}', expected_version => -1);
SELECT version FROM es_append_events('Order', 'w', '{C,D}', '{"{}","{}"}');
SELECT string_agg(event_type, '' ORDER BY version) FROM es_read_stream('Order', 'w');
-- 100 events back it is found, one more it is new
SELECT version FROM es_append('Order', 'far', 'A', event_id => 'f0');
SELECT version FROM es_append_events('Order', 'far', '{A,A}', '{"{}","{}"}', event_ids => '{f1,f2}');
SELECT (es_append_events('Order', 'far', array_agg('X'::text), array_agg('{}'::jsonb))).version FROM generate_series(1, 98);
SELECT version FROM es_append_events('Order', 'far', '{A,A}', '{"{}","{}"}', event_ids => '{f1,f2}');
SELECT version FROM es_append('Order', 'far', 'A', event_id => 'f0');
SELECT version FROM es_append_events('Order', 'far', '{A,A}', '{"{}","{}"}', event_ids => '{f1,f2}');
-- an append of more than that is found if it was the last
SELECT (es_append_events('Order', 'long', array_agg('X'::text), array_agg('{}'::jsonb), event_ids => array_agg('l' || n))).version FROM generate_series(1, 150) n;
SELECT (es_append_events('Order', 'long', array_agg('X'::text), array_agg('{}'::jsonb), event_ids => array_agg('l' || n))).version FROM generate_series(1, 150) n;
SELECT version FROM es_append('Order', 'long', 'Y');
SELECT (es_append_events('Order', 'long', array_agg('X'::text), array_agg('{}'::jsonb), event_ids => array_agg('l' || n))).version FROM generate_series(1, 150) n;

-- closing a stream
SELECT version FROM es_append_events('Order', 'c-1', '{A,StreamClosed}', '{"{}","{}"}', event_ids => '{c1,c2}');
SELECT version FROM es_append('Order', 'c-1', 'B', event_id => 'c3');
SELECT es_close_stream('Order', 'c-1', expected_version => 2);
SELECT es_close_stream('Order', 'nothing');
SELECT es_close_stream('Order', 'nothing', expected_version => 0);
SELECT es_close_stream('Order', 'nothing', expected_version => 1);
SELECT es_close_stream('Order', 'c-1', expected_version => -2);
BEGIN;
SELECT version FROM es_close_stream('Order', 'c-1');
ROLLBACK;
SELECT version FROM es_append('Order', 'c-1', 'StreamClosed', '{"by": "hand"}');
BEGIN;
SAVEPOINT s;
SELECT version FROM es_close_stream('Order', 'c-1');
ROLLBACK TO s;
SELECT version FROM es_close_stream('Order', 'c-1', 'moved to c-2', 4);
COMMIT;
SELECT closed FROM regress_batch.streams WHERE aggregate_id = 'c-1';
SELECT version, event_type, data FROM es_read_stream('Order', 'c-1');
SELECT es_state('Order', 'c-1');
-- begun and closed by one statement
SELECT b.version FROM es_append('Order', 'c-3', 'A') a, es_close_stream('Order', 'c-3', '', a.version) b;
-- refused on every way; a retry of what went before is not
CREATE FUNCTION closed(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; detail text; hint text; message text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n  ', state || ' ' || message, nullif(regexp_replace(detail, '\d{4}-\d\d-\d\d [0-9:.]+[+-]\d+', 'TIME'), ''), hint);
END $$;
\pset tuples_only on
\pset format unaligned
SELECT closed(statement) FROM unnest(ARRAY[
    $$SELECT es_append('Order', 'c-1', 'X')$$,
    $$SELECT es_append('Order', 'c-1', 'X', expected_version => 5)$$,
    $$SELECT es_append('Order', 'c-1', 'X', expected_version => 1)$$,
    $$SELECT es_append('Order', 'c-1', 'X', event_id => 'new')$$,
    $$SELECT es_append_events('Order', 'c-1', '{X}', '{"{}"}')$$,
    $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "c-2", "events": [{"event_type": "X"}]},
                               {"aggregate_type": "Order", "aggregate_id": "c-1", "events": [{"event_type": "X"}]}]')$$,
    $$SELECT es_close_stream('Order', 'c-1')$$,
    $$INSERT INTO regress_batch.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'c-1', 'X', '{}')$$,
    $$INSERT INTO regress_batch.events (aggregate_type, aggregate_id, event_type, data, version) VALUES ('Order', 'c-1', 'X', '{}', 6)$$,
    $$SET LOCAL session_replication_role = replica;
      INSERT INTO regress_batch.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'c-1', 'X', '{}')$$]) statement;
\pset tuples_only off
\pset format aligned
\set VERBOSITY sqlstate
COPY regress_batch.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	c-2	X	{}
Order	c-1	X	{}
\.
\set VERBOSITY default
SELECT es_stream_version('Order', 'c-1'), es_stream_version('Order', 'c-2');
SELECT version FROM es_append('Order', 'c-1', 'B', event_id => 'c3');
SELECT version FROM es_append_events('Order', 'c-1', '{A,StreamClosed}', '{"{}","{}"}', 0, event_ids => '{c1,c2}');
EXECUTE batch('[{"aggregate_type": "Order", "aggregate_id": "c-1", "expected_version": 5}]');
-- the mark alone counts: who may write "streams" can open a stream again
UPDATE regress_batch.streams SET closed = false WHERE aggregate_id = 'c-1';
SELECT version FROM es_append('Order', 'c-1', 'Reopened');
SELECT version FROM es_close_stream('Order', 'c-1');

-- bad input
\pset tuples_only on
\pset format unaligned
SELECT closed(format('SELECT es_append_batch(%L)', batch)) FROM unnest(ARRAY[NULL, 'null', '7', '{}', '[]', '[1]', '[null]', '[[]]', '[{}]',
    '[{"aggregate_type": "T"}]', '[{"aggregate_type": "T", "aggregate_id": "1"}]', '[{"aggregate_type": "T", "aggregate_id": "1", "events": []}]',
    '[{"aggregate_type": 1}]', '[{"aggregate_type": null}]', '[{"aggregate_type": ""}]', '[{"aggregate_type": "T", "aggregate_id": ""}]',
    '[{"aggregate_type": "T", "aggregate_id": {}}]', '[{"aggregate_type": "T", "id": "1"}]',
    '[{"aggregate_type": "T", "aggregate_id": "1", "expected_version": "1"}]', '[{"aggregate_type": "T", "aggregate_id": "1", "expected_version": 1.5}]',
    '[{"aggregate_type": "T", "aggregate_id": "1", "expected_version": 1e30}]', '[{"aggregate_type": "T", "aggregate_id": "1", "expected_version": -2}]',
    '[{"aggregate_type": "T", "aggregate_id": "1", "events": {}}]', '[{"aggregate_type": "T", "aggregate_id": "1", "events": "x"}]']) batch;
SELECT closed(format($$SELECT es_append_batch('[{"aggregate_type": "T", "aggregate_id": "0", "events": [{"event_type": "E"}]},
    {"aggregate_type": "T", "aggregate_id": "1", "events": [{"event_type": "E"}, %s]}]')$$, event)) FROM unnest(ARRAY['1', 'null', '[]', '{}',
    '{"event_type": null}', '{"event_type": ""}', '{"event_type": 1}', '{"event_type": "E", "data": null}', '{"event_type": "E", "payload": {}}',
    '{"event_type": "E", "event_id": ""}', '{"event_type": "E", "event_id": 7}', '{"event_type": "E", "occurred_at": 7}',
    '{"event_type": "E", "occurred_at": "soon"}', '{"event_type": "E", "occurred_at": "2020-02-30"}', '{"event_type": "E", "occurred_at": "400000-01-01"}',
    '{"event_type": "E", "schema_version": 0}', '{"event_type": "E", "schema_version": 3000000000}', '{"event_type": "E", "schema_version": "1"}']) event;
SELECT closed(format('SELECT es_append_batch(%L)', jsonb_build_array(jsonb_build_object('aggregate_type', repeat('t', 257)))));
SELECT closed($$SELECT es_append_batch('[{"aggregate_type": "T", "aggregate_id": "1", "expected_version": 0}, {"aggregate_type": "T", "aggregate_id": "2", "expected_version": 0},
    {"aggregate_type": "T", "aggregate_id": "1", "events": [{"event_type": "E"}]}]')$$);
SELECT closed($$SELECT es_append_batch('[]', 'none')$$);
SELECT closed($$SELECT es_append_batch('[{"aggregate_type": "T", "aggregate_id": "1", "expected_version": 0}]', 'none')$$);
SELECT closed($$SET LOCAL transaction_read_only = on; SELECT es_append_batch('[]')$$);
SELECT closed($$SET LOCAL transaction_read_only = on; SELECT es_close_stream('Order', 'w')$$);
SELECT closed(format('SELECT es_close_stream(%s)', arguments)) FROM unnest(ARRAY[$$NULL, '1'$$, $$'T', NULL$$, $$'', '1'$$, $$'T', ''$$]) arguments;

\pset tuples_only off
\pset format aligned

-- versions are dense, positions ascend with them
SELECT count(*) AS wrong FROM (
    SELECT version, row_number() OVER w AS n, global_position, lag(global_position) OVER w AS before, recorded_at, lag(recorded_at) OVER w AS earlier
    FROM regress_batch.events WINDOW w AS (PARTITION BY aggregate_type, aggregate_id ORDER BY version)) v
WHERE version <> n OR global_position <= before OR recorded_at < earlier;
SELECT count(*) AS wrong FROM regress_batch.streams s FULL JOIN (SELECT DISTINCT aggregate_type, aggregate_id FROM regress_batch.events) e
    USING (aggregate_type, aggregate_id) WHERE s.first_partition IS NULL OR e IS NULL;

DROP FUNCTION closed;
SELECT es_drop_store('regress_batch', 'regress_batch');
