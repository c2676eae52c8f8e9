-- Reducers: merge patch, typed states, dry runs, replays, undo
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT es_create_store('regress_reducers');
SET eventsrc.store = 'regress_reducers';
RESET client_min_messages;

--
-- merge patch: the test cases of RFC 7396, called as a function and folded
--
SELECT es_create_aggregate('Patched', 'es_merge_patch(jsonb,es_event)');
CREATE TEMPORARY TABLE vectors (n serial, original jsonb, patch jsonb, result jsonb);
INSERT INTO vectors (original, patch, result) VALUES
    ('{"a":"b"}',           '{"a":"c"}',                   '{"a":"c"}'),
    ('{"a":"b"}',           '{"b":"c"}',                   '{"a":"b","b":"c"}'),
    ('{"a":"b"}',           '{"a":null}',                  '{}'),
    ('{"a":"b","b":"c"}',   '{"a":null}',                  '{"b":"c"}'),
    ('{"a":["b"]}',         '{"a":"c"}',                   '{"a":"c"}'),
    ('{"a":"c"}',           '{"a":["b"]}',                 '{"a":["b"]}'),
    ('{"a":{"b":"c"}}',     '{"a":{"b":"d","c":null}}',    '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}',   '{"a":[1]}',                   '{"a":[1]}'),
    ('["a","b"]',           '["c","d"]',                   '["c","d"]'),
    ('{"a":"b"}',           '["c"]',                       '["c"]'),
    ('{"a":"foo"}',         '"bar"',                       '"bar"'),
    ('{"e":null}',          '{"a":1}',                     '{"e":null,"a":1}'),
    ('[1,2]',               '{"a":"b","c":null}',          '{"a":"b"}'),
    ('{}',                  '{"a":{"bb":{"ccc":null}}}',   '{"a":{"bb":{}}}');
SELECT count(*), count(*) FILTER (WHERE es_merge_patch(original,
           ROW(1, 'A', '1', 1, 'e', 't', 1, patch, NULL, 'u', NULL, NULL, NULL, now(), NULL, '1')::es_event) = result) AS right
