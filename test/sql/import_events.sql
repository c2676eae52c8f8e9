-- es_import(): events from elsewhere, with their versions, ids and times.
\set SHOW_CONTEXT errors
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT es_create_store('regress_import');
SET eventsrc.store = 'regress_import';

CREATE TABLE source (n int PRIMARY KEY, kind text, id uuid, version int, message uuid, type varchar(50), body json,
                     at timestamptz, happened timestamptz, who text, correlation text, cause text, trace text, schema smallint);
INSERT INTO source
SELECT n, 'Document', md5('d' || n % 7)::uuid, n / 7 + 1, md5('m' || n)::uuid, 'Changed', format('{"n": %s}', n)::json,
       timestamptz '2019-11-30 00:00Z' + n * interval '20 hours', timestamptz '2010-01-01Z', 'alice', 'c' || n, 'm' || n - 1, 't' || n, 2
FROM generate_series(0, 69) n;

-- everything that can be given is kept; positions are in the query's order
SELECT * FROM es_import($$
    SELECT kind AS aggregate_type, id AS aggregate_id, version, message AS event_id, type AS event_type, schema AS schema_version,
           body AS data, body AS metadata, who AS user_id, correlation AS correlation_id, cause AS causation_id,
           trace AS traceparent, at AS recorded_at, happened AS occurred_at
    FROM source ORDER BY n; $$);
SELECT count(*) FROM source s
JOIN (SELECT row_number() OVER (ORDER BY global_position) - 1 AS n, * FROM es_read_all(0, 1000)) e USING (n)
WHERE (e.aggregate_type, e.aggregate_id, e.version, e.event_id, e.event_type, e.schema_version, e.user_id, e.correlation_id,
       e.causation_id, e.traceparent, e.recorded_at, e.occurred_at)
    = (s.kind, s.id::text, s.version, s.message::text, s.type, s.schema, s.who, s.correlation, s.cause, s.trace, s.at, s.happened)
  AND e.data = s.body::jsonb AND e.metadata = s.body::jsonb AND e.transaction IS NOT NULL;
-- every stream reads whole, and goes on
SELECT count(*), min(versions), max(versions)
FROM (SELECT count(*) AS versions FROM regress_import.streams s, LATERAL es_read_stream(s.aggregate_type, s.aggregate_id) GROUP BY s.aggregate_id) x;
SELECT first_partition::date, last_partition::date, count(*) FROM regress_import.streams GROUP BY 1, 2 ORDER BY 1, 2;
SELECT version FROM es_append('Document', md5('d1')::uuid::text, 'Changed', expected_version => 10);
SELECT es_state('Document', md5('d1')::uuid::text, as_of => '2020-01-01Z');
SELECT first_partition::date, last_partition::date = date_trunc('month', now())::date AS now FROM regress_import.streams WHERE aggregate_id = md5('d1')::uuid::text;

-- a repetition appends what is new
INSERT INTO source SELECT 70, kind, md5('d0')::uuid, 11, md5('m70')::uuid, type, body, at + interval '1 day', happened, who, correlation, cause, trace, schema
FROM source WHERE n = 69;
PREPARE again AS SELECT * FROM es_import($$
    SELECT kind AS aggregate_type, id AS aggregate_id, version, message AS event_id, type AS event_type, at AS recorded_at
    FROM source ORDER BY n -- the source's order
$$);
EXECUTE again;
EXECUTE again;
SELECT count(*), max(version) FROM regress_import.events;

-- versions assigned; what is left out is filled in
BEGIN;
SELECT es_set_context(user_id => 'importer', correlation_id => 'import-1');
SELECT * FROM es_import($$ SELECT * FROM (VALUES ('Order', '0', 'Placed'), ('Order', '2', 'Placed'), ('Order', '0', 'Paid'))
                           AS v (aggregate_type, aggregate_id, event_type) $$);
COMMIT;
SELECT * FROM es_import($$ SELECT 'Order' AS aggregate_type, i AS aggregate_id, t AS event_type, v AS version
                           FROM (VALUES (1, 'Placed', NULL), (2, 'Changed', 2), (1, 'Paid', NULL), (1, 'Sent', 3)) AS x (i, t, v) $$);
SELECT aggregate_id, version, event_type, schema_version, data, metadata, user_id = session_user AS mine, correlation_id,
       event_id LIKE '________-____-7___-%' AS uuid, recorded_at > now() - interval '1 hour' AS now, occurred_at
FROM es_read_all(0, NULL, aggregate_types => '{Order}');
-- no rows, and a large row among small ones
SELECT * FROM es_import($$ SELECT 'a' AS aggregate_type, 'b' AS aggregate_id, 'c' AS event_type WHERE false $$);
SELECT * FROM es_import($$ SELECT 'Large' AS aggregate_type, n AS aggregate_id, 'Stored' AS event_type,
                           jsonb_build_object('text', CASE WHEN n = 400 THEN repeat('x', 20000000) ELSE 'x' END) AS data FROM generate_series(1, 600) n $$);
