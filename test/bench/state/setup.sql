-- streams of 100 and 1000 events without snapshots, and the hand-written SQL
-- that es_state() is measured against
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_aggregate(t, snapshot_every => 0) FROM unnest('{Bench,Plpgsql,Branches}'::text[]) t;
CREATE AGGREGATE bench_merge(jsonb) (sfunc = jsonb_concat, stype = jsonb, initcond = '{}');
CREATE FUNCTION bench_reducer(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN RETURN state || event.data; END $$;
CREATE FUNCTION bench_plpgsql_loop(n text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    event es_event;
BEGIN
    FOR event IN SELECT e.* FROM es.events e
                 WHERE aggregate_type = 'Plpgsql' AND aggregate_id = n ORDER BY version LOOP
        state := bench_reducer(state, event);
    END LOOP;
    RETURN state;
END
$$;
SELECT es_create_aggregate('Plpgsql', 'bench_reducer(jsonb,es_event)', snapshot_every => 0);
CREATE FUNCTION bench_branches(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    total numeric := coalesce((state ->> 'total')::numeric, 0);
BEGIN
    CASE event.event_type
        WHEN 'Placed' THEN
            RETURN state || event.data;
        WHEN 'Changed' THEN
            state := state || jsonb_build_object('total', total + (event.data ->> 'total')::numeric, 'status', event.data -> 'status');
        WHEN 'Noted' THEN
            state := jsonb_set(state, '{note}', event.data -> 'changed');
    END CASE;
    RETURN state || jsonb_build_object('last', event.version);
END
$$;
CREATE FUNCTION bench_branches_loop(n text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    event es_event;
BEGIN
    FOR event IN SELECT e.* FROM es.events e
                 WHERE aggregate_type = 'Branches' AND aggregate_id = n ORDER BY version LOOP
        state := bench_branches(state, event);
    END LOOP;
    RETURN state;
END
$$;
SELECT es_create_aggregate('Branches', 'bench_branches(jsonb,es_event)', snapshot_every => 0);
INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data)
SELECT t, n::text, CASE WHEN t <> 'Branches' THEN 'Changed' ELSE ('{Placed,Changed,Changed,Noted}'::text[])[1 + i % 4] END,
       jsonb_build_object('status', 'state ' || i % 5, 'total', i * 1.25, 'field' || i % 8, 'value ' || i,
                          'changed', jsonb_build_object('by', 'user ' || i % 17, 'n', i))
FROM unnest('{Bench,Plpgsql,Branches}'::text[]) t, unnest('{100,1000}'::int[]) n, generate_series(1, n) i;
VACUUM (ANALYZE) es.events;
DO $$
BEGIN
    IF es_state('Bench', '1000') IS DISTINCT FROM
        (SELECT bench_merge(data ORDER BY version) FROM es.events WHERE aggregate_type = 'Bench' AND aggregate_id = '1000') THEN
        RAISE 'the two sides compute different states';
    END IF;
    IF es_state('Plpgsql', '1000') <> bench_plpgsql_loop('1000') OR es_state('Branches', '1000') <> bench_branches_loop('1000') THEN
        RAISE 'the loop computes another state';
    END IF;
END $$;
-- one long stream, 50 events after its last snapshot; and many short ones, their events mixed as they come in
SELECT es_create_aggregate('Many', snapshot_every => 0);
INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Long', 'long', 'Changed', jsonb_build_object('status', 'state ' || i % 5, 'total', i * 1.25, 'field' || i % 8, 'value ' || i,
                                                     'changed', jsonb_build_object('by', 'user ' || i % 17, 'n', i))
FROM generate_series(1, :events / 100 * 100 + 50) i;
INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Many', (i % (:events / 10))::text, 'Changed',
       jsonb_build_object('status', 'state ' || i % 5, 'total', i * 1.25, 'field' || i % 8, 'value ' || i)
FROM generate_series(1, :events) i;
VACUUM (ANALYZE) es.events;
