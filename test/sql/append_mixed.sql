-- es_append(), INSERT, COPY and es_import() to one stream in one transaction, each after each: what one of them knows of the
-- stream must not outlive what the next one writes.
SELECT es_create_store('regress_mixed');
SET eventsrc.store = 'regress_mixed';
PREPARE shape AS SELECT count(*), max(version), bool_and(version = row) AS dense, bool_and(recorded_at >= previous) AS in_time, bool_and(global_position > position) AS in_order
    FROM (SELECT *, row_number() OVER w AS row, lag(recorded_at, 1, '-infinity') OVER w AS previous, lag(global_position, 1, 0::bigint) OVER w AS position
          FROM regress_mixed.events WINDOW w AS (PARTITION BY aggregate_id ORDER BY version)) e;

BEGIN;
SELECT version FROM es_append('Order', 'mix', 'Appended');
SELECT version FROM es_append('Order', 'mix', 'Appended');
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
SELECT version FROM es_append('Order', 'mix', 'Appended');
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
SELECT version FROM es_append('Order', 'mix', 'Appended');
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
SELECT version FROM es_append('Order', 'mix', 'Appended');
EXECUTE shape;
COMMIT;
EXECUTE shape;

-- the same again, in savepoints that are rolled back, or not
BEGIN;
SAVEPOINT s;
SELECT version FROM es_append('Order', 'mix', 'Appended');
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
SELECT version FROM es_append('Order', 'mix', 'Appended');
ROLLBACK TO s;
SAVEPOINT s;
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
SELECT version FROM es_append('Order', 'mix', 'Appended');
RELEASE s;
SAVEPOINT s;
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
ROLLBACK TO s;
SAVEPOINT s;
SELECT version FROM es_append('Order', 'mix', 'Appended');
EXECUTE shape;
ROLLBACK;
SELECT version FROM es_append('Order', 'mix', 'Appended', expected_version => 33);
EXECUTE shape;

-- another session goes on from there
\c
SET eventsrc.store = 'regress_mixed';
SELECT version FROM es_append('Order', 'mix', 'Appended');
INSERT INTO regress_mixed.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'mix', 'Inserted', '{}'), ('Order', 'mix', 'Inserted', '{}');
SELECT version FROM es_append('Order', 'mix', 'Appended');
COPY regress_mixed.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	mix	Copied	{}
Order	mix	Copied	{}
\.
SELECT version FROM es_append('Order', 'mix', 'Appended');
SELECT imported FROM es_import($$ SELECT 'Order' AS aggregate_type, 'mix' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 3) $$);
SELECT version FROM es_append('Order', 'mix', 'Appended');
SELECT es_stream_version('Order', 'mix') = count(*) AS dense FROM regress_mixed.events;

-- what is remembered of a stream ends with the partition that held it
SELECT tableoid::regclass AS partition FROM regress_mixed.events LIMIT 1 \gset
SET eventsrc.allow_unsafe_ddl = on;
DROP TABLE :partition;
RESET eventsrc.allow_unsafe_ddl;
SELECT version FROM es_append('Order', 'first in the new one', 'Appended');
SELECT version FROM es_append('Order', 'mix', 'Appended');
SELECT es_drop_store('regress_mixed', 'regress_mixed');
