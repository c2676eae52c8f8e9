-- es_create_aggregate(), es_state(): versions, times, reducers, bad input
SET client_min_messages = warning;
SELECT es_create_store('regress_state');
SET eventsrc.store = 'regress_state';
RESET client_min_messages;

--
-- the built-in merge
--
SELECT version FROM es_append('Order', '1', 'Placed', '{"status": "placed", "total": 99.99, "lines": {"a": 1, "b": 2}}');
SELECT version FROM es_append('Order', '1', 'Noted', '[1, 2, 3]');
SELECT version FROM es_append('Order', '1', 'Repriced', '{"total": 100.00000000000000000001, "lines": {"a": 3}, "note": null}');
SELECT version FROM es_append('Order', '1', 'Noted', '"a text"');
SELECT version FROM es_append('Order', '1', 'Nothing', '{}');
SELECT version FROM es_append('Order', '1', 'Paid', '{"status": "paid", "paid": true, "": "empty key", "tags": []}');
SELECT v, es_state('Order', '1', v) FROM generate_series(1, 6) v;
SELECT es_state('Order', '1');
SELECT es_state('Order', '1') = es_state('Order', '1', 6) AS same;
SELECT state->>'status' AS status, version, snapshot_version, events_replayed, reducer
FROM es_explain_state('Order', '1', version => 3);
SELECT * FROM es_explain_state('Order', 'missing');

-- no such stream, and version 0: no state
SELECT es_state('Order', 'missing') IS NULL, es_state('Order', 'missing', 7) IS NULL,
       es_state('NoType', '1') IS NULL, es_state('Order', '1', 0) IS NULL;

-- the store by name, and drivers' untyped parameters
RESET eventsrc.store;
SELECT es_state('Order', '1', store => 'regress_state') ->> 'status' AS status;
SELECT es_state('Order', '1', '2', NULL, NULL, 'regress_state') ->> 'status' AS status;
SET eventsrc.store = 'regress_state';

-- many keys of many lengths, values of all kinds, through all of jsonb's layouts
DO $$
DECLARE
    model jsonb := '{}';
    piece jsonb;
BEGIN
    FOR i IN 1..60 LOOP
        SELECT jsonb_object_agg(repeat('k', 1 + (j * i) % 11) || (j * i) % 97,
                                CASE j % 6 WHEN 0 THEN to_jsonb(i * j * 1.5)
                                           WHEN 1 THEN to_jsonb(repeat('x', j * i % 300))
                                           WHEN 2 THEN jsonb_build_object('n', i, 'deep', jsonb_build_array(j, 'y'))
                                           WHEN 3 THEN 'null'
                                           WHEN 4 THEN to_jsonb(i % 2 = 0)
                                           ELSE jsonb_build_array(i, j, 10 ^ (j % 40)) END)
        INTO piece FROM generate_series(1, i) j;
        PERFORM es_append('Wide', '1', 'Changed', piece);
        model := model || piece;
        ASSERT es_state('Wide', '1') = model, format('version %s', i);
        ASSERT es_state('Wide', '1')::text = model::text, format('version %s as text', i);
    END LOOP;
    ASSERT (SELECT count(*) FROM jsonb_object_keys(model)) > 64;
END
$$;

-- values that are stored out of line
SELECT version FROM es_append('Big', '1', 'Written', jsonb_build_object('text', repeat('0123456789', 300000), 'n', 1));
SELECT version FROM es_append('Big', '1', 'Changed', '{"n": 2}');
SELECT length(s ->> 'text'), s -> 'n' AS n FROM es_state('Big', '1') s;

--
-- as of a moment
--
SELECT recorded_at AS t1 FROM regress_state.events WHERE aggregate_type = 'Order' AND version = 1 \gset
SELECT recorded_at AS t3 FROM regress_state.events WHERE aggregate_type = 'Order' AND version = 3 \gset
SELECT es_state('Order', '1', as_of => :'t3') = es_state('Order', '1', 3) AS third,
       es_state('Order', '1', as_of => :'t3'::timestamptz - interval '1 microsecond') = es_state('Order', '1', 2) AS second,
       es_state('Order', '1', as_of => :'t1'::timestamptz - interval '1 microsecond') IS NULL AS before,
       es_state('Order', '1', as_of => '-infinity') IS NULL AS never,
       es_state('Order', '1', as_of => 'infinity') = es_state('Order', '1') AS ever,
       es_state('Order', '1', as_of => now() + interval '1 year') = es_state('Order', '1') AS later;
-- both bounds hold
SELECT es_state('Order', '1', 2, :'t3') = es_state('Order', '1', 2) AS by_version,
       es_state('Order', '1', 6, :'t3') = es_state('Order', '1', 3) AS by_time;
SELECT es_state('Order', '1', 7, :'t3');
\echo :LAST_ERROR_SQLSTATE

