-- es_read_stream(), es_read_all(), es_safe_position(), es_stream_version().
\set SHOW_CONTEXT never
SELECT es_create_store('regress_read');
SET eventsrc.store = 'regress_read';
SELECT count(*) FROM es_read_all();
SELECT count(*) FROM es_read_stream('Order', '1');
SELECT es_stream_version('Order', '1');

SELECT count(*) FROM generate_series(1, 10) v, es_append('Order', '1', CASE WHEN v % 2 = 0 THEN 'Even' ELSE 'Odd' END, jsonb_build_object('v', v));
SELECT count(*) FROM generate_series(1, 5) v, es_append('Payment', '1', 'Paid', jsonb_build_object('v', v));
SELECT count(*) FROM generate_series(1, 3) v, es_append('Order', '10', 'Even', jsonb_build_object('v', v));

-- one stream
SELECT version, event_type, data FROM es_read_stream('Order', '1');
SELECT array_agg(version) FROM es_read_stream('Order', '1', 4);
SELECT array_agg(version) FROM es_read_stream('Order', '1', 4, 2);
SELECT array_agg(version) FROM es_read_stream('Order', '1', 0);
SELECT array_agg(version) FROM es_read_stream('Order', '1', 11);
SELECT array_agg(version) FROM es_read_stream('Order', '1', max_count => 0);
SELECT array_agg(version) FROM es_read_stream('Order', '1', backward => true);
SELECT array_agg(version) FROM es_read_stream('Order', '1', 4, 2, true);
SELECT array_agg(version) FROM es_read_stream('Order', '1', 0, backward => true);
SELECT array_agg(version) FROM es_read_stream('Order', '1', max_count => 3, backward => true);
SELECT es_stream_version('Order', '1'), es_stream_version('Payment', '1'), es_stream_version('Order', '10'), es_stream_version('Order', '2');
SELECT es_read_stream('Order', '1', max_count => -1);
SELECT es_read_stream('Order', '1', -1);
SELECT es_read_stream(NULL, '1');
SELECT es_read_stream('Order', '');
SELECT es_read_stream('Order', '1', store => 'nowhere');
SELECT es_stream_version('Order', NULL);

-- all, by position
SELECT min(global_position) - 1 AS start FROM regress_read.events \gset
SELECT count(*), bool_and(global_position > coalesce(before, :start)) AS ascending
FROM (SELECT global_position, lag(global_position) OVER () AS before FROM es_read_all()) a;
SELECT aggregate_type, version FROM es_read_all(:start + 9, 3);
SELECT aggregate_type, count(*) FROM es_read_all(:start, NULL, aggregate_types => '{Payment}') GROUP BY 1;
SELECT array_agg(version) FROM es_read_all(:start, 4, aggregate_types => '{Order}', event_types => '{Even}');
SELECT count(*) FROM es_read_all(:start, NULL, aggregate_types => '{}');
SELECT count(*) FROM es_read_all(:start, 0);
SELECT count(*) FROM es_read_all(es_safe_position());
SELECT es_safe_position() >= max(global_position) AS safe FROM regress_read.events;
SELECT es_read_all(-1);
SELECT es_read_all(0, -1);
SELECT es_read_all(0, 1, ARRAY['Order', NULL]);
SELECT es_read_all(store => 'nowhere');

-- paging gives everything once
DO $$
DECLARE at bigint := 0; n int; seen bigint[] := '{}'; page bigint[];
BEGIN
    LOOP
        SELECT array_agg(global_position) INTO page FROM es_read_all(at, 4);
        EXIT WHEN page IS NULL;
        seen := seen || page;
        at := page[array_upper(page, 1)];
    END LOOP;
    RAISE NOTICE '% read, % distinct, all: %', array_length(seen, 1), (SELECT count(DISTINCT p) FROM unnest(seen) p),
        seen = (SELECT array_agg(global_position ORDER BY global_position) FROM regress_read.events);
END $$;

-- a transaction's own events are not below the safe position before it commits; its streams it sees
BEGIN;
SELECT es_safe_position() AS safe \gset
SELECT version FROM es_append('Order', '1', 'Mine');
SELECT es_safe_position() - :safe AS moved;
SELECT count(*) FROM es_read_all(:safe);
SELECT es_stream_version('Order', '1');
SELECT array_agg(version) FROM es_read_stream('Order', '1', 10);
COMMIT;
SELECT es_safe_position() > :safe AS moved;
SELECT event_type FROM es_read_all(:safe);

-- a snapshot's view: streams as the query's snapshot has them
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_stream_version('Order', '1');
SELECT version FROM es_append('Order', '1', 'MineAgain');
SELECT es_stream_version('Order', '1');
ROLLBACK;

