-- Two stores: "small" with one month of 10,000 events, "large" with 60 months of :events events, 100 a stream.
-- The old months are filled past the trigger, which only a superuser can do.
CREATE EXTENSION eventsrc;
SET client_min_messages = warning;
SET timezone = 'UTC';
SELECT es_create_store('small');
SELECT es_create_store('large');
ALTER TABLE small.events DISABLE TRIGGER eventsrc_snapshot;
ALTER TABLE large.events DISABLE TRIGGER eventsrc_snapshot;
SELECT eventsrc.add_partitions('large.events', date_trunc('month', now()) - interval '59 months', 59);
SELECT set_config('growth.events', :'events', false);
DO $$
DECLARE
    month timestamptz;
    partition regclass;
    streams int := current_setting('growth.events')::bigint / 6000;
BEGIN
    FOR m IN 0 .. 58 LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - make_interval(months => 59 - m);
        SELECT c.oid::regclass INTO partition
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'large.events'::regclass
          AND pg_get_expr(c.relpartbound, c.oid) LIKE '%FROM (''' || to_char(month, 'YYYY-MM-DD') || '%';
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', partition);
        EXECUTE format($q$INSERT INTO %s (global_position, aggregate_type, aggregate_id, version, event_id, event_type,
                                 schema_version, data, user_id, recorded_at, transaction)
            SELECT $1 + i, 'Read', 'm' || $2 || '-' || i / 100, i %% 100 + 1, gen_random_uuid(), 'Deposited', 1,
                   jsonb_build_object('amount', 10, 'note', repeat('x', 180)), 'bench', $3, pg_current_xact_id()
            FROM generate_series(0, $4 * 100 - 1) i$q$, partition)
        USING m::bigint * streams * 100 + 1, m, month + interval '1 day', streams;
        INSERT INTO large.streams (aggregate_type, aggregate_id, first_partition, last_partition, closed)
        SELECT 'Read', 'm' || m || '-' || i, month, month, false FROM generate_series(0, streams - 1) i;
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER eventsrc_append', partition);
    END LOOP;
END $$;
-- this month's, in both
SELECT count(*) FROM generate_series(0, 99) s, unnest(ARRAY['small', 'large']) store,
    es_append_events('Read', 'm59-' || s, array_fill('Deposited'::text, ARRAY[100]),
                     array_fill(jsonb_build_object('amount', 10, 'note', repeat('x', 180)), ARRAY[100]), store => store);
-- a stream of a million events
SELECT count(*) FROM generate_series(1, :long::bigint / 1000) s,
    es_append_events('Read', 'long', array_fill('Deposited'::text, ARRAY[1000]),
                     array_fill(jsonb_build_object('amount', 10), ARRAY[1000]), (s - 1) * 1000, store => 'large');
VACUUM ANALYZE large.events, small.events, large.streams, small.streams;