SELECT count(*), max(length(data->>'text')) FROM regress_import.events WHERE aggregate_type = 'Large';

-- very many streams, interleaved, months out of order between streams; twice
CREATE TABLE many AS SELECT n, 's' || n % 24000 AS id, n / 24000 + 1 AS version, 'e' || n AS event,
                            timestamptz '2021-01-15Z' + (n % 3) * interval '31 days' + (n / 24000) * interval '100 days' AS at
FROM generate_series(0, 51999) n;
PREPARE many AS SELECT * FROM es_import($$ SELECT 'Many' AS aggregate_type, id AS aggregate_id, version, event AS event_id,
    'Counted' AS event_type, at AS recorded_at FROM many ORDER BY n $$);
EXECUTE many;
SELECT count(*), count(DISTINCT aggregate_id), max(version) FROM regress_import.events WHERE aggregate_type = 'Many';
SELECT count(*) AS misplaced FROM (SELECT event_id, row_number() OVER (ORDER BY global_position) - 1 AS place
                                   FROM regress_import.events WHERE aggregate_type = 'Many') x WHERE event_id <> 'e' || place;
SELECT first_partition::date, last_partition::date, count(*) FROM regress_import.streams WHERE aggregate_type = 'Many' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT version, recorded_at::date FROM es_read_stream('Many', 's7');
DELETE FROM many WHERE n % 400 <> 7;
EXECUTE many;

-- no snapshots are taken on the way, states are right without
SELECT * FROM es_import($$ SELECT 'Stock' AS aggregate_type, 'a' AS aggregate_id, 'Moved' AS event_type, jsonb_build_object('n', n, 'k' || n % 3, n) AS data
                           FROM generate_series(1, 250) n $$);
SELECT count(*) FROM regress_import.snapshots WHERE aggregate_type = 'Stock';
SELECT es_state('Stock', 'a');
SELECT count(*) FROM generate_series(1, 50) n, LATERAL es_append('Stock', 'a', 'Moved', jsonb_build_object('n', n));
SELECT version FROM regress_import.snapshots WHERE aggregate_type = 'Stock';

-- what is wrong, and that nothing is left of it
SELECT max(global_position) AS before, count(*) AS events FROM regress_import.events \gset
PREPARE import AS SELECT * FROM es_import($1);
EXECUTE import(NULL);
EXECUTE import('');
EXECUTE import('SELECT');
EXECUTE import('SELECT 1; SELECT 2');
EXECUTE import('DELETE FROM source RETURNING type');
EXECUTE import('SELECT * FROM nowhere');
EXECUTE import($$ VALUES ('Order', '1', 'Placed') $$);
EXECUTE import($$ SELECT 'a' AS aggregate_type, 'b' AS aggregate_id $$);
EXECUTE import($$ SELECT 'a' AS aggregate_type, 'b' AS aggregate_id, 'c' AS event_type, 1 AS global_position $$);
EXECUTE import($$ SELECT 'a' AS aggregate_type, 'b' AS aggregate_id, 'c' AS event_type, 'd' AS event_type $$);
EXECUTE import($$ SELECT 'a' AS aggregate_type, 'b' AS aggregate_id, 'c' AS event_type, timestamp '2020-01-01' AS recorded_at $$);
PREPARE versions(text) AS SELECT * FROM es_import(format($$ SELECT 'Bad' AS aggregate_type, '1' AS aggregate_id, 'c' AS event_type, i AS event_id, v AS version FROM (VALUES %s) AS x (i, v) $$, $1));
EXECUTE versions($$ ('a', 0), ('b', 1) $$);
EXECUTE versions($$ ('a', 1), ('b', 3) $$);
EXECUTE versions($$ ('a', 1), ('b', 2), ('c', 2) $$);
EXECUTE versions($$ ('a', 1), (NULL, 1) $$);
PREPARE times(text, boolean) AS SELECT * FROM es_import(format($$ SELECT 'Bad' AS aggregate_type, '1' AS aggregate_id, 'c' AS event_type, at::timestamptz AS recorded_at FROM (VALUES %s) AS x (at) $$, $1), clamp => $2);
EXECUTE times($$ ('2020-02-01 12:00Z'), ('2020-02-01 11:59Z') $$, false);
EXECUTE times($$ ('1969-12-31Z') $$, true);
EXECUTE times($$ ('-infinity') $$, true);
EXECUTE times($$ ('infinity') $$, true);
\set VERBOSITY sqlstate
EXECUTE times($$ ('2150-01-01Z') $$, false);
SELECT * FROM es_import($$ SELECT 'Document' AS aggregate_type, md5('d1')::uuid AS aggregate_id, 'c' AS event_type, timestamptz '2020-02-01Z' AS recorded_at $$);
\set VERBOSITY default
PREPARE texts(text, text, text) AS SELECT * FROM es_import(format($$ SELECT 'Bad' AS aggregate_type, %L AS aggregate_id, %L AS event_type, %L::jsonb AS data, 1 AS schema_version $$, $1, $2, $3));
EXECUTE texts(NULL, 'c', '{}');
EXECUTE texts('', 'c', '{}');
EXECUTE texts(repeat('x', 1025), 'c', '{}');
EXECUTE texts('1', NULL, '{}');
EXECUTE texts('1', 'c', 'null');
SELECT * FROM es_import($$ SELECT 'Bad' AS aggregate_type, 1 AS aggregate_id, 'c' AS event_type, 10 / (2 - n) AS schema_version FROM generate_series(1, 5) n $$);
SELECT * FROM es_import('SELECT 1', store => 'regress_none');
SELECT count(*) = :events AS unchanged FROM regress_import.events;
-- clamped
EXECUTE times($$ ('2020-02-01 12:00Z'), ('2020-01-01 11:59Z'), ('2020-02-03Z') $$, true);
EXECUTE times($$ ('2150-01-01Z') $$, true);
SELECT version, recorded_at < now() + interval '1 hour' AS past, version > 3 OR recorded_at::date < '2020-03-01' AS kept FROM es_read_stream('Bad', '1');
SELECT count(*) FROM regress_import.events WHERE recorded_at = '2020-02-01 12:00Z';

