-- INSERT ... SELECT and COPY write many rows at a time, where nothing but that is asked for.
SELECT es_create_store('regress_many');
SET eventsrc.store = 'regress_many';
PREPARE shape AS SELECT aggregate_id, count(*), max(version), bool_and(version = row) AS dense, bool_and(global_position > position) AS in_order, bool_and(recorded_at >= previous) AS in_time
    FROM (SELECT *, row_number() OVER w AS row, lag(recorded_at, 1, '-infinity') OVER w AS previous, lag(global_position, 1, 0::bigint) OVER w AS position
          FROM regress_many.events WINDOW w AS (PARTITION BY aggregate_type, aggregate_id ORDER BY version)) e GROUP BY aggregate_type, aggregate_id ORDER BY aggregate_type, 1;

-- what is planned so, and what is not
EXPLAIN (COSTS OFF) INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', n % 3, 'Placed', '{}' FROM generate_series(1, 10) n;
EXPLAIN (COSTS OFF) INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', '1', 'Placed', '{}'), ('Order', '2', 'Placed', '{}');
CREATE FUNCTION planned(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE top text;
BEGIN
    EXECUTE 'EXPLAIN (COSTS OFF) ' || query INTO top;
    RETURN top;
END $$;
CREATE FUNCTION looks() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) FROM regress_many.events';
CREATE FUNCTION looks_back() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM regress_many.events';
SELECT planned(head || body), body FROM (VALUES ('INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) ')) h(head), (VALUES
    ($$VALUES ('Order', '1', 'Placed', '{}')$$),
    ($$SELECT 'Order', n, 'Placed', jsonb_build_object('at', clock_timestamp(), 'id', gen_random_uuid(), 'r', random()) FROM generate_series(1, 10) n$$),
    ($$SELECT 'Order', n, 'Placed', to_jsonb(looks_back()) FROM generate_series(1, 10) n$$),
    ($$SELECT 'Order', n, 'Placed', to_jsonb(looks()) FROM generate_series(1, 10) n$$),
    ($$SELECT aggregate_type, aggregate_id, event_type, data FROM es_read_stream('Order', '1')$$),
    ($$SELECT aggregate_type, aggregate_id, event_type, data FROM es_read_all()$$),
    ($$SELECT 'Order', n, 'Placed', '{}' FROM generate_series(1, 10) n ON CONFLICT DO NOTHING$$),
    ($$SELECT 'Order', n, 'Placed', '{}' FROM generate_series(1, 10) n RETURNING version$$)) b(body);
SELECT planned('WITH gone AS (DELETE FROM regress_many.snapshots RETURNING aggregate_id) INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT $$Order$$, aggregate_id, $$Gone$$, $${}$$ FROM gone');
SELECT planned(format('INSERT INTO %s (aggregate_type, aggregate_id, event_type, data) SELECT $$Order$$, n, $$Placed$$, $${}$$ FROM generate_series(1, 10) n', c.oid::regclass)) = format('Insert on %s', relname) AS of_a_partition
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'regress_many.events'::regclass LIMIT 1;
SET eventsrc.bulk_insert = off;
SELECT planned($$INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', n, 'Placed', '{}' FROM generate_series(1, 10) n$$);
RESET eventsrc.bulk_insert;

-- versions, positions and the rest; more rows than are written at once
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Order', n % 3, 'Placed', jsonb_build_object('n', n) FROM generate_series(1, 2500) n;
SELECT bool_and(data->>'n' = row::text) AS positions_in_order, count(DISTINCT event_id), bool_and(user_id = session_user), max(schema_version), count(DISTINCT transaction)
FROM (SELECT *, row_number() OVER (ORDER BY global_position) AS row FROM regress_many.events) e;
DO $$
DECLARE n bigint;
BEGIN
    FOR i IN 1 .. 8 LOOP
        INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', g % 2, 'Changed', '{}' FROM generate_series(1, i) g;
    END LOOP;
    GET DIAGNOSTICS n = ROW_COUNT;
    RAISE NOTICE '% rows', n;
END $$;
-- one plan, with and without
PREPARE put(int) AS INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'p', 'Placed', '{}' FROM generate_series(1, $1);
EXECUTE put(2);
SET eventsrc.bulk_insert = off;
EXECUTE put(2);
RESET eventsrc.bulk_insert;
EXECUTE put(2);
-- a subquery that is computed first
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Order', 'q', 'Placed', to_jsonb((SELECT count(*) FROM regress_many.events WHERE aggregate_id = 'p')) FROM generate_series(1, 2) n;
SELECT version, data FROM es_read_stream('Order', 'q');
-- from the table itself
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Copy', aggregate_id, event_type, data FROM regress_many.events ORDER BY global_position;
EXECUTE shape;

-- versions that are given
INSERT INTO regress_many.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'g', 1, 'A', '{}'), ('Order', 'h', 1, 'A', '{}'), ('Order', 'g', 2, 'B', '{}');
INSERT INTO regress_many.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'g', 3, 'A', '{}'), ('Order', 'g', 5, 'A', '{}');
INSERT INTO regress_many.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'h', 2, 'A', '{}'), ('Order', 'g', 1, 'A', '{}');
-- times that are given, and columns that are not
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data, recorded_at) VALUES ('Order', 'g', 'A', '{}', '2001-01-01'), ('Order', 'g', 'A', '{}', now());
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data, recorded_at) VALUES ('Order', 'g', 'A', '{}', now() + interval '40 days'), ('Order', 'g', 'A', '{}', NULL);
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data, recorded_at) VALUES ('Order', 'g', 'A', '{}', NULL), ('Order', 'g', 'A', '{}', now());
INSERT INTO regress_many.events (aggregate_type, aggregate_id, data) SELECT 'Order', 'g', '{}' FROM generate_series(1, 2);
\set VERBOSITY sqlstate
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type) SELECT 'Order', 'g', 'A' FROM generate_series(1, 2);
\set VERBOSITY default
SELECT count(*) FROM pg_inherits WHERE inhparent = 'regress_many.events'::regclass AND inhrelid::regclass::text ~ '2001';

