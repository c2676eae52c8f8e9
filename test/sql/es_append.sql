-- es_append(), es_append_events(), INSERT and COPY: versions, conflicts, retries, context, bad input.
\set SHOW_CONTEXT never
SELECT es_create_store('regress_append');
SET eventsrc.store = 'regress_append';

-- drivers send untyped parameters
PREPARE append AS SELECT version FROM es_append($1, $2, $3, $4);
EXECUTE append('Order', 'o-1', 'OrderPlaced', '{"total": 99.99}');
SELECT version FROM es_append('Order', 'o-1', 'OrderPaid', '{}');

-- expected versions
SELECT version FROM es_append('Order', 'o-1', 'OrderShipped', '{}', 2);
SELECT version FROM es_append('Order', 'o-1', 'OrderShipped', '{}', 2);
SELECT version FROM es_append('Order', 'o-1', 'OrderShipped', '{}', 7);
SELECT version FROM es_append('Order', 'o-1', 'OrderShipped', '{}', 0);
SELECT version FROM es_append('Order', 'o-2', 'OrderPlaced', '{}', -1);
SELECT version FROM es_append('Order', 'o-2', 'OrderPlaced', '{}', 0);
SELECT version FROM es_append('Order', 'o-2', 'OrderPaid', '{}', -1);
SELECT version FROM es_append('Order', 'o-2', 'OrderPaid', '{}', -2);
-- what a driver sees
DO $$
DECLARE state text; detail text; hint text; schema text; tab text; msg text;
BEGIN
    PERFORM es_append('Order', 'o-1', 'OrderShipped', '{}', 1);
EXCEPTION WHEN SQLSTATE 'VE001' THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, msg = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT, schema = SCHEMA_NAME, tab = TABLE_NAME;
    RAISE NOTICE E'%\n%\n%\n%\n%.%', state, msg, detail, hint, schema, tab;
END $$;

-- a conflict burns no position
SELECT max(global_position) AS before FROM regress_append.events \gset
SELECT version FROM es_append('Order', 'o-1', 'X', '{}', 1);
SELECT global_position - :before AS step FROM es_append('Order', 'o-1', 'OrderDelivered');

-- many events
SELECT version FROM es_append_events('Order', 'o-3', ARRAY['A', 'B', 'C'], ARRAY['{"a":1}', '{"b":2}', '{"c":3}']::jsonb[], 0);
SELECT version FROM es_append_events('Order', 'o-3', ARRAY['D'], ARRAY['{}']::jsonb[], 0);
SELECT version FROM es_append_events('Order', 'o-3', ARRAY['D', 'E'], ARRAY['{}', '{}']::jsonb[], 3,
    metadata => ARRAY['{"m":1}', NULL]::jsonb[], event_ids => ARRAY['d', 'e'],
    occurred_at => ARRAY['2020-01-01 00:00+00', NULL]::timestamptz[], schema_versions => ARRAY[2, NULL]);
SELECT version, event_type, data, metadata, event_id LIKE '________-____-7___-____-____________' AS uuid, schema_version,
       occurred_at = '2020-01-01 00:00+00' AS occurred
FROM es_read_stream('Order', 'o-3');
-- positions of one append are consecutive
SELECT max(global_position) - min(global_position) AS span FROM es_read_stream('Order', 'o-3', 1, 3);
-- more than are written at a time
SELECT (es_append_events('Order', 'many', array_agg('E' || n::text), array_agg(jsonb_build_object('n', n)))).version
FROM generate_series(1, 2500) n;
SELECT count(*), min(version), max(version), count(DISTINCT event_id), bool_and(data->>'n' = version::text) AS right_data,
       bool_and(event_type = 'E' || version) AS right_type
FROM es_read_stream('Order', 'many');