-- closed streams
SELECT version FROM es_close_stream('Bad', '1');
\set VERBOSITY sqlstate
EXECUTE times($$ (NULL) $$, false);
\set VERBOSITY default
BEGIN READ ONLY;
EXECUTE import('SELECT 1');
ROLLBACK;

-- an import is of its transaction
BEGIN;
SELECT * FROM es_import($$ SELECT 'Undone' AS aggregate_type, '1' AS aggregate_id, 'c' AS event_type $$);
SAVEPOINT s;
SELECT * FROM es_import($$ SELECT 'Undone' AS aggregate_type, '1' AS aggregate_id, 'c' AS event_type FROM generate_series(1, 10) $$);
ROLLBACK TO s;
SELECT * FROM es_import($$ SELECT 'Undone' AS aggregate_type, '1' AS aggregate_id, 'c' AS event_type, 2 AS version $$);
SELECT version FROM es_append('Undone', '1', 'd', expected_version => 2);
ROLLBACK;
SELECT es_stream_version('Undone', '1');

-- a query that appends to the store itself
CREATE FUNCTION append_too(n int) RETURNS text LANGUAGE sql AS $$ SELECT 'c' || version FROM es_append('Both', '1', 'Function') $$;
SELECT * FROM es_import($$ SELECT 'Both' AS aggregate_type, '1' AS aggregate_id, append_too(n) AS event_type FROM generate_series(1, 120) n $$);
SELECT count(*), max(version), count(*) FILTER (WHERE event_type = 'Function') FROM es_read_stream('Both', '1');
DROP FUNCTION append_too(int);

-- REPEATABLE READ
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM es_import($$ SELECT 'Old' AS aggregate_type, n AS aggregate_id, 'Sent' AS event_type, timestamptz '2018-01-01Z' AS recorded_at FROM generate_series(1, 2) n $$);
SELECT count(*) FROM es_read_stream('Old', '2');
COMMIT;

-- users' AFTER triggers see the stream; CHECK constraints hold
CREATE TABLE seen (version bigint, events bigint);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen SELECT NEW.version, count(*) FROM es_read_stream(NEW.aggregate_type, NEW.aggregate_id);
    RETURN NULL;
END $$;
CREATE TRIGGER see AFTER INSERT ON regress_import.events FOR EACH ROW EXECUTE FUNCTION see();
ALTER TABLE regress_import.events ADD CONSTRAINT no_zero CHECK (data <> '0');
SELECT * FROM es_import($$ SELECT 'Seen' AS aggregate_type, '1' AS aggregate_id, 'A' AS event_type, timestamptz '2016-05-01Z' AS recorded_at FROM generate_series(1, 3) $$);
TABLE seen;
\set VERBOSITY sqlstate
SELECT * FROM es_import($$ SELECT 'Seen' AS aggregate_type, '1' AS aggregate_id, 'A' AS event_type, '0'::jsonb AS data $$);
\set VERBOSITY default
DROP TRIGGER see ON regress_import.events;