-- a stream that ends within the statement
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data)
VALUES ('Order', 'x', 'A', '{}'), ('Order', 'y', 'A', '{}'), ('Order', 'x', 'StreamClosed', '{}'), ('Order', 'y', 'B', '{}'), ('Order', 'x', 'B', '{}');
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'z', 'StreamClosed', '{}'), ('Order', 'z', 'B', '{}');
SELECT version FROM es_append('Order', 'z', 'A');
SELECT version FROM es_close_stream('Order', 'z');
\set VERBOSITY sqlstate
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'y', 'A', '{}'), ('Order', 'z', 'A', '{}');
\set VERBOSITY default

-- more streams than are remembered, each twice in a row and then once more
BEGIN;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Many', n / 2 % 11000, 'A', '{}' FROM generate_series(0, 32999) n;
SELECT streams, events, dense FROM (SELECT count(*) AS streams, sum(n) AS events, bool_and(n = last AND n = versions) AS dense
    FROM (SELECT count(*) AS n, max(version) AS last, count(DISTINCT version) AS versions FROM regress_many.events WHERE aggregate_type = 'Many' GROUP BY aggregate_id) s) x;
ROLLBACK;

-- savepoints, and a function with an exception block that a query calls
CREATE FUNCTION stumbles(n int) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN IF n % 2 = 0 THEN RETURN 1 / (n - n); END IF; RETURN 'odd'; EXCEPTION WHEN division_by_zero THEN RETURN 'even'; END $$;
BEGIN;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 's', 'A', '{}' FROM generate_series(1, 3);
SAVEPOINT s;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 's', 'A', '{}' FROM generate_series(1, 3);
ROLLBACK TO s;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 's', stumbles(n), '{}' FROM generate_series(1, 7) n;
COMMIT;
SELECT array_agg(event_type ORDER BY version), max(version) FROM es_read_stream('Order', 's');

-- triggers after each row: the rows are there, and more can be appended
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_type = 'Placed' THEN
        INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data)
        SELECT NEW.aggregate_type, NEW.aggregate_id, 'Followed', to_jsonb(count(*)) FROM regress_many.events e WHERE e.aggregate_id = NEW.aggregate_id AND e.event_type = 'Placed'
        UNION ALL VALUES (NEW.aggregate_type, NEW.aggregate_id, 'Followed', '{}'::jsonb);
        PERFORM es_append(NEW.aggregate_type, NEW.aggregate_id, 'Appended');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER follow AFTER INSERT ON regress_many.events FOR EACH ROW EXECUTE FUNCTION follow();
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'f', 'Placed', '{}' FROM generate_series(1, 2);
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	f	Placed	{}
Order	f	Paid	{}
\.
DROP TRIGGER follow ON regress_many.events;
SELECT version, event_type, data FROM es_read_stream('Order', 'f');
-- before each row or for the statement, and row security: by the executor, as before
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.metadata := jsonb_build_object('seen', (SELECT count(*) FROM regress_many.events WHERE aggregate_id = 'b')); RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT ON regress_many.events FOR EACH ROW EXECUTE FUNCTION note();
EXECUTE put(1);
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'b', 'A', '{}' FROM generate_series(1, 2);
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	b	B	{}
Order	b	B	{}
\.
DROP TRIGGER note ON regress_many.events;
SELECT version, metadata FROM es_read_stream('Order', 'b');