-- by the time at which things happened
SELECT version FROM es_append('Stock', '7', 'Counted', '{"n": 1, "first": true}', occurred_at => '2024-01-03');
SELECT version FROM es_append('Stock', '7', 'Counted', '{"n": 2}', occurred_at => '2024-01-01');
SELECT version FROM es_append('Stock', '7', 'Counted', '{"n": 3}', occurred_at => '2024-01-02');
SELECT version FROM es_append('Stock', '7', 'Counted', '{"n": 4}', occurred_at => '2024-01-02');
SELECT es_state('Stock', '7') -> 'n' AS recorded;
SELECT d, es_state('Stock', '7', as_of => d, occurred => true) AS state
FROM unnest('{2023-12-31,2024-01-01,2024-01-02,2024-01-03,infinity}'::timestamptz[]) d;
SELECT es_state('Stock', '7', occurred => true) -> 'n' AS happened_last;
SELECT es_state('Stock', '7', 2, occurred => true) AS first_two, es_state('Stock', '7', as_of => '2024-06-01') IS NULL AS not_recorded_yet;
SELECT version, snapshot_version, events_replayed FROM es_explain_state('Stock', '7', as_of => '2024-01-02', occurred => true);
-- an event without such a time happened when it was recorded
SELECT version FROM es_append('Stock', '7', 'Counted', '{"n": 5}');
SELECT es_state('Stock', '7', occurred => true) -> 'n' AS n;
SELECT es_state('Stock', '7', 6, occurred => true);
\echo :LAST_ERROR_SQLSTATE