-- users' BEFORE triggers: row by row, with the same result
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_type = 'Suppressed' THEN
        RETURN NULL;
    END IF;
    NEW.metadata := '{"stamped": true}';
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE INSERT ON regress_import.events FOR EACH ROW EXECUTE FUNCTION stamp();
PREPARE stamped AS SELECT * FROM es_import($$ SELECT 'Stamped' AS aggregate_type, n % 2 AS aggregate_id, n / 2 + 1 AS version, 'e' || n AS event_id, 'A' AS event_type,
    timestamptz '2017-01-20Z' + n * interval '10 days' - CASE WHEN n = 4 THEN interval '50 days' ELSE '0' END AS recorded_at FROM generate_series(0, 5) n $$, clamp => true);
EXECUTE stamped;
EXECUTE stamped;
SELECT aggregate_id, version, metadata, recorded_at::date FROM es_read_all(0, NULL, aggregate_types => '{Stamped}');
SELECT aggregate_id, first_partition::date, last_partition::date FROM regress_import.streams WHERE aggregate_type = 'Stamped' ORDER BY 1;
SELECT * FROM es_import($$ SELECT 'Stamped' AS aggregate_type, 1 AS aggregate_id, 'Suppressed' AS event_type $$);
DROP TRIGGER stamp ON regress_import.events;

-- roles: who may append may import, but not say when events were recorded
CREATE ROLE regress_import_owner;
CREATE ROLE regress_import_writer;
CREATE ROLE regress_import_reader;
ALTER TABLE regress_import.events OWNER TO regress_import_owner;
ALTER SCHEMA regress_import OWNER TO regress_import_owner;
SELECT es_grant('regress_import_writer', 'writer'), es_grant('regress_import_reader', 'reader');
SET ROLE regress_import_writer;
EXECUTE import($$ SELECT 'Role' AS aggregate_type, '1' AS aggregate_id, 'A' AS event_type, 'w1' AS event_id, timestamptz '2000-01-01Z' AS occurred_at, NULL::timestamptz AS recorded_at $$);
EXECUTE import($$ SELECT 'Role' AS aggregate_type, '1' AS aggregate_id, 'A' AS event_type, timestamptz '2000-01-01Z' AS recorded_at $$);
EXECUTE import($$ SELECT 'Role' AS aggregate_type, 'x' AS aggregate_id, who AS event_type FROM source $$);
SET ROLE regress_import_reader;
EXECUTE import($$ SELECT 'Role' AS aggregate_type, '1' AS aggregate_id, 'A' AS event_type $$);
SET ROLE regress_import_owner;
EXECUTE import($$ SELECT 'Role' AS aggregate_type, '2' AS aggregate_id, 'A' AS event_type, timestamptz '2000-01-01Z' AS recorded_at $$);
RESET ROLE;
-- row security binds the writer
ALTER TABLE regress_import.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON regress_import.events USING (user_id = current_user);
SET ROLE regress_import_writer;
EXECUTE import($$ SELECT 'Role' AS aggregate_type, '3' AS aggregate_id, 'A' AS event_type, 'regress_import_writer' AS user_id $$);
EXECUTE import($$ SELECT 'Role' AS aggregate_type, '3' AS aggregate_id, 'A' AS event_type, 'somebody' AS user_id $$);
RESET ROLE;
SELECT aggregate_id, version, user_id LIKE 'regress%' AS own, recorded_at < '2001-01-01' AS old FROM regress_import.events WHERE aggregate_type = 'Role' ORDER BY 1, 2;

-- a stream whose last month was detached has no known version
ALTER TABLE regress_import.events DISABLE ROW LEVEL SECURITY;
EXECUTE import($$ SELECT 'Gone' AS aggregate_type, '1' AS aggregate_id, 'A' AS event_type, timestamptz '2001-05-01Z' AS recorded_at $$);
SET eventsrc.allow_unsafe_ddl = on;
ALTER TABLE regress_import.events DETACH PARTITION regress_import.events_2001_05;
RESET eventsrc.allow_unsafe_ddl;
SELECT version FROM es_append('Gone', '1', 'A');
SELECT version FROM es_append('Gone', '1', 'A', expected_version => 0);
INSERT INTO regress_import.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Gone', '1', 'A', '{}');
ALTER TABLE regress_import.events ATTACH PARTITION regress_import.events_2001_05 FOR VALUES FROM ('2001-05-01Z') TO ('2001-06-01Z');
SELECT version FROM es_append('Gone', '1', 'A');

SELECT es_revoke('regress_import_writer', 'writer'), es_revoke('regress_import_reader', 'reader');
DROP TABLE source, many, seen;
DROP FUNCTION see(), stamp();
SELECT es_drop_store('regress_import', confirm => 'regress_import');
DROP ROLE regress_import_owner, regress_import_writer, regress_import_reader;