-- a retry with the same ids at the same expected version gets the first result
SELECT version, global_position FROM es_append_events('Order', 'o-4', ARRAY['A', 'B'], ARRAY['{}', '{}']::jsonb[], 0, event_ids => ARRAY['x1', 'x2']) \gset first_
SELECT version, global_position = :first_global_position AS same FROM es_append_events('Order', 'o-4', ARRAY['A', 'B'], ARRAY['{}', '{}']::jsonb[], 0, event_ids => ARRAY['x1', 'x2']);
SELECT version FROM es_append('Order', 'o-4', 'C', '{}', 2, event_id => 'x3');
SELECT version FROM es_append('Order', 'o-4', 'C', '{}', 2, event_id => 'x3');
SELECT version, global_position = :first_global_position AS same FROM es_append_events('Order', 'o-4', ARRAY['A', 'B'], ARRAY['{}', '{}']::jsonb[], 0, event_ids => ARRAY['x1', 'x2']);
SELECT version FROM es_append('Order', 'o-4', 'C', '{}', 2, event_id => 'x4');
SELECT version FROM es_append('Order', 'o-4', 'Other', '{}', 2, event_id => 'x3');
SELECT version FROM es_append_events('Order', 'o-4', ARRAY['A', 'B', 'C', 'D'], ARRAY['{}', '{}', '{}', '{}']::jsonb[], 0, event_ids => ARRAY['x1', 'x2', 'x3', 'x4']);
SELECT count(*) FROM es_read_stream('Order', 'o-4');

-- context
SELECT user_id = session_user AS session_user, correlation_id, causation_id, traceparent FROM es_read_stream('Order', 'o-4', 1, 1);
BEGIN;
SELECT es_set_context(user_id => 'alice', correlation_id => 'c-1');
SELECT version FROM es_append('Order', 'o-5', 'A');
SELECT es_set_context(traceparent => '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', causation_id => 'command-7');
SELECT version FROM es_append('Order', 'o-5', 'B');
SELECT es_set_context(correlation_id => '');
SELECT version FROM es_append('Order', 'o-5', 'C');
COMMIT;
SELECT version FROM es_append('Order', 'o-5', 'D');
BEGIN;
SELECT es_caused_by(e) FROM es_read_stream('Order', 'o-5', 1, 1) e;
SELECT version FROM es_append('Order', 'o-5', 'E');
SELECT es_caused_by(e) FROM es_read_stream('Order', 'o-5', 4, 1) e;
SELECT version FROM es_append('Order', 'o-5', 'F');
COMMIT;
SELECT version, user_id = session_user AS su, nullif(user_id, session_user) AS user_id, traceparent,
       CASE WHEN causation_id = first.event_id THEN 'first' WHEN causation_id = fourth.event_id THEN 'fourth' ELSE causation_id END AS causation,
       CASE WHEN e.correlation_id = fourth.event_id THEN 'fourth' ELSE e.correlation_id END AS correlation
FROM es_read_stream('Order', 'o-5') e, LATERAL (SELECT event_id FROM es_read_stream('Order', 'o-5', 1, 1)) first,
     LATERAL (SELECT event_id FROM es_read_stream('Order', 'o-5', 4, 1)) fourth;

-- several appends in one statement, and in one transaction with savepoints
SELECT g, version FROM generate_series(1, 3) g, es_append('Order', 'o-6', 'N' || g);
BEGIN;
SELECT version FROM es_append('Order', 'o-6', 'Kept', '{}', 3);
SAVEPOINT s;
SELECT version FROM es_append('Order', 'o-6', 'Gone', '{}', 4);
ROLLBACK TO s;
SELECT version FROM es_append('Order', 'o-6', 'Kept', '{}', 4);
COMMIT;
SELECT version, event_type FROM es_read_stream('Order', 'o-6', 4);

