-- A table with events that is attached as a partition of a store brings its streams along, if they fit.
\set SHOW_CONTEXT never
CREATE ROLE regress_attach_owner;
-- by_hand makes a table for a month of 2001; fill_month writes events into it; attach_month attaches it
CREATE FUNCTION by_hand(month int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE regress_attach.m%1$s (LIKE regress_attach.events INCLUDING ALL) USING append_only;
                    CREATE UNIQUE INDEX ON regress_attach.m%1$s (aggregate_type, aggregate_id, version);
                    CREATE UNIQUE INDEX ON regress_attach.m%1$s (global_position)', month);
END
$$;
CREATE FUNCTION fill_month(month int, id text, versions int[], at bigint DEFAULT 1000000, days int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO regress_attach.m%s (global_position, aggregate_type, aggregate_id, version, event_id, event_type, schema_version, data, user_id, recorded_at, transaction)
                    SELECT $1 + v + 100 * %1$s, ''Document'', $2, v, $2 || v, ''Written'', 1, ''{}'', ''x'', $4 + v * make_interval(days => $5), ''3'' FROM unnest($3) v', month)
        USING at, id, versions, make_timestamptz(2001, month, 8, 0, 0, 0, 'UTC'), days;
END
$$;
CREATE FUNCTION attach_month(month int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE regress_attach.events ATTACH PARTITION regress_attach.m%1$s FOR VALUES FROM (%2$L) TO (%3$L)', month,
                   make_timestamptz(2001, month, 1, 0, 0, 0, 'UTC'), make_timestamptz(2001, month + 1, 1, 0, 0, 0, 'UTC'));
END
$$;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_attach_owner', current_database()); END $$;
SET ROLE regress_attach_owner;
SELECT es_create_store('regress_attach');
SET eventsrc.store = 'regress_attach';

-- new streams
SELECT by_hand(1);
SELECT fill_month(1, '1', '{1,2,3}'), fill_month(1, '2', '{1}', 2000000);
SELECT attach_month(1);
SELECT aggregate_id, extract(month FROM first_partition AT TIME ZONE 'UTC') AS first, extract(month FROM last_partition AT TIME ZONE 'UTC') AS last, closed
FROM regress_attach.streams ORDER BY aggregate_id;
SELECT array_agg(version) FROM es_read_stream('Document', '1');
SELECT es_stream_version('Document', '1'), es_stream_version('Document', '2');
\set VERBOSITY sqlstate
SELECT version FROM es_append('Document', '1', 'Translated', expected_version => 0);
\set VERBOSITY default
SELECT version FROM es_append('Document', '2', 'Translated', expected_version => 1);
-- no position is given out twice
SELECT global_position > 2000100 AS beyond FROM es_append('Document', '3', 'Written', expected_version => 0);
SELECT count(*), count(DISTINCT global_position) FROM es_read_all();

-- streams that go on; one month is attached empty
SELECT by_hand(2), by_hand(3);
SELECT fill_month(3, '1', '{4,5}', 3000000);
SELECT attach_month(2);
SELECT attach_month(3);
SELECT array_agg(version) FROM es_read_stream('Document', '1');
SELECT array_agg(version) FROM es_read_stream('Document', '1', backward => true);
SELECT extract(month FROM first_partition AT TIME ZONE 'UTC') AS first, extract(month FROM last_partition AT TIME ZONE 'UTC') AS last
FROM regress_attach.streams WHERE aggregate_id = '1';

-- what does not fit is refused, and nothing of it is left
SELECT by_hand(4), by_hand(5), by_hand(6), by_hand(7), by_hand(8), by_hand(9), by_hand(10);
SELECT fill_month(4, '1', '{7}'), fill_month(5, '1', '{5}'), fill_month(6, 'new', '{2}'), fill_month(7, 'new', '{1,3}'),
    fill_month(8, 'new', '{1,2}', days => -1), fill_month(9, '2', '{3}'), fill_month(10, 'new', '{1}', 3000304 - 1001);
SELECT attach_month(4);
SELECT attach_month(5);
SELECT attach_month(6);
SELECT attach_month(7);
SELECT attach_month(8);
SELECT attach_month(9);
SELECT attach_month(10);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT attach_month(10);
ROLLBACK;
SELECT aggregate_id FROM regress_attach.streams ORDER BY 1;
SELECT count(*) FROM pg_inherits WHERE inhparent = 'regress_attach.events'::regclass AND inhrelid::regclass::text ~ '\.m';
-- a closed stream stays closed
SELECT version FROM es_close_stream('Document', '1');
SELECT by_hand(11);
SELECT fill_month(11, '1', '{7}');
SELECT attach_month(11);

-- detached and attached again: the streams are as before, also those that it was the last partition of
RESET ROLE;
SET eventsrc.allow_unsafe_ddl = on;
ALTER TABLE regress_attach.events DETACH PARTITION regress_attach.m3;
ALTER TABLE regress_attach.events DETACH PARTITION regress_attach.m1;
RESET eventsrc.allow_unsafe_ddl;
SET ROLE regress_attach_owner;
SELECT array_agg(version) FROM es_read_stream('Document', '1');
SELECT attach_month(3);
SELECT array_agg(version) FROM es_read_stream('Document', '1');
SELECT attach_month(1);
SELECT array_agg(version) FROM es_read_stream('Document', '1');
SELECT version FROM es_append('Document', '2', 'Translated', expected_version => 2);
SELECT closed FROM regress_attach.streams WHERE aggregate_id = '1';

-- the deliberate way makes the streams known too
RESET ROLE;
SET eventsrc.allow_unsafe_ddl = on;
SELECT attach_month(6);
RESET eventsrc.allow_unsafe_ddl;
SELECT version FROM es_append('Document', 'new', 'Translated', expected_version => 2);

DROP TABLE regress_attach.m4, regress_attach.m5, regress_attach.m7, regress_attach.m8, regress_attach.m9, regress_attach.m10, regress_attach.m11;
RESET eventsrc.store;
SET client_min_messages = warning;
SELECT es_drop_store('regress_attach', confirm => 'regress_attach');
DROP FUNCTION by_hand(int), fill_month(int, text, int[], bigint, int), attach_month(int);
DROP OWNED BY regress_attach_owner;
DROP ROLE regress_attach_owner;
