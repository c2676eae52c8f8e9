-- Streams are read page by page: rows that nobody may see, rows of many streams, wide ones, and those of later
\set SHOW_CONTEXT never
SELECT es_create_store('regress_pages');
SET eventsrc.store = 'regress_pages';
SELECT es_create_aggregate(t, snapshot_every => 0) FROM unnest('{Page,Wide}'::text[]) t;

-- a third of the appends is rolled back, and their versions are taken again
DO $$
BEGIN
    FOR i IN 1 .. 900 LOOP
        BEGIN
            PERFORM es_append('Page', (i % 2)::text, 'Placed', jsonb_build_object('i', i, 'k' || i % 7, repeat('x', i % 50)));
            IF i % 3 = 0 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
END
$$;
CREATE AGGREGATE regress_merge(jsonb) (sfunc = jsonb_concat, stype = jsonb, initcond = '{}');
CREATE FUNCTION regress_wrong() RETURNS TABLE (id text, v bigint) LANGUAGE sql AS $$
    SELECT s.aggregate_id, v FROM (SELECT aggregate_id, count(*) AS n FROM regress_pages.events WHERE aggregate_type = 'Page' GROUP BY 1) s,
        unnest(ARRAY[1, 2, 5, 37, 64, 65, 128, n - 1, n]) v
    WHERE es_state('Page', aggregate_id, v) IS DISTINCT FROM
              (SELECT regress_merge(data ORDER BY version) FROM regress_pages.events e WHERE e.aggregate_type = 'Page' AND e.aggregate_id = s.aggregate_id AND version <= v)
       OR (SELECT array_agg(to_jsonb(e)) FROM es_read_stream('Page', aggregate_id, v) e) IS DISTINCT FROM
              (SELECT array_agg(to_jsonb(e) ORDER BY version) FROM regress_pages.events e WHERE e.aggregate_type = 'Page' AND e.aggregate_id = s.aggregate_id AND version >= v)
       OR (SELECT array_agg(version) FROM es_read_stream('Page', aggregate_id, v, backward => true)) IS DISTINCT FROM
              (SELECT array_agg(version ORDER BY version DESC) FROM regress_pages.events e WHERE e.aggregate_type = 'Page' AND e.aggregate_id = s.aggregate_id AND version <= v)
$$;
SELECT aggregate_id, count(*), max(version) FROM regress_pages.events WHERE aggregate_type = 'Page' GROUP BY 1 ORDER BY 1;
SELECT * FROM regress_wrong();
SELECT count(*), count(DISTINCT global_position) FROM es_read_all(0, NULL) WHERE aggregate_type = 'Page';
VACUUM regress_pages.events;
SELECT * FROM regress_wrong();

-- a cursor sees what there was when it was opened, though the page has more by now
BEGIN;
DECLARE pages CURSOR FOR SELECT version FROM es_read_stream('Page', '1');
FETCH 1 FROM pages;
SELECT count(*) FROM es_append_events('Page', '1', array_fill('Placed'::text, ARRAY[200]), array_fill('{}'::jsonb, ARRAY[200]));
MOVE 293 IN pages;
FETCH ALL FROM pages;
SELECT count(*) FROM es_read_stream('Page', '1');
ROLLBACK;

-- columns that are long, compressed or stored elsewhere, and others that are NULL
SELECT count(es_append('Wide', repeat('i', 500), repeat('t', 1 + 80 * (v % 3)), jsonb_build_object('v', v, 'k' || v % 4, repeat('w', (v % 5) * 900)),
    metadata => CASE v % 2 WHEN 0 THEN jsonb_build_object('m', repeat('m', v * 100)) END)) FROM generate_series(1, 40) v;
SELECT es_state('Wide', repeat('i', 500)) = (SELECT regress_merge(data ORDER BY version) FROM regress_pages.events WHERE aggregate_type = 'Wide') AS same;
SELECT count(*) FROM (SELECT to_jsonb(e) FROM es_read_stream('Wide', repeat('i', 500)) e EXCEPT SELECT to_jsonb(e) FROM regress_pages.events e) x;
CREATE FUNCTION regress_columns(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN state || jsonb_build_object(event.version::text, md5(concat_ws('/', event.aggregate_type, event.aggregate_id, event.event_type, event.data, event.metadata, event.user_id, event.occurred_at, event.event_id)));
END
$$;
SELECT es_create_aggregate('Wide', 'regress_columns(jsonb,es_event)', snapshot_every => 0);
SELECT es_state('Wide', repeat('i', 500)) =
    (SELECT jsonb_object_agg(version, md5(concat_ws('/', aggregate_type, aggregate_id, event_type, data, metadata, user_id, occurred_at, event_id))) FROM regress_pages.events WHERE aggregate_type = 'Wide') AS same;

SET client_min_messages = warning;
SELECT es_drop_store('regress_pages', 'regress_pages');
DROP FUNCTION regress_wrong, regress_columns;
DROP AGGREGATE regress_merge(jsonb);