-- INSERT and COPY are appends too
INSERT INTO regress_append.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'o-7', 'A', '{}'), ('Order', 'o-7', 'B', '{}') RETURNING version;
INSERT INTO regress_append.events (aggregate_type, aggregate_id, version, event_type, data, user_id) VALUES ('Order', 'o-7', 3, 'C', '{}', 'bob') RETURNING version, user_id;
INSERT INTO regress_append.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'o-7', 3, 'D', '{}');
INSERT INTO regress_append.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'o-7', 9, 'D', '{}');
INSERT INTO regress_append.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'o-7', 0, 'D', '{}');
INSERT INTO regress_append.events (aggregate_type, aggregate_id, event_type, data, recorded_at) VALUES ('Order', 'o-7', 'D', '{}', '2020-01-01');
INSERT INTO regress_append.events (aggregate_type, aggregate_id, event_type, data, recorded_at) VALUES ('Order', 'o-7', 'D', '{}', now() - interval '1 second');
INSERT INTO regress_append.events (aggregate_id, event_type, data) VALUES ('o-7', 'D', '{}');
\set VERBOSITY sqlstate
INSERT INTO regress_append.events (aggregate_type, aggregate_id, event_type) VALUES ('Order', 'o-7', 'D');
\set VERBOSITY default
COPY regress_append.events (aggregate_type, aggregate_id, version, event_type, data) FROM stdin;
Order	o-7	4	D	{"n": 4}
Order	o-8	1	A	{"n": 1}
Order	o-7	5	E	{"n": 5}
\.
COPY regress_append.events (aggregate_type, aggregate_id, version, event_type, data) FROM stdin;
Order	o-7	6	F	{}
Order	o-8	1	A	{}
\.
SELECT aggregate_id, version, event_type, data FROM es_read_all(event_types => '{D,E,F,A}') WHERE aggregate_id IN ('o-7', 'o-8') ORDER BY 1, 2;
SET session_replication_role = replica;
INSERT INTO regress_append.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'o-7', 2, 'X', '{}');
RESET session_replication_role;
-- refused by the storage (the message names the month)
\set VERBOSITY sqlstate
UPDATE regress_append.events SET data = '{}' WHERE aggregate_id = 'o-7';
DELETE FROM regress_append.events;
TRUNCATE regress_append.events;
\set VERBOSITY default
SELECT count(*) FROM es_read_stream('Order', 'o-7');

-- versions are dense, positions ascend with them, and what es_read_all gives is everything
SELECT count(*) AS wrong FROM (
    SELECT version, row_number() OVER w AS n, global_position, lag(global_position) OVER w AS before, recorded_at, lag(recorded_at) OVER w AS earlier
    FROM regress_append.events WINDOW w AS (PARTITION BY aggregate_type, aggregate_id ORDER BY version)) v
WHERE version <> n OR global_position <= before OR recorded_at < earlier;
SELECT (SELECT count(*) FROM es_read_all(max_count => NULL)) = (SELECT count(*) FROM regress_append.events) AS all_read;
SELECT count(*) AS wrong FROM regress_append.streams s FULL JOIN (SELECT DISTINCT aggregate_type, aggregate_id FROM regress_append.events) e
    USING (aggregate_type, aggregate_id) WHERE s.first_partition IS NULL OR e IS NULL;

-- bad input
SELECT es_append(NULL, '1', 'E');
SELECT es_append('', '1', 'E');
SELECT es_append('T', NULL, 'E');
SELECT es_append('T', '', 'E');
SELECT es_append('T', '1', NULL);
SELECT es_append('T', '1', '');
SELECT es_append('T', '1', 'E', NULL);
SELECT es_append('T', '1', 'E', 'null');
SELECT es_append('T', '1', 'E', schema_version => 0);
SELECT es_append('T', '1', 'E', event_id => '');
SELECT es_append(repeat('t', 257), '1', 'E');
SELECT es_append('T', repeat('i', 1025), 'E');
SELECT es_append('T', '1', repeat('e', 10 * 1024 * 1024));
SELECT es_append_events('T', '1', NULL, NULL);
SELECT es_append_events('T', '1', '{}', '{}');
SELECT es_append_events('T', '1', '{A,B}', ARRAY['{}']::jsonb[]);
SELECT es_append_events('T', '1', '{A,NULL}', ARRAY['{}', '{}']::jsonb[]);
SELECT es_append_events('T', '1', '{A,B}', ARRAY['{}', NULL]::jsonb[]);
SELECT es_append_events('T', '1', '{A,B}', ARRAY['{}', 'null']::jsonb[]);
SELECT es_append_events('T', '1', '{A,B}', ARRAY['{}', '{}']::jsonb[], event_ids => '{x}');
SELECT es_append_events('T', '1', '{A,B}', ARRAY['{}', '{}']::jsonb[], event_ids => '{x,NULL}');
SELECT es_append_events('T', '1', '{{A},{B}}', ARRAY['{}', '{}']::jsonb[]);
SELECT es_append_events('T', '1', '{A,B}', ARRAY['{}', '{}']::jsonb[], schema_versions => '{1,0}');
SET eventsrc.user_id = 'x';
SELECT set_config('eventsrc.user_id', repeat('u', 2000), false) \g /dev/null
SELECT es_append('T', '1', 'E');
RESET eventsrc.user_id;
BEGIN READ ONLY;
SELECT es_append('T', '1', 'E');
ROLLBACK;
BEGIN;
SELECT version FROM es_append('T', '1', 'E');
PREPARE TRANSACTION 'regress';
SELECT es_stream_version('T', '1');
-- the longest that fit
SELECT version FROM es_append(repeat('t', 256), repeat('i', 1024), repeat('e', 256), event_id => repeat('x', 256));