-- several partitions: a stream and the global order go across them
SELECT 'regress_read.events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') AS current \gset
CREATE TABLE regress_old (LIKE regress_read.events INCLUDING ALL) USING append_only;
CREATE UNIQUE INDEX ON regress_old (aggregate_type, aggregate_id, version);
CREATE UNIQUE INDEX ON regress_old (global_position);
INSERT INTO regress_old (global_position, aggregate_type, aggregate_id, version, event_id, event_type, schema_version, data, user_id, recorded_at, transaction)
SELECT nextval, 'Old', '1', v, 'old' || v, 'Old', 1, '{}', 'x', '2001-01-15', '3'
FROM generate_series(1, 3) v, LATERAL (SELECT :start - 3 + v AS nextval) p;
ALTER TABLE regress_old SET SCHEMA regress_read;
ALTER TABLE regress_read.events ATTACH PARTITION regress_read.regress_old FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
SELECT array_agg(version) FROM es_read_stream('Old', '1');
SELECT version FROM es_append('Old', '1', 'New', '{}', 2);
SELECT version FROM es_append('Old', '1', 'New', '{}', 3);
SELECT version FROM es_append('Old', '1', 'New', '{}', 4);
SELECT array_agg(version || event_type) FROM es_read_stream('Old', '1');
SELECT array_agg(version || event_type) FROM es_read_stream('Old', '1', 4, 3, true);
SELECT array_agg(version || event_type) FROM es_read_stream('Old', '1', backward => true);
SELECT from_version, (SELECT array_agg(version) FROM es_read_stream('Old', '1', from_version)),
    (SELECT array_agg(version) FROM es_read_stream('Old', '1', from_version, backward => true)) FROM generate_series(0, 6) from_version;
SELECT first_partition = '2001-01-01' AS first, last_partition > '2020-01-01' AS last FROM regress_read.streams WHERE aggregate_type = 'Old';
SELECT array_agg(version || event_type) FROM es_read_all(:start - 3, NULL, '{Old}');

-- row security
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA regress_read TO regress_reader;
SET ROLE regress_reader;
SELECT count(*) FROM es_read_stream('Order', '1');
SELECT count(*) FROM es_read_all();
SELECT es_stream_version('Order', '1');
SELECT es_append('Order', '1', 'E');
RESET ROLE;
GRANT SELECT ON regress_read.events TO regress_reader;
ALTER TABLE regress_read.events ENABLE ROW LEVEL SECURITY;
SET ROLE regress_reader;
SELECT count(*) FROM es_read_stream('Order', '1');
RESET ROLE;
CREATE POLICY even ON regress_read.events FOR SELECT USING (event_type = 'Even');
CREATE POLICY even_only ON regress_read.events FOR INSERT WITH CHECK (event_type = 'Even');
SET ROLE regress_reader;
SELECT array_agg(version) FROM es_read_stream('Order', '1');
SELECT array_agg(version) FROM es_read_stream('Order', '1', 7, 2, true);
SELECT array_agg(aggregate_id || '/' || version) FROM es_read_all();
SELECT array_agg(aggregate_id || '/' || version) FROM es_read_all(:start + 3, 3);
SELECT es_stream_version('Order', '1');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT array_agg(aggregate_id || '/' || version) FROM es_read_all(:start + 3, 3);
COMMIT;
SELECT es_append('Order', '1', 'Even');
RESET ROLE;
GRANT INSERT ON regress_read.events TO regress_reader;
SET ROLE regress_reader;
SELECT version FROM es_append('Order', '1', 'Even', '{}', 11);
SELECT version FROM es_append('Order', '1', 'Even', '{}', 11);
SELECT version FROM es_append('Order', '1', 'Odd', '{}', 12);
SELECT version FROM es_append_events('Order', '1', '{Even,Odd}', '{"{}","{}"}', 12);
SELECT version FROM es_append_events('Order', '1', '{Even,Even}', '{"{}","{}"}', 12);
RESET ROLE;
SELECT array_agg(version || event_type) FROM es_read_stream('Order', '1', 11);
-- who only writes
REVOKE SELECT ON regress_read.events FROM regress_reader;
ALTER TABLE regress_read.events DISABLE ROW LEVEL SECURITY;
SET ROLE regress_reader;
SELECT version FROM es_append('Order', '1', 'Odd', '{}', 14);
SELECT count(*) FROM es_read_stream('Order', '1');
RESET ROLE;
REVOKE USAGE ON SCHEMA regress_read FROM regress_reader;
SET ROLE regress_reader;
SELECT version FROM es_append('Order', '1', 'Odd', '{}', 15);
RESET ROLE;
SELECT es_drop_store('regress_read', 'regress_read');
DROP ROLE regress_reader;