--
-- reducers
--
CREATE FUNCTION regress_sql_reducer(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql
RETURN state || jsonb_build_object('n', (state ->> 'n')::int + 1, 'last', event.event_type, 'version', event.version);
CREATE FUNCTION regress_plpgsql_reducer(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    IF event.event_type = 'Ignored' THEN
        RETURN state;
    ELSIF event.event_type = 'Broken' THEN
        RAISE EXCEPTION 'cannot digest %', event.data;
    ELSIF event.event_type = 'Nulled' THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_set(state, '{sum}', to_jsonb((state ->> 'sum')::numeric + (event.data ->> 'n')::numeric));
END
$$;
CREATE FUNCTION regress_strict_reducer(INOUT state jsonb, event es_event) STRICT LANGUAGE sql
AS $$ SELECT state || jsonb_build_array(event.version) $$;

SELECT es_create_aggregate('Counter', 'regress_sql_reducer(jsonb,es_event)', '{"n": 0}');
SELECT es_create_aggregate('Sum', 'regress_plpgsql_reducer(jsonb,es_event)', '{"sum": 0}', snapshot_every => 0);
SELECT es_create_aggregate('List', 'regress_strict_reducer', '[]');
SELECT es_create_aggregate('List', 'regress_strict_reducer(jsonb,es_event)', '[]');
SELECT es_create_aggregate('Started', initial => '{"started": true}');
SELECT * FROM regress_state.aggregates ORDER BY 1;

SELECT count(es_append(t, '1', 'Added', jsonb_build_object('n', i)))
FROM unnest('{Counter,Sum,List,Started}'::text[]) t, generate_series(1, 5) i;
SELECT es_state('Counter', '1'), es_state('Sum', '1'), es_state('List', '1'), es_state('Started', '1');
SELECT es_state('Counter', '1', 2), es_state('Sum', '1', 2), es_state('List', '1', 2), es_state('Started', '1', 2);
SELECT version, events_replayed, reducer ~ '^public\.regress_plpgsql_reducer#[0-9a-f]{32}$' AS named
FROM es_explain_state('Sum', '1');
SELECT version FROM es_append('Sum', '1', 'Ignored', '{"n": 1000}');
SELECT es_state('Sum', '1'), es_state('Sum', '1', occurred => true);
-- registering again takes effect at once
SELECT es_create_aggregate('Sum', NULL);
SELECT es_state('Sum', '1');
SELECT es_create_aggregate('Sum', 'regress_plpgsql_reducer(jsonb,es_event)', '{"sum": 10}');
SELECT es_state('Sum', '1');
-- a reducer may ask for states itself
CREATE FUNCTION regress_nested_reducer(state jsonb, event es_event) RETURNS jsonb STABLE LANGUAGE sql
AS $$ SELECT jsonb_build_object('n', es_state('Counter', '1', event.version) -> 'n',
                                'own', es_state('Nested', '1', event.version - 1)) $$;
SELECT es_create_aggregate('Nested', 'regress_nested_reducer(jsonb,es_event)');
SELECT count(es_append('Nested', '1', 'Added')) FROM generate_series(1, 3);
SELECT es_state('Nested', '1');

--
-- errors of reducers tell where
--
SELECT version FROM es_append('Sum', '2', 'Added', '{"n": 1}');
SELECT version FROM es_append('Sum', '2', 'Nulled');
SELECT version FROM es_append('Sum', '3', 'Broken', '{"bad": 1}');
SELECT es_state('Sum', '2');
\echo :LAST_ERROR_SQLSTATE
SELECT es_state('Sum', '3');
SELECT es_state('Sum', '2', 1);
-- dropped under us
DROP FUNCTION regress_strict_reducer(jsonb, es_event);
SELECT es_state('List', '1');
\echo :LAST_ERROR_SQLSTATE

--
-- bad input
--
CREATE PROCEDURE regress_procedure(jsonb, es_event) LANGUAGE sql AS '';
CREATE FUNCTION regress_set(jsonb, es_event) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION regress_text(jsonb, es_event) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
CREATE FUNCTION regress_any(anyelement, es_event) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION regress_record(jsonb, record) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION regress_fold(jsonb, jsonb, es_event) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE AGGREGATE regress_aggregate(jsonb, es_event) (sfunc = regress_fold, stype = jsonb);
SELECT es_create_aggregate('Bad', 'regress_procedure(jsonb,es_event)');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_aggregate('Bad', 'regress_set(jsonb,es_event)');
SELECT es_create_aggregate('Bad', 'regress_text(jsonb,es_event)');
SELECT es_create_aggregate('Bad', 'regress_any(anyelement,es_event)');
SELECT es_create_aggregate('Bad', 'regress_record(jsonb,record)');
SELECT es_create_aggregate('Bad', 'regress_aggregate(jsonb,es_event)');
SELECT es_create_aggregate('Bad', 'regress_fold(jsonb,jsonb,es_event)');
SELECT es_create_aggregate('Bad', 'row_number()');
SELECT es_create_aggregate(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_aggregate('');
SELECT es_create_aggregate('Bad', initial => NULL);
SELECT es_create_aggregate('Bad', initial => '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_aggregate('Bad', initial => 'null');
SELECT es_create_aggregate('Bad', snapshot_every => -1);
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_aggregate('Bad', snapshot_every => NULL);
SELECT es_create_aggregate('Bad', store => 'regress_nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM regress_state.aggregates WHERE aggregate_type = 'Bad';
-- a reducer may start from any JSON, null too
SELECT es_create_aggregate('Counter', 'regress_sql_reducer(jsonb,es_event)', 'null');
SELECT es_state(NULL, '1');
\echo :LAST_ERROR_SQLSTATE
SELECT es_state('Order', NULL);
SELECT es_state('', '1');
SELECT es_state('Order', '');
SELECT es_state('Order', '1', -1);
\echo :LAST_ERROR_SQLSTATE
SELECT es_state('Order', '1', 7);
\echo :LAST_ERROR_SQLSTATE
SELECT es_state('Order', '1', 9223372036854775807);
SELECT es_state('Order', '1', store => 'regress_nowhere');
\echo :LAST_ERROR_SQLSTATE

--
-- privileges and row security
--
CREATE ROLE regress_es_reader;
GRANT USAGE ON SCHEMA regress_state TO regress_es_reader;
SET ROLE regress_es_reader;
SELECT es_state('Order', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT es_create_aggregate('Order', 'regress_sql_reducer(jsonb,es_event)');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT SELECT ON regress_state.events TO regress_es_reader;
REVOKE EXECUTE ON FUNCTION regress_plpgsql_reducer(jsonb, es_event) FROM PUBLIC;
SET ROLE regress_es_reader;
SELECT es_state('Order', '1') ->> 'status' AS status;
SELECT es_state('Sum', '1');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
ALTER TABLE regress_state.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON regress_state.events FOR SELECT TO regress_es_reader
    USING (aggregate_type = 'Order' AND event_type <> 'Repriced' AND version < 6);
SET ROLE regress_es_reader;
SELECT v, es_state('Order', '1', v) FROM generate_series(1, 5) v;
SELECT es_state('Order', '1', 6);
SELECT es_state('Stock', '7') IS NULL, es_state('Stock', '7', 1) IS NULL;
RESET ROLE;

-- a name that needs quoting
SET client_min_messages = warning;
SELECT es_create_store('Regress "state"');
SELECT es_create_aggregate('It''s "quoted"', 'regress_sql_reducer(jsonb,es_event)', '{"n": 0}', 2, store => 'Regress "state"');
SELECT count(es_append('It''s "quoted"', '1', 'Added', store => 'Regress "state"')) FROM generate_series(1, 5);
SELECT state, snapshot_version, events_replayed FROM es_explain_state('It''s "quoted"', '1', store => 'Regress "state"');
SELECT es_drop_store('Regress "state"', 'Regress "state"');
SELECT es_drop_store('regress_state', 'regress_state');
DROP FUNCTION regress_sql_reducer, regress_plpgsql_reducer, regress_nested_reducer, regress_set, regress_text, regress_any, regress_record;
DROP PROCEDURE regress_procedure;
DROP AGGREGATE regress_aggregate(jsonb, es_event);
DROP FUNCTION regress_fold;
DROP ROLE regress_es_reader;