-- large and odd payloads
SELECT version FROM es_append('Odd', '1', 'Big', jsonb_build_object('blob', repeat('x', 10 * 1024 * 1024)));
SELECT version FROM es_append('Odd', '1', 'Array', '[1, 2]');
SELECT version FROM es_append('Odd', '1', 'Scalar', '"text"');
SELECT version, event_type, length(data->>'blob'), CASE WHEN version > 1 THEN data END AS data FROM es_read_stream('Odd', '1');

-- CHECK constraints, row security, users' triggers and more columns hold for every path
ALTER TABLE regress_append.events ADD CONSTRAINT no_negative CHECK (NOT (data @> '{"negative": true}'));
\set VERBOSITY sqlstate
SELECT es_append('Order', 'o-9', 'A', '{"negative": true}');
INSERT INTO regress_append.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'o-9', 'A', '{"negative": true}');
\set VERBOSITY default
CREATE TABLE regress_seen (path text, version bigint);
CREATE FUNCTION regress_see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'ROW' THEN INSERT INTO regress_seen VALUES (TG_NAME, NEW.version);
    ELSE INSERT INTO regress_seen SELECT TG_NAME, count(*) FROM new; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER after_row AFTER INSERT ON regress_append.events FOR EACH ROW EXECUTE FUNCTION regress_see();
SELECT version FROM es_append('Order', 'o-9', 'A');
SELECT version FROM es_append_events('Order', 'o-9', '{B,C}', '{"{}","{}"}');
CREATE TRIGGER after_statement AFTER INSERT ON regress_append.events REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION regress_see();
SELECT version FROM es_append_events('Order', 'o-9', '{D,E}', '{"{}","{}"}', 3);
SELECT version FROM es_append_events('Order', 'o-9', '{D,E}', '{"{}","{}"}', 3);
SELECT version FROM es_append('Order', 'o-9', 'F', '{}', 5, event_id => 'f');
SELECT version FROM es_append('Order', 'o-9', 'F', '{}', 5, event_id => 'f');
TABLE regress_seen;
DROP TRIGGER after_statement ON regress_append.events;
DROP TRIGGER after_row ON regress_append.events;
CREATE FUNCTION regress_suppress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RETURN CASE WHEN NEW.event_type = 'Unwanted' THEN NULL ELSE NEW END; END $$;
CREATE TRIGGER suppress BEFORE INSERT ON regress_append.events FOR EACH ROW EXECUTE FUNCTION regress_suppress();
SELECT version FROM es_append('Order', 'o-9', 'Wanted', '{}', 6);
SELECT version FROM es_append('Order', 'o-9', 'Unwanted', '{}', 7);
SELECT version FROM es_append_events('Order', 'o-9', '{Wanted,Unwanted}', '{"{}","{}"}', 7);
SELECT es_stream_version('Order', 'o-9');
DROP TRIGGER suppress ON regress_append.events;
ALTER TABLE regress_append.events ADD COLUMN tenant text DEFAULT 'none';
SELECT version FROM es_append('Order', 'o-9', 'More', '{}', 7);
SELECT version, tenant FROM regress_append.events WHERE aggregate_id = 'o-9' AND version > 6 ORDER BY 1;
SELECT version, event_type FROM es_read_stream('Order', 'o-9', 7);
SELECT version, event_type FROM es_read_all(0, 1, event_types => '{More}');

DROP TABLE regress_seen;
SELECT es_drop_store('regress_append', 'regress_append');
DROP FUNCTION regress_see, regress_suppress;