-- COPY: formats and columns, what is given, where an error is
COPY regress_many.events (aggregate_id, event_type, aggregate_type, data, event_id, occurred_at, metadata) FROM stdin (FORMAT csv, HEADER, DELIMITER ';');
id;type;aggregate;data;event;when;meta
c;A;Order;"{""a"": 1}";e-1;2020-01-01 00:00:00+00;
c;B;Order;"{""a"": 2}";e-2;;"{""m"": ""x;y""}"
\.
SELECT version, event_id, event_type, data, metadata, occurred_at IS NOT NULL AS occurred FROM es_read_stream('Order', 'c');
COPY regress_many.events (aggregate_type, aggregate_id, version, event_type, data) FROM stdin;
Order	c	3	C	{}
Order	d	1	A	{}
Order	c	5	C	{}
\.
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	c	C	{}
Order	c		{}
\.
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	c	C	{}
Order	c	C
\.
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data, recorded_at) FROM stdin;
Order	c	C	{}	2020-01-01
\.
ALTER TABLE regress_many.events ADD CONSTRAINT small CHECK (data->>'a' <> '13');
CREATE FUNCTION error_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE state text; constr text;
BEGIN
    EXECUTE query;
    RETURN 'none';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, constr = CONSTRAINT_NAME;
    RETURN state || ' ' || constr;
END $$;
SELECT error_of($$INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'c', 'C', jsonb_build_object('a', n) FROM generate_series(11, 14) n$$);
ALTER TABLE regress_many.events DROP CONSTRAINT small;
-- an index of the user's
DO $$ BEGIN
    EXECUTE (SELECT format('CREATE UNIQUE INDEX once ON %s (event_id) WHERE event_id LIKE ''once%%''', tableoid::regclass) FROM regress_many.events LIMIT 1);
END $$;
SELECT error_of($$INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, event_id, data) SELECT 'Order', 'c', 'C', 'once' || n % 3, '{}' FROM generate_series(1, 4) n$$);
COPY regress_many.events (aggregate_type, aggregate_id, event_type, event_id, data) FROM stdin;
Order	u	A	once-1	{}
Order	u	A	once-2	{}
Order	u	A	once-1	{}
Order	u	A	once-3	{}
\.
\set VERBOSITY sqlstate
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin WHERE aggregate_id = 'w';
Order	w	A	{}
Order	v	A	{}
\.
-- from nothing: what is refused before it begins
BEGIN READ ONLY;
\copy regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM /dev/null
ROLLBACK;
BEGIN READ ONLY;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'w', 'A', '{}' FROM generate_series(1, 2);
ROLLBACK;
-- what a COPY brought and an error took away
BEGIN;
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	w	A	{}
Order	w	A	{}
\.
SELECT version FROM es_append('Order', 'w', 'A');
SAVEPOINT s;
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	w	A	{}
Order	w	StreamClosed	{}
Order	w	A	{}
\.
ROLLBACK TO s;
SELECT version FROM es_append('Order', 'w', 'A');
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	w	A	{}
\.
COMMIT;
EXECUTE shape;

-- roles: columns that may be inserted into, others, nobody
CREATE ROLE regress_many_columns;
CREATE ROLE regress_many_nobody;
GRANT USAGE ON SCHEMA regress_many TO regress_many_columns, regress_many_nobody;
GRANT INSERT (aggregate_type, aggregate_id, event_type, data) ON regress_many.events TO regress_many_columns;
SET ROLE regress_many_columns;
EXECUTE put(2);
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	r	A	{}
\.
\copy regress_many.events (aggregate_type, aggregate_id, event_type, data, metadata) FROM /dev/null
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data, metadata) SELECT 'Order', 'r', 'A', '{}', '{}' FROM generate_series(1, 2);
COPY regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM '/nowhere';
SET ROLE regress_many_nobody;
EXECUTE put(2);
\copy regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM /dev/null
RESET ROLE;
\set VERBOSITY default
-- row security: each row is checked
ALTER TABLE regress_many.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON regress_many.events FOR INSERT TO regress_many_columns WITH CHECK (aggregate_id LIKE 'r%');
SET ROLE regress_many_columns;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'r', 'A', '{}' FROM generate_series(1, 2) n;
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', CASE n WHEN 2 THEN 'q' ELSE 'r' END, 'A', '{}' FROM generate_series(1, 2) n;
EXECUTE put(2);
\copy regress_many.events (aggregate_type, aggregate_id, event_type, data) FROM /dev/null
RESET ROLE;
ALTER TABLE regress_many.events DISABLE ROW LEVEL SECURITY;
EXECUTE shape;

-- REPEATABLE READ; replica; types that are checked
BEGIN ISOLATION LEVEL REPEATABLE READ;
EXECUTE put(2);
EXECUTE put(2);
SELECT max(version) FROM es_read_stream('Order', 'p');
COMMIT;
SET session_replication_role = replica;
EXECUTE put(2);
RESET session_replication_role;
SELECT es_create_event_type('Placed', 1, '{"required": ["total"]}');
EXECUTE put(2);
INSERT INTO regress_many.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Order', 'p', 'Placed', jsonb_build_object('total', n) FROM generate_series(1, 2) n;
SELECT max(version) FROM es_read_stream('Order', 'p');

DROP OWNED BY regress_many_columns, regress_many_nobody;
DROP ROLE regress_many_columns, regress_many_nobody;
DROP FUNCTION planned(text), looks(), looks_back(), stumbles(int), follow(), note(), error_of(text);
SELECT es_drop_store('regress_many', confirm => 'regress_many');
