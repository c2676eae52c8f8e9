-- Upcasters: chains, renames and splits, wherever events are read; never in what is stored.
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT always
SELECT es_create_store('evolving');
SET eventsrc.store = 'evolving';

-- version 1 had a total in cents, 2 a total, 3 an amount with a currency
CREATE FUNCTION cents_to_total(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql
    RETURN jsonb_build_object('total', (event.data ->> 'cents')::numeric / 100);
CREATE FUNCTION total_to_amount(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    IF NOT event.data ? 'total' THEN
        RAISE EXCEPTION 'no total';
    END IF;
    RETURN jsonb_build_object('amount', event.data -> 'total', 'currency', 'EUR');
END $$;
SELECT count(*) FROM es_append_events('Order', '1', '{Placed,Placed,Placed,Other}',
    ARRAY['{"cents": 1250}', '{"total": 3}', '{"amount": 4, "currency": "USD"}', '{"x": 1}']::jsonb[], schema_versions => '{1,2,3,1}');
SELECT version, schema_version, data FROM es_read_stream('Order', '1');
SELECT es_create_upcaster('Placed', 1, 'cents_to_total(es_event)');
SELECT version, schema_version, data FROM es_read_stream('Order', '1');
SELECT es_create_upcaster('Placed', 2, 'total_to_amount(es_event)');
SELECT version, event_type, schema_version, data FROM es_read_stream('Order', '1');
SELECT version, event_type, schema_version, data FROM es_read_stream('Order', '1', backward => true, max_count => 3);
SELECT version, event_type, schema_version, data FROM es_read_all(0) WHERE aggregate_type = 'Order';
SELECT es_state('Order', '1', version => 2), es_state('Order', '1', version => 1, as_of => 'infinity', occurred => true);
-- as stored
SELECT version, schema_version, data FROM evolving.events ORDER BY version;
SET eventsrc.upcast = off;
SELECT version, schema_version, data FROM es_read_stream('Order', '1', max_count => 2);
SELECT es_state('Order', '1', version => 2);
RESET eventsrc.upcast;

-- a type that is renamed, and one that is split
CREATE FUNCTION same(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql RETURN event.data;
CREATE FUNCTION split(event es_event) RETURNS es_event IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    event.event_type := CASE event.data ->> 'what' WHEN 'ship' THEN 'Shipped' ELSE 'Returned' END;
    event.schema_version := 1;
    event.data := event.data - 'what';
    RETURN event;
END $$;
SELECT es_create_upcaster('OrderMoved', 1, 'split(es_event)');
SELECT es_create_upcaster('Returned', 1, 'same(es_event)', 'SentBack');
SELECT count(*) FROM es_append_events('Order', '2', '{OrderMoved,OrderMoved}', ARRAY['{"what": "ship", "to": "Rome"}', '{"what": "back"}']::jsonb[]);
SELECT version, event_type, schema_version, data FROM es_read_stream('Order', '2');
-- the filter by type goes by what is read
SELECT event_type, data FROM es_read_all(0, event_types => '{Shipped}');
SELECT event_type, data FROM es_read_all(0, event_types => '{OrderMoved}');

-- appends look at what is stored
SELECT version FROM es_append('Order', '2', 'Noted', '{}', expected_version => 2);
SELECT es_stream_version('Order', '2');

-- snapshots are of the upcasters they were taken with
SELECT es_create_aggregate('Counted', snapshot_every => 2);
SELECT count(*) FROM es_append_events('Counted', '1', '{Placed,Placed,Placed}', array_fill('{"cents": 100}'::jsonb, '{3}'));
SELECT snapshot_version, state FROM es_explain_state('Counted', '1');
CREATE OR REPLACE FUNCTION cents_to_total(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql
    RETURN jsonb_build_object('total', (event.data ->> 'cents')::numeric / 10);
SELECT snapshot_version, state FROM es_explain_state('Counted', '1');
SELECT es_append('Counted', '1', 'Placed', '{"cents": 100}', schema_version => 1) IS NOT NULL;
SELECT snapshot_version, state FROM es_explain_state('Counted', '1');
SET eventsrc.upcast = off;
SELECT snapshot_version, state FROM es_explain_state('Counted', '1');
RESET eventsrc.upcast;
SELECT es_drop_upcaster('Placed', 2);
SELECT snapshot_version, state FROM es_explain_state('Counted', '1');
SELECT es_create_upcaster('Placed', 2, 'total_to_amount(es_event)');
SELECT snapshot_version, state FROM es_explain_state('Counted', '1');

-- errors name the event
SELECT es_append('Order', '3', 'Placed', '{"oops": 1}', schema_version => 2) IS NOT NULL;
\set VERBOSITY terse
SELECT * FROM es_read_stream('Order', '3');
\set VERBOSITY default
DO $$
DECLARE context text;
BEGIN
    PERFORM * FROM es_read_stream('Order', '3');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RAISE WARNING '%', (regexp_match(context, 'upcaster [^\n]*'))[1];
END $$;

-- all stored events tried; what comes out checked by the last schema
SELECT aggregate_type, aggregate_id, version, event_type, schema_version, error FROM es_check_upcasters();
SELECT es_create_event_type('Placed', 3, '{"properties": {"amount": {"type": "number", "maximum": 11}}}');
SELECT aggregate_type, aggregate_id, version, event_type, schema_version, error FROM es_check_upcasters();

-- loops
CREATE FUNCTION round_and_round(event es_event) RETURNS es_event IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    event.event_type := CASE event.event_type WHEN 'Ping' THEN 'Pong' ELSE 'Ping' END;
    RETURN event;
END $$;
SELECT es_create_upcaster('Ping', 1, 'round_and_round(es_event)');
SELECT es_create_upcaster('Pong', 1, 'round_and_round(es_event)');
SELECT es_append('Game', '1', 'Ping') IS NOT NULL;
SELECT * FROM es_read_stream('Game', '1');
SELECT event_type, error FROM es_check_upcasters() WHERE aggregate_type = 'Game';

-- results that are none, and functions that went away
CREATE FUNCTION nothing_left(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql RETURN NULL::jsonb;
SELECT es_create_upcaster('Ping', 1, 'nothing_left(es_event)');
\set SHOW_CONTEXT never
SELECT * FROM es_read_stream('Game', '1');
DROP FUNCTION nothing_left(es_event);
SELECT * FROM es_read_stream('Game', '1');
CREATE FUNCTION nothing_left(event es_event) RETURNS es_event IMMUTABLE LANGUAGE sql RETURN NULL::es_event;
SELECT * FROM es_read_stream('Game', '1');

-- refused
CREATE FUNCTION two(event es_event, x int) RETURNS jsonb LANGUAGE sql RETURN event.data;
CREATE FUNCTION a_text(event es_event) RETURNS text LANGUAGE sql RETURN '';
SELECT es_create_upcaster('Placed', 4, 'same(es_event)');
SELECT es_create_upcaster('Renamed', 3, 'same(es_event)');
SELECT es_create_upcaster('Renamed', 1, 'same(es_event)');
SELECT es_create_upcaster('Placed', 3, 'same(es_event)', 'Placed');
SELECT es_create_upcaster('Placed', 3, 'split(es_event)', 'Other');
SELECT es_create_upcaster('Placed', 3, 'two(es_event, int)');
SELECT es_create_upcaster('Placed', 3, 'a_text(es_event)');
SELECT es_create_upcaster('Placed', 3, 'same(es_event)');
SELECT es_drop_upcaster('Placed', 2);
\set VERBOSITY sqlstate
SELECT es_create_upcaster('Placed', 0, 'same(es_event)');
SELECT es_create_upcaster('Placed', NULL, 'same(es_event)');
SELECT es_create_upcaster('Placed', 2147483647, 'same(es_event)');
SELECT es_create_upcaster('', 1, 'same(es_event)');
SELECT es_create_upcaster('Placed', 1, NULL);
SELECT es_create_upcaster('Placed', 1, 4294967294);
SELECT es_drop_upcaster('Placed', 9);
SELECT es_check_upcasters('nowhere');

-- the caller needs EXECUTE; the registry is the owner's
CREATE ROLE evolving_reader;
SELECT es_grant('evolving_reader', 'reader');
REVOKE EXECUTE ON FUNCTION cents_to_total(es_event) FROM PUBLIC;
SET ROLE evolving_reader;
SELECT count(*) FROM es_read_stream('Order', '1');
SELECT count(*) FROM es_read_stream('Order', '2');
SELECT es_create_upcaster('Other', 1, 'same(es_event)');
SELECT es_drop_upcaster('Placed', 3);
SELECT es_check_upcasters();
SET eventsrc.upcast = off;
SELECT count(*) FROM es_read_stream('Order', '1');
RESET eventsrc.upcast;
RESET ROLE;

-- under row security the executor reads, and upcasters are applied as well
ALTER TABLE evolving.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_two ON evolving.events USING (aggregate_id = '2');
SET ROLE evolving_reader;
SELECT version, event_type, data FROM es_read_stream('Order', '2');
SELECT event_type FROM es_read_all(0);
RESET ROLE;

DROP OWNED BY evolving_reader;
DROP ROLE evolving_reader;
SELECT es_drop_store('evolving', 'evolving');
DROP FUNCTION cents_to_total(es_event), total_to_amount(es_event), same(es_event), split(es_event),
    round_and_round(es_event), nothing_left(es_event), two(es_event, int), a_text(es_event);