FROM vectors;
-- (an event's data cannot be null, so the fifteenth is for the function alone)
SELECT es_merge_patch('{"a":"foo"}', ROW(1, 'A', '1', 1, 'e', 't', 1, 'null', NULL, 'u', NULL, NULL, NULL, now(), NULL, '1')::es_event);
-- {"a": null} as original is not reached by patches, so the original is restored first
DO $$
DECLARE
    v record;
BEGIN
    FOR v IN SELECT * FROM vectors LOOP
        PERFORM es_append('Patched', v.n::text, 'StateRestored', jsonb_build_object('restored_version', 0, 'state', v.original));
        PERFORM es_append('Patched', v.n::text, 'Changed', v.patch);
        ASSERT es_state('Patched', v.n::text) = v.result, format('vector %s: %s', v.n, es_state('Patched', v.n::text));
    END LOOP;
END
$$;
-- many patches in a row, against a model in SQL
CREATE FUNCTION regress_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    k text;
    v jsonb;
BEGIN
    IF jsonb_typeof(patch) <> 'object' THEN
        RETURN patch;
    END IF;
    IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN
        target := '{}';
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each(patch) LOOP
        IF v = 'null' THEN
            target := target - k;
        ELSE
            target := jsonb_set(target, ARRAY[k], regress_patch(target -> k, v));
        END IF;
    END LOOP;
    RETURN target;
END
$$;
CREATE FUNCTION regress_random(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN depth > 0 AND random() < 0.6
        THEN (SELECT coalesce(jsonb_object_agg('k' || repeat('x', (random() * 3)::int) || (random() * 5)::int, regress_random(depth - 1)), '{}')
              FROM generate_series(1, 1 + (random() * 5)::int))
        ELSE (ARRAY['null', '1', '"text"', '[1, {"a": null}]', 'true', '{}', '1.50', '[]']::jsonb[])[1 + floor(random() * 8)::int] END;
END
$$;
SELECT setseed(0.42) IS NOT NULL AS seeded;
DO $$
DECLARE
    model jsonb := '{}';
    patch jsonb;
BEGIN
    FOR i IN 1 .. 300 LOOP
        patch := jsonb_build_object('r', regress_random(4), 's' || i % 7, regress_random(2));
        PERFORM es_append('Patched', 'random', 'Changed', patch);
        model := regress_patch(model, patch);
        ASSERT es_state('Patched', 'random')::text = model::text, format('version %s', i);
    END LOOP;
END
$$;
SELECT count(*) > 1 AS keys FROM jsonb_object_keys(es_state('Patched', 'random'));

--
-- typed states
--
CREATE TYPE regress_order AS (status text, total numeric(10,2), lines int, tags text[], placed timestamptz);
CREATE FUNCTION regress_order_reducer(state regress_order, event es_event) RETURNS regress_order LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF event.event_type = 'Broken' THEN
        RAISE EXCEPTION 'broken %', event.data;
    ELSIF event.event_type = 'Ignored' THEN
        RETURN state;
    END IF;
    state.status := event.event_type;
    state.total := coalesce(state.total, 0) + coalesce((event.data ->> 'amount')::numeric, 0);
    state.lines := coalesce(state.lines, 0) + 1;
    state.tags := state.tags || (event.data ->> 'tag');
    RETURN state;
END
$$;
SELECT es_create_aggregate('Order', 'regress_order_reducer(regress_order,es_event)', 'null', snapshot_every => 3);
SELECT version FROM es_append('Order', '1', 'Placed', '{"amount": 10, "tag": "a"}');
SELECT version FROM es_append('Order', '1', 'Repriced', '{"amount": 2.345}');
SELECT version FROM es_append('Order', '1', 'Ignored');
SELECT version FROM es_append('Order', '1', 'Paid', '{"tag": "b, \"c\""}');
SELECT v, es_state('Order', '1', v) FROM generate_series(1, 4) v;
SELECT * FROM es_state_as(NULL::regress_order, 'Order', '1');
SELECT (es_state_as(NULL::regress_order, 'Order', '1', 2)).total;
SELECT es_state_as(NULL::regress_order, 'Order', 'none') IS NULL AS none;
SELECT snapshot_version, events_replayed, reducer ~ '^public\.regress_order_reducer\(public\.regress_order,public\.es_event\)#' AS named
FROM es_explain_state('Order', '1');
SELECT aggregate_id, version, state ->> 'total' AS total FROM es_states('Order');
-- the type is part of the reducer's identity
ALTER TYPE regress_order ADD ATTRIBUTE note text;
SELECT snapshot_version, events_replayed FROM es_explain_state('Order', '1');
SELECT es_state('Order', '1') ? 'note' AS note;
-- an initial state that is a row
SELECT es_create_aggregate('Order', 'regress_order_reducer(regress_order,es_event)', '{"total": 5, "tags": ["x"]}', snapshot_every => 0);
SELECT es_state('Order', '1', 1);
-- of merged states
SELECT version FROM es_append('Cart', '1', 'Changed', '{"status": "open", "total": "7.1", "other": 1}');
SELECT (es_state_as(NULL::regress_order, 'Cart', '1')).*;
-- mistakes
CREATE FUNCTION regress_mixed(state regress_order, event es_event) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb($1)';
SELECT es_create_aggregate('Bad', 'regress_mixed(regress_order,es_event)');
\echo :LAST_ERROR_SQLSTATE
SELECT es_state_as(NULL::text, 'Order', '1');
SELECT version FROM es_append('Order', '2', 'Broken');
\set SHOW_CONTEXT errors
SELECT es_state('Order', '2');
\set SHOW_CONTEXT never
-- a strict reducer that starts from NULL
CREATE FUNCTION regress_strict(state regress_order, event es_event) RETURNS regress_order LANGUAGE sql STRICT AS 'SELECT $1';
SELECT es_create_aggregate('Order', 'regress_strict(regress_order,es_event)', 'null', snapshot_every => 0);
SELECT es_state('Order', '1');
\echo :LAST_ERROR_SQLSTATE
DROP FUNCTION regress_strict;
SELECT es_state('Order', '1');
\echo :LAST_ERROR_SQLSTATE

--
-- dry runs
--
CREATE FUNCTION regress_new(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF event.data ? 'bad' THEN
        RAISE EXCEPTION 'cannot digest %', event.data ->> 'bad';
    END IF;
    RETURN state || (event.data - 'secret');
END
$$;
SELECT count(es_append('User', i::text, 'Changed', CASE i % 4 WHEN 0 THEN '{"a": 1, "secret": 2}' WHEN 1 THEN '{"bad": "x", "a": 2}' ELSE '{"a": 3}' END::jsonb))
FROM generate_series(1, 8) i;
SELECT * FROM es_dry_run('User', 'regress_new(jsonb,es_event)');
SELECT aggregate_id FROM es_dry_run('User', 'regress_new(jsonb,es_event)', sample => 3);
SELECT aggregate_id, changes FROM es_dry_run('User', NULL, '{"new": true}', sample => 1);
SELECT * FROM es_dry_run('User', 'es_merge_patch(jsonb,es_event)', sample => NULL);
SELECT * FROM es_dry_run('User', 'regress_new(jsonb,es_event)', sample => -1);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM es_dry_run('User', 'regress_mixed(regress_order,es_event)');
\echo :LAST_ERROR_SQLSTATE

--
-- replays
--
SELECT version FROM es_append('User', '9', 'Changed', '{"a": 1, "secret": 1}');
SELECT version FROM es_append('User', '9', 'Changed', '{"a": 2}');
SELECT version FROM es_append('User', '9', 'Changed', '{"bad": true}');
SELECT version FROM es_append('User', '9', 'Changed', '{"a": 4}');
SELECT version, event_type, data, state_before, state_after, changes, error FROM es_replay('User', '9');
SELECT version, state_after, error FROM es_replay('User', '9', 'regress_new(jsonb,es_event)');
SELECT version, state_after, error FROM es_replay('User', '9', 'regress_new(jsonb,es_event)', 2, 2, '{"from": 0}');
SELECT count(*) FROM es_replay('User', 'none');
SELECT version, state_before, error FROM es_replay('Order', '2', 'regress_order_reducer(regress_order,es_event)', initial => 'null');

--
-- undo
--
SELECT version FROM es_undo('User', '9', 2, 'a bad event');
SELECT version, event_type, data FROM es_read_stream('User', '9', backward => true, max_count => 1);
SELECT es_state('User', '9') = es_state('User', '9', 2) AS back, es_state('User', '9', 4);
SELECT version FROM es_append('User', '9', 'Changed', '{"b": 1}');
SELECT es_state('User', '9');
SELECT version FROM es_undo('User', '9', 0);
SELECT es_state('User', '9');
SELECT version FROM es_undo('User', '9', 5);
SELECT state = es_state('User', '9', 2) AS back, changes FROM es_history('User', '9', 7, 7);
-- whatever the reducer; its own eyes do not see the event
SELECT version FROM es_undo('Patched', 'random', 100);
SELECT es_state('Patched', 'random') = es_state('Patched', 'random', 100) AS back;
SELECT es_create_aggregate('Order', 'regress_order_reducer(regress_order,es_event)', 'null', snapshot_every => 0);
SELECT version FROM es_undo('Order', '1', 2);
SELECT es_state('Order', '1') = es_state('Order', '1', 2) AS back;
SELECT version FROM es_undo('Order', '1', 0);
SELECT es_state('Order', '1');
SELECT version FROM es_append('Order', '1', 'Placed', '{"amount": 1}');
SELECT es_state('Order', '1') ->> 'total' AS total;
SELECT es_states('Order');
SELECT version, error FROM es_replay('Order', '2');
-- an application's own event of that name is folded as any other
SELECT version FROM es_append('User', '10', 'StateRestored', '{"state": {"x": 1}}');
SELECT es_state('User', '10');
-- mistakes
SELECT es_undo('User', '9', 99);
\echo :LAST_ERROR_SQLSTATE
SELECT es_undo('User', '9', 8);
\echo :LAST_ERROR_SQLSTATE
SELECT es_undo('User', '9', -1);
\echo :LAST_ERROR_SQLSTATE
SELECT es_undo('User', 'none', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT es_undo('User', '9', 1, expected_version => 3);
\echo :LAST_ERROR_SQLSTATE
SELECT es_undo('User', '9', 1, store => 'regress_nowhere');
\echo :LAST_ERROR_SQLSTATE
BEGIN READ ONLY;
SELECT es_undo('User', '9', 1);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- not by those who do not see all of it
CREATE ROLE regress_reducers_user;
GRANT USAGE ON SCHEMA regress_reducers TO regress_reducers_user;
GRANT SELECT, INSERT ON regress_reducers.events TO regress_reducers_user;
ALTER TABLE regress_reducers.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON regress_reducers.events TO regress_reducers_user USING (version <> 2) WITH CHECK (true);
SET ROLE regress_reducers_user;
SELECT es_undo('User', '9', 3);
\echo :LAST_ERROR_SQLSTATE
SELECT version FROM es_undo('User', '9', 1);
RESET ROLE;
SELECT es_state('User', '9') = es_state('User', '9', 1) AS back;

--
-- extremes: deep, and big
--
SELECT count(es_append(t, k, 'Changed', (repeat('{"a":', d) || n || repeat('}', d))::jsonb))
FROM (VALUES ('Deep', '1', 10000), ('Deep', '2', 1000), ('Patched', 'deep', 1000)) x (t, k, d), generate_series(1, 2) n;
SELECT aggregate_id, version, length(state::text) FROM es_states('Deep');
SELECT length(es_diff('Deep', '2', 1)::text) AS diff, length(es_state('Patched', 'deep')::text) AS patched;
SELECT version FROM es_append('Big', '1', 'Changed', jsonb_build_object('a', repeat('x', 1000000)));
SELECT version FROM es_append('Big', '1', 'Changed', jsonb_build_object('b', repeat('y', 1000000)));
SELECT length(es_state('Big', '1')::text), length(es_diff('Big', '1', 1)::text);
SELECT version FROM es_undo('Big', '1', 1);
SELECT length(es_state('Big', '1')::text);

SET client_min_messages = warning;
SELECT es_drop_store('regress_reducers', 'regress_reducers');
DROP ROLE regress_reducers_user;
DROP FUNCTION regress_patch, regress_random, regress_order_reducer, regress_mixed, regress_new;
DROP TYPE regress_order;
