-- Reducers that the fold runs itself give what calling them gives: states, errors and their context
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT es_create_store('regress_programs');
SET eventsrc.store = 'regress_programs';
CREATE SCHEMA regress_kept;
RESET client_min_messages;

-- how deep the calls are at the moment: less where the fold does not call the reducer
CREATE FUNCTION regress_depth(version bigint) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) FROM pg_backend_memory_contexts WHERE name IN ('SPI Proc', 'ExecutorState'));
END
$$;
CREATE FUNCTION regress_amount(event es_event) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT (event.data ->> 'n')::numeric $$;

--
-- PL/pgSQL
--
CREATE FUNCTION regress_merging(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS
$$ BEGIN RETURN state || event.data || jsonb_build_object('depth', regress_depth(event.version)); END $$;
CREATE FUNCTION regress_branches(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    n numeric := (event.data ->> 'n')::numeric;
    note text;
    unused record;
BEGIN
    IF event.event_type = 'Placed' THEN
        RETURN state || jsonb_build_object('status', 'placed', 'total', n, 'placed', event.data);
    ELSIF event.event_type IN ('Paid', 'Refunded') THEN
        note := 'was ' || coalesce(state ->> 'status', 'nothing');
        state := state || jsonb_build_object('note', note);
        IF event.event_type = 'Refunded' THEN
            state := jsonb_set(state, '{total}', to_jsonb(coalesce((state ->> 'total')::numeric, 0) - n));
        ELSE
            BEGIN
                state := jsonb_set(state || '{"paid": true}', '{total}', to_jsonb(coalesce((state ->> 'total')::numeric, 0) + n));
            END;
        END IF;
    ELSIF event.event_type = 'Ignored' THEN
        RETURN state;
    ELSIF event.event_type = 'Cleared' THEN
        state := state - 'status' - 'note';
        state := state || '{"cleared": true}';
    ELSE
        RETURN jsonb_set(state, ARRAY['others', event.event_type], '1', false);
    END IF;
    RETURN state;
END
$$;
CREATE FUNCTION regress_cases(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    result jsonb;
    counts int[] := ARRAY[1, 2];
    today date := now();
    small numeric(4,1) := 12.345;
    label varchar(3) := event.version;
    price text := 0;
BEGIN
    price := (event.data ->> 'n')::numeric / 3;
    small := price;
    CASE event.event_type
        WHEN 'Placed', 'Added' THEN
            result := state || jsonb_build_object('items', coalesce(state -> 'items', '[]') || event.data, 'version', event.version);
        WHEN 'Paid' THEN
            CASE WHEN state #>> '{paid,n}' IS NULL THEN RETURN state || jsonb_build_object('paid', event.data);
                 WHEN event.data ? 'n' THEN RETURN state || jsonb_build_object('paid', NULL, 'again', regress_amount(event));
            END CASE;
        WHEN 'Ignored' THEN
            NULL;
            result := state;
        WHEN 'Cleared' THEN
            result := '{}';
        WHEN 'Refunded' THEN
            counts := counts || event.version::int;
            result := state || jsonb_build_object('counts', counts, 'today', today IS NOT NULL, 'converted', ARRAY[small::text, label, price]);
    END CASE;
    RETURN result;
END
$$;
-- values of all kinds, looked at as jsonb and as text, before and after they changed
CREATE FUNCTION regress_looks(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    state := state || jsonb_build_object('text', state ->> 'v', 'json', state -> 'v', 'absent', state ->> 'none', 'type', event.event_type);
    state := state || jsonb_build_object('v', event.data -> 'v');
    RETURN state || jsonb_build_object('now', state ->> 'v', 'typed', jsonb_typeof(state -> 'v'), 'whole', length(state::text));
END
$$;
-- values of all types, put into objects
CREATE FUNCTION regress_objects(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    n numeric := (event.data ->> 'n')::numeric;
    name varchar(9) := event.event_type;
BEGIN
    CASE event.event_type
        WHEN 'Placed' THEN n := 'NaN';
        WHEN 'Paid' THEN n := n / 7;
        WHEN 'Added' THEN n := n * 1e40 + 0.500;
        WHEN 'Refunded' THEN n := NULL;
        WHEN 'Cleared' THEN IF event.version > 20 THEN n := '-Infinity'; END IF;
        ELSE name := '';
    END CASE;
    RETURN state || jsonb_build_object('n', n, 'twice', 1, 'twice', name, 'v', event.data -> 'v', 'text', event.data ->> 'v', 'big', event.version * -1000000000000,
                                       'int', event.version::int - 5, 'yes', event.version > 3, 'no', NULL::boolean, 'unknown', 'literal', 'null', NULL, '', 'empty')
        || jsonb_build_object() || jsonb_build_object(event.event_type, 1)
        || jsonb_build_object('seen', state ->> 'n', 'at', event.recorded_at > '2020-01-01', 'date', date '2020-01-02', 'deep', jsonb_build_object('n', n, 'list', jsonb_build_array(n, name)));
END
$$;
-- values that take one another's places
CREATE FUNCTION regress_swaps(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.event_type = 'Placed' THEN
        RETURN state || event.data || jsonb_build_object('long', repeat('y', event.version::int * 20));
    ELSIF event.event_type = 'Paid' THEN
        state := state || jsonb_build_object('n', (state ->> 'n')::numeric + 1, 'm', (event.data ->> 'n')::numeric);
        RETURN jsonb_set(state, '{m}', state -> 'n') || jsonb_build_object('n', state -> 'm', 'was', (state ->> 'w') IS NULL);
    END IF;
    RETURN state || jsonb_build_object('v', state -> 'w', 'w', state -> 'long', 'long', state -> 'v') || jsonb_build_object('w', state -> 'v', 'v', state -> 'w');
END
$$;
-- texts as numbers, which some are not
CREATE FUNCTION regress_numbers_fail(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    n numeric(6,1) := (event.data ->> 'n')::numeric(6,2);
BEGIN
    IF event.event_type = 'Placed' THEN
        RETURN state || event.data || jsonb_build_object('m', '1e3', 'o', (state ->> 'f1')::numeric);
    ELSIF event.event_type = 'Paid' THEN
        RETURN state || jsonb_build_object('v', (state ->> 'v')::numeric, 'm', coalesce((state ->> 'm')::numeric, 0) + n);
    ELSIF event.event_type = 'Refunded' THEN
        RETURN state || jsonb_build_object('w', (event.data ->> 'v')::numeric, 'none', (event.metadata ->> 'v')::numeric);
    END IF;
    RETURN state || jsonb_build_object('e', (event.data -> 'v' ->> 'a')::numeric);
END
$$;
-- states that are no objects, and get to be such
CREATE FUNCTION regress_shapes(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.event_type = 'Placed' THEN
        RETURN event.data;
    ELSIF event.event_type = 'Added' THEN
        RETURN state || '[1, {"a": 2}]';
    ELSIF event.event_type = 'Paid' THEN
        RETURN state || '{"a": null}' || event.data;
    ELSIF event.event_type = 'Cleared' THEN
        RETURN '"text"';
    ELSIF event.event_type = 'Refunded' THEN
        RETURN jsonb_set(state, '{a}', '[]');
    END IF;
    RETURN state || jsonb_build_object('seen', state ->> 'a', 'version', event.version);
END
$$;
-- what only a call can do, here and there
CREATE FUNCTION regress_calls(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    keys int := 0;
BEGIN
    IF event.event_type = 'Placed' THEN
        SELECT count(*) INTO keys FROM jsonb_object_keys(state);
    ELSIF event.event_type = 'Paid' THEN
        FOR i IN 1 .. 3 LOOP
            keys := keys + i;
        END LOOP;
    ELSIF event.event_type = 'Refunded' THEN
        BEGIN
            keys := 1 / (event.data ->> 'n')::int;
        EXCEPTION WHEN division_by_zero THEN
            keys := -1;
        END;
    ELSIF event.event_type = 'Cleared' THEN
        event.event_type := 'Changed';
        RETURN state || jsonb_build_object('type', event.event_type);
    END IF;
    RETURN state || jsonb_build_object('keys', keys, 'k' || event.version % 3, event.event_type);
END
$$;
CREATE FUNCTION regress_fails(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    quotient numeric := 100 / (event.data ->> 'n')::int;
BEGIN
    IF event.event_type = 'Paid' AND event.version > 4 THEN
        RAISE EXCEPTION 'cannot pay %', event.data;
    ELSIF event.event_type = 'Refunded' AND event.version > 4 THEN
        state := state || NULL;
    ELSIF event.event_type = 'Cleared' AND event.version > 4 THEN
        state := state || jsonb_build_object('x', 1 / (event.version - event.version));
    ELSIF event.event_type = 'Added' AND event.version > 4 THEN
        IF (event.data ->> 'n')::int / 0 = 1 THEN
            RETURN state;
        END IF;
    END IF;
    IF event.event_type <> 'Ignored' THEN
        RETURN state || jsonb_build_object('q', quotient, 'version', event.version);
    END IF;
END
$$;

-- a stable function in a volatile one sees the latest
CREATE TABLE regress_kept.rates AS SELECT 2 AS rate;
CREATE FUNCTION regress_rate() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT rate FROM regress_kept.rates); END $$;
CREATE FUNCTION regress_rated(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.event_type = 'Cleared' THEN
        UPDATE regress_kept.rates SET rate = rate + 1;
    END IF;
    RETURN state || jsonb_build_object('r' || event.version, regress_rate());
END
$$;

--
-- SQL
--
CREATE FUNCTION regress_sql_merging(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS
$$ SELECT coalesce(state, '{}') || event.data || jsonb_build_object('depth', regress_depth(event.version)) $$;
CREATE FUNCTION regress_sql_case(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql
RETURN CASE event.event_type
    WHEN 'Placed' THEN state || jsonb_build_object('total', regress_amount(event))
    WHEN 'Paid' THEN jsonb_set(state, '{total}', to_jsonb(coalesce((state ->> 'total')::numeric, 0) + 1))
    WHEN 'Refunded' THEN CASE WHEN state ? 'total' THEN state - 'total' ELSE state || event.data END
    WHEN 'Cleared' THEN event.data
    ELSE state END;
CREATE FUNCTION regress_sql_fails(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS
$$ SELECT state || jsonb_build_object('q', 100 / (event.data ->> 'n')::int, 'q' || event.version % 2, event.metadata ->> 'none') $$;
CREATE FUNCTION regress_sql_looks(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS
$$ SELECT state || jsonb_build_object('sum', coalesce((state ->> 'sum')::numeric, 0) + (event.data ->> 'n')::numeric, 'last', event.data -> 'v', 'before', state -> 'last', 'none', event.metadata -> 'v') $$;
CREATE FUNCTION regress_sql_subquery(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS
$$ SELECT state || jsonb_build_object('keys', (SELECT count(*) FROM jsonb_object_keys(event.data))) $$;
CREATE FUNCTION regress_sql_strict(state jsonb, event es_event) RETURNS jsonb STRICT LANGUAGE sql AS $$ SELECT state || event.data $$;

CREATE TABLE regress_kept.reducers AS
SELECT initcap(replace(proname, 'regress_', '')) AS type, oid::regprocedure AS reducer FROM pg_proc
WHERE proname ~ '^regress_' AND prorettype = 'jsonb'::regtype AND pronargs = 2 AND proname <> 'regress_rated';
SELECT count(es_create_aggregate(type, reducer, snapshot_every => 0)) FROM regress_kept.reducers;
SELECT setseed(0.25) IS NOT NULL AS seeded;
SELECT count(es_append(type, id::text, (ARRAY['Placed', 'Added', 'Paid', 'Refunded', 'Cleared', 'Ignored'])[1 + floor(random() * 6)::int],
    jsonb_build_object('n', CASE WHEN type ~ 'fails' AND random() > 0.02 OR random() > 0.1 THEN 1 + v % 7 ELSE 0 END,
                       'v', (ARRAY['null', '1', '1.50', '"text"', '"q\"\\u00e4"', 'true', 'false', '[1, {"a": null}]', '{}', '{"b": {"c": []}}']::jsonb[])[1 + floor(random() * 10)::int],
                       'f' || v % 4, repeat('x', (random() * CASE WHEN v = 9 THEN 9000 ELSE 90 END)::int))))
FROM regress_kept.reducers, generate_series(1, 8) id, generate_series(1, 25) v WHERE type !~ 'Merging' OR id = 1;

-- state_of returns a state, or the error and where it was raised
CREATE FUNCTION regress_state_of(type text, id text, version bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    context text;
BEGIN
    RETURN es_state(type, id, version)::text;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    -- (PL/pgSQL adds the expression where it failed once before in the transaction)
    RETURN concat_ws(E'\n', 'error', SQLSTATE, SQLERRM, regexp_replace(context, '^(SQL|PL/pgSQL) (expression|assignment) .*\n', '', 'ng'));
END
$$;
SET eventsrc.inline_reducers = off;
CREATE TABLE regress_kept.called AS
SELECT e.aggregate_type AS type, e.aggregate_id AS id, e.version, regress_state_of(e.aggregate_type, e.aggregate_id, e.version) AS state
FROM regress_programs.events e JOIN regress_kept.reducers r ON e.aggregate_type = r.type;
CREATE TABLE regress_kept.called_fold AS
SELECT aggregate_type AS type, aggregate_id AS id, version, es_fold(e) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY version) AS state
FROM regress_programs.events e WHERE aggregate_type !~ 'Fail|Cases|Shapes';
SET eventsrc.inline_reducers = on;
-- (depths differ, as they should)
UPDATE regress_kept.called SET state = regexp_replace(state, '"depth": \d+', '"depth": 0');
UPDATE regress_kept.called_fold SET state = state || '{"depth": 0}' WHERE state ? 'depth';
CREATE VIEW regress_kept.differing AS
SELECT c.type, c.id, c.version, c.state AS called, x.state AS run FROM regress_kept.called c,
       LATERAL regexp_replace(regress_state_of(c.type, c.id, c.version), '"depth": \d+', '"depth": 0') x (state)
WHERE c.state IS DISTINCT FROM x.state;
SELECT * FROM regress_kept.differing ORDER BY 1, 2, 3 LIMIT 5;
SELECT c.* FROM regress_kept.called_fold c JOIN
    (SELECT aggregate_type AS type, aggregate_id AS id, version, es_fold(e) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY version) AS state
     FROM regress_programs.events e WHERE aggregate_type !~ 'Fail|Cases|Shapes') x USING (type, id, version)
WHERE c.state IS DISTINCT FROM CASE WHEN x.state ? 'depth' THEN x.state || '{"depth": 0}' ELSE x.state END LIMIT 5;
SELECT es_create_aggregate('Rated', 'regress_rated(jsonb,es_event)', snapshot_every => 0);
SELECT count(es_append('Rated', '1', CASE v % 3 WHEN 0 THEN 'Cleared' ELSE 'Added' END)) FROM generate_series(1, 9) v;
BEGIN;
SELECT es_state('Rated', '1');
ROLLBACK;
SET eventsrc.inline_reducers = off;
BEGIN;
SELECT es_state('Rated', '1');
ROLLBACK;
RESET eventsrc.inline_reducers;
-- in a new session, in which PL/pgSQL has planned nothing yet
\c -
SET eventsrc.store = 'regress_programs';
\set SHOW_CONTEXT never
SELECT * FROM regress_kept.differing ORDER BY 1 DESC, 2 DESC, 3 LIMIT 5;
-- errors there were, of several kinds
SELECT count(DISTINCT split_part(state, E'\n', 2)) > 3 AS several FROM regress_kept.called WHERE state ~ '^error';
-- the first event is given to the function, the others are not, nor are those of later queries
\c -
SET eventsrc.store = 'regress_programs';
\set SHOW_CONTEXT never
SELECT type, count(DISTINCT es_state(type, '1', v) -> 'depth') AS depths FROM unnest('{Merging,Sql_Merging}'::text[]) type, generate_series(1, 5) v GROUP BY 1 ORDER BY 1;
SELECT type, count(DISTINCT es_state(type, '1', v) -> 'depth') AS depths FROM unnest('{Merging,Sql_Merging}'::text[]) type, generate_series(1, 5) v GROUP BY 1 ORDER BY 1;
SET eventsrc.inline_reducers = off;
SELECT type, count(DISTINCT es_state(type, '1', v) -> 'depth') AS depths FROM unnest('{Merging,Sql_Merging}'::text[]) type, generate_series(1, 5) v GROUP BY 1 ORDER BY 1;
RESET eventsrc.inline_reducers;

--
-- what changes while a query folds
--
CREATE FUNCTION regress_step(state jsonb, by int) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN jsonb_build_object('sum', coalesce((state ->> 'sum')::int, 0) + by); END $$;
CREATE FUNCTION regress_stepping(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN state || regress_step(state, 1); END $$;
SELECT es_create_aggregate('Stepping', 'regress_stepping(jsonb,es_event)', snapshot_every => 0);
SELECT count(es_append('Stepping', i::text, 'Stepped')) FROM generate_series(1, 3) i, generate_series(1, 4);
-- the second row's function changes what the third one's fold does
CREATE FUNCTION regress_change(i int, what text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF i = 2 THEN
        EXECUTE what;
    END IF;
    RETURN i;
END
$$;
BEGIN;
SELECT regress_change(i, $$CREATE OR REPLACE FUNCTION regress_step(state jsonb, by int) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN jsonb_build_object(''sum'', coalesce((state ->> ''sum'')::int, 0) + by * 10); END'$$),
       es_state('Stepping', i::text) FROM generate_series(1, 3) i;
ROLLBACK;
BEGIN;
SELECT regress_change(i, $$CREATE OR REPLACE FUNCTION regress_stepping(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN jsonb_build_object(''n'', event.version); END'$$),
       es_state('Stepping', i::text) FROM generate_series(1, 3) i;
ROLLBACK;
CREATE SCHEMA regress_path;
CREATE FUNCTION regress_path.regress_step(state jsonb, by int) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT jsonb_build_object('other', by) $$;
SELECT regress_change(i, 'SET search_path = regress_path, public'), es_state('Stepping', i::text) FROM generate_series(1, 3) i;
RESET search_path;
-- who may not call what the reducer calls
CREATE ROLE regress_programs_user;
GRANT USAGE ON SCHEMA regress_programs TO regress_programs_user;
GRANT SELECT ON regress_programs.events TO regress_programs_user;
REVOKE EXECUTE ON FUNCTION regress_step(jsonb, int) FROM PUBLIC;
SET ROLE regress_programs_user;
SELECT es_state('Stepping', '1');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- functions with settings, or of another's rights, are called
ALTER FUNCTION regress_merging(jsonb, es_event) SET work_mem = '1MB';
SELECT count(DISTINCT es_state('Merging', '1', v) -> 'depth') AS depths FROM generate_series(1, 5) v;
ALTER FUNCTION regress_merging(jsonb, es_event) RESET work_mem;
ALTER FUNCTION regress_merging(jsonb, es_event) SECURITY DEFINER;
SELECT count(DISTINCT es_state('Merging', '1', v) -> 'depth') AS depths FROM generate_series(1, 5) v;
-- calls are counted either way
SET track_functions = 'all';
SELECT es_state('Stepping', '3');
SELECT pg_stat_force_next_flush();
SELECT calls FROM pg_stat_user_functions WHERE funcname = 'regress_stepping';

SET client_min_messages = warning;
SELECT es_drop_store('regress_programs', 'regress_programs');
DROP SCHEMA regress_path, regress_kept CASCADE;
DROP ROLE regress_programs_user;
DROP FUNCTION regress_depth, regress_amount, regress_merging, regress_branches, regress_cases, regress_looks, regress_objects, regress_swaps, regress_numbers_fail, regress_shapes, regress_calls, regress_fails, regress_rate, regress_rated,
    regress_sql_merging, regress_sql_case, regress_sql_fails, regress_sql_looks, regress_sql_subquery, regress_sql_strict, regress_state_of, regress_step, regress_stepping, regress_change;
