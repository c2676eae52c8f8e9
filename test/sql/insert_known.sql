-- INSERT and COPY remember where the transaction's streams stand; whatever else happens to the streams must be noticed.
SELECT es_create_store('regress_known');
SET eventsrc.store = 'regress_known';
PREPARE put(text, int) AS INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, data)
    SELECT 'Order', $1, 'Placed', '{}' FROM generate_series(1, $2);
PREPARE shape AS SELECT aggregate_id, count(*), max(version), bool_and(recorded_at >= previous) AS in_time
    FROM (SELECT *, lag(recorded_at, 1, '-infinity') OVER (PARTITION BY aggregate_id ORDER BY version) AS previous FROM regress_known.events) e GROUP BY 1 ORDER BY 1;

-- an append, a batch, an import and a rollback in between
BEGIN;
EXECUTE put('a', 3);
SELECT version FROM es_append('Order', 'a', 'Paid', expected_version => 3);
EXECUTE put('a', 2);
SELECT version FROM es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "a", "events": [{"event_type": "Sent"}]}]');
EXECUTE put('a', 2);
SELECT * FROM es_import($$ SELECT 'Order' AS aggregate_type, 'a' AS aggregate_id, 'Imported' AS event_type FROM generate_series(1, 2) $$);
EXECUTE put('a', 1);
SAVEPOINT s;
EXECUTE put('a', 5);
EXECUTE put('b', 5);
ROLLBACK TO s;
EXECUTE put('a', 1);
EXECUTE put('b', 1);
EXECUTE shape;
ROLLBACK;
EXECUTE put('a', 1);
EXECUTE shape;

-- triggers that append to the same stream, by INSERT and by es_append()
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_type = 'Placed' THEN
        INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, data) VALUES (NEW.aggregate_type, NEW.aggregate_id, 'Inserted', '{}');
        PERFORM es_append(NEW.aggregate_type, NEW.aggregate_id, 'Appended');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER follow AFTER INSERT ON regress_known.events FOR EACH ROW EXECUTE FUNCTION follow();
BEGIN;
EXECUTE put('a', 2);
SELECT version FROM es_append('Order', 'a', 'Placed');
SELECT version FROM es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "a", "events": [{"event_type": "Placed"}]},
                                      {"aggregate_type": "Order", "aggregate_id": "b", "events": [{"event_type": "Placed"}]}]');
EXECUTE put('a', 1);
COMMIT;
EXECUTE shape;
DROP TRIGGER follow ON regress_known.events;

-- a query that inserts while it is imported
CREATE FUNCTION insert_too(n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'c', 'Function', '{}');
    RETURN 'Imported';
END $$;
SELECT * FROM es_import($$ SELECT 'Order' AS aggregate_type, 'c' AS aggregate_id, insert_too(n) AS event_type FROM generate_series(1, 120) n $$);

-- rows that are let through, but not written: a trigger's doing, or ON CONFLICT DO NOTHING over an index of the user's
CREATE FUNCTION drop_odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.version % 2 = 1 AND NEW.event_id LIKE 'drop%' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER zz_drop BEFORE INSERT ON regress_known.events FOR EACH ROW EXECUTE FUNCTION drop_odd();
INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, event_id, data)
SELECT 'Order', 'd', 'Placed', CASE WHEN n % 2 = 1 THEN 'drop' ELSE 'keep' END || n, '{}' FROM generate_series(1, 6) n;
DROP TRIGGER zz_drop ON regress_known.events;
CREATE INDEX ON regress_known.events (event_type);
DO $$ BEGIN
    EXECUTE (SELECT format('CREATE UNIQUE INDEX ON %s (event_id)', tableoid::regclass) FROM regress_known.events LIMIT 1);
END $$;
INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, event_id, data)
SELECT 'Order', 'e', 'Placed', 'id' || n % 3, '{}' FROM generate_series(1, 6) n ON CONFLICT DO NOTHING;
EXECUTE shape;

-- closing a stream by hand
INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'f', 'Placed', '{}'), ('Order', 'f', 'StreamClosed', '{}'), ('Order', 'f', 'Placed', '{}');
BEGIN;
EXECUTE put('f', 1);
SELECT version FROM es_close_stream('Order', 'f');
\set VERBOSITY sqlstate
EXECUTE put('f', 1);
ROLLBACK;
-- REPEATABLE READ
BEGIN ISOLATION LEVEL REPEATABLE READ;
EXECUTE put('f', 2);
EXECUTE put('f', 2);
COMMIT;
-- a version that does not follow
INSERT INTO regress_known.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'g', 1, 'A', '{}'), ('Order', 'g', 2, 'B', '{}'), ('Order', 'g', 4, 'C', '{}');
INSERT INTO regress_known.events (aggregate_type, aggregate_id, version, event_type, data) VALUES ('Order', 'g', 1, 'A', '{}'), ('Order', 'g', 2, 'B', '{}');
EXECUTE shape;
-- many streams
INSERT INTO regress_known.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Many', n % 11000, 'A', '{}' FROM generate_series(0, 32999) n;
SELECT count(*), min(n), max(n), min(version), max(version) FROM (SELECT count(*) AS n, max(version) AS version FROM regress_known.events WHERE aggregate_type = 'Many' GROUP BY aggregate_id) x;

DROP FUNCTION follow(), insert_too(int), drop_odd();
SELECT es_drop_store('regress_known', confirm => 'regress_known');
