-- The built-in merge over objects whose keys are the same, nearly the same, few, many and long
SELECT es_create_store('regress_shapes');
SET eventsrc.store = 'regress_shapes';
SELECT es_create_aggregate(t, snapshot_every => 0) FROM unnest('{Merged,Patched}'::text[]) t;
SELECT es_create_aggregate('Patched', 'es_merge_patch(jsonb,es_event)', snapshot_every => 0);
CREATE AGGREGATE regress_merge(jsonb) (sfunc = jsonb_concat, stype = jsonb, initcond = '{}');

-- shape s has keys of its own: so many that the memory of them is too small, and often again
SELECT count(*) FROM
    (SELECT array_agg('T'::text) AS types, array_agg(coalesce(o, '{}') ORDER BY i) AS datas FROM
        (SELECT i, s, (SELECT jsonb_object_agg(CASE WHEN s % 11 = 0 THEN repeat('long ', 60) ELSE '' END || substr(md5((k * (s % 5 + 1))::text), 1, k % 12) || CASE k % 3 WHEN 0 THEN chr(97 + s % 26) ELSE '' END,
                               CASE (k + i) % 6 WHEN 0 THEN to_jsonb(i) WHEN 1 THEN to_jsonb('t' || i) WHEN 2 THEN 'null' WHEN 3 THEN to_jsonb(i % 2 = 0)
                                                WHEN 4 THEN jsonb_build_array(i, 'x') ELSE jsonb_build_object('i', i, 'in', jsonb_build_object('k', k)) END)
                       FROM generate_series(1, s % 40) k) AS o
         FROM generate_series(1, 500) i, LATERAL (SELECT CASE WHEN i % 4 = 0 THEN i % 97 ELSE i % 5 + 1 END AS s) x) y) z,
    unnest('{Merged,Patched}'::text[]) type, es_append_events(type, '1', types, datas);
SELECT v, es_state('Merged', '1', v) = (SELECT regress_merge(data ORDER BY version) FROM regress_shapes.events WHERE aggregate_type = 'Merged' AND version <= v) AS same
FROM unnest('{1,2,3,10,50,97,300,499,500}'::int[]) v ORDER BY v;
-- the same bytes, not only the same value
SELECT count(*) FROM generate_series(2, 500, 83) v
WHERE jsonb_send(es_state('Merged', '1', v)) <> jsonb_send((SELECT regress_merge(data ORDER BY version) FROM regress_shapes.events WHERE aggregate_type = 'Merged' AND version <= v))
   OR pg_column_size(es_state('Merged', '1', v)) <> pg_column_size((SELECT regress_merge(data ORDER BY version) FROM regress_shapes.events WHERE aggregate_type = 'Merged' AND version <= v));
-- a patch removes keys, which come again
CREATE FUNCTION regress_patch(state jsonb, patch jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(patch) = 'object' THEN
        coalesce((SELECT jsonb_object_agg(key, CASE WHEN p.key IS NULL THEN s.value ELSE regress_patch(s.value, p.value) END)
                  FROM jsonb_each(CASE jsonb_typeof(state) WHEN 'object' THEN state ELSE '{}' END) s FULL JOIN jsonb_each(patch) p USING (key)
                  WHERE p.value IS DISTINCT FROM 'null'), '{}') ELSE patch END $$;
CREATE AGGREGATE regress_patched(jsonb) (sfunc = regress_patch, stype = jsonb, initcond = '{}');
SELECT v, es_state('Patched', '1', v) = (SELECT regress_patched(data ORDER BY version) FROM regress_shapes.events WHERE aggregate_type = 'Patched' AND version <= v) AS same
FROM unnest('{1,7,40}'::int[]) v ORDER BY v;
-- a state that begins with something, and es_undo() in between
SELECT es_create_aggregate('Merged', initial => '{"k": 0, "a": {"b": 1}}', snapshot_every => 0);
SELECT version > 0 AS undone FROM es_undo('Merged', '1', 20, 'as it was');
SELECT count(*) FROM es_append_events('Merged', '1', array_fill('T'::text, ARRAY[9]), (SELECT array_agg(jsonb_build_object('a', i, 'new', i)) FROM generate_series(1, 9) i));
SELECT es_state('Merged', '1') = es_state('Merged', '1', 20) || '{"a": 9, "new": 9}' AS same;

SET client_min_messages = warning;
SELECT es_drop_store('regress_shapes', 'regress_shapes');
DROP AGGREGATE regress_merge(jsonb), regress_patched(jsonb);
DROP FUNCTION regress_patch;
