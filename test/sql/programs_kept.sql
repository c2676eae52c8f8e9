-- What is made of a reducer's body is kept from query to query, and ends with whatever it came from
\set SHOW_CONTEXT never
\set VERBOSITY sqlstate
SET client_min_messages = warning;
SELECT es_create_store('regress_kept_programs');
SET eventsrc.store = 'regress_kept_programs';
CREATE ROLE regress_kept_user;
CREATE ROLE regress_kept_group;
GRANT regress_kept_group TO regress_kept_user;
GRANT USAGE ON SCHEMA regress_kept_programs TO regress_kept_user;
GRANT SELECT ON regress_kept_programs.events TO regress_kept_user;
RESET client_min_messages;

-- how deep the calls are at the moment: less where the fold does not call the reducer
CREATE FUNCTION regress_depth(version bigint) RETURNS int IMMUTABLE SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) FROM pg_backend_memory_contexts WHERE name IN ('SPI Proc', 'ExecutorState'));
END
$$;
CREATE FUNCTION regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'step ' || by; END $$;
CREATE FUNCTION regress_label(type text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT type || '!' $$;
CREATE FUNCTION regress_reducer(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF event.event_type = 'Placed' THEN
        RETURN state || jsonb_build_object('depth', regress_depth(event.version), 'by', regress_step(event.version), 'label', regress_label(event.event_type));
    END IF;
    RETURN state;
END
$$;
CREATE FUNCTION regress_sql_reducer(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS
$$ SELECT state || jsonb_build_object('depth', regress_depth(event.version), 'by', regress_step(event.version), 'label', regress_label(event.event_type)) $$;
SELECT count(es_create_aggregate(type, reducer, snapshot_every => 0))
FROM (VALUES ('Order', 'regress_reducer(jsonb,es_event)'::regprocedure), ('Payment', 'regress_sql_reducer(jsonb,es_event)')) r (type, reducer);
SELECT count(es_append(type, '1', 'Placed', '{"n": 1}')) FROM unnest('{Order,Payment}'::text[]) type;

-- looks at the state after the first event, in queries of its own: with the reducer called, and as it comes
CREATE FUNCTION regress_look(type text, OUT how text, OUT state jsonb) LANGUAGE plpgsql AS $$
DECLARE
    called jsonb;
BEGIN
    PERFORM set_config('eventsrc.inline_reducers', 'off', true);
    EXECUTE 'SELECT es_state($1, ''1'', 1)' INTO called USING type;
    PERFORM set_config('eventsrc.inline_reducers', 'on', true);
    EXECUTE 'SELECT es_state($1, ''1'', 1)' INTO state USING type;
    how := CASE WHEN called -> 'depth' = state -> 'depth' THEN 'called' WHEN state ? 'depth' THEN 'run' END;
    state := state - 'depth';
    IF state <> called - 'depth' THEN
        how := how || ', differs: ' || called::text;
    END IF;
END
$$;
-- makes a function once more as it is: PL/pgSQL takes an expression that it could not plan once for a complicated one
CREATE FUNCTION regress_again(function regproc) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE pg_get_functiondef(function); END $$;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Payment');
SELECT * FROM regress_look('Payment');

--
-- functions are replaced
--
CREATE OR REPLACE FUNCTION regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'second step ' || by; END $$;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Payment');
-- (this one was inlined)
CREATE OR REPLACE FUNCTION regress_label(type text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT type || '?' $$;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
CREATE OR REPLACE FUNCTION regress_sql_reducer(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS
$$ SELECT state || jsonb_build_object('depth', regress_depth(event.version), 'replaced', true) $$;
SELECT * FROM regress_look('Payment');
SELECT * FROM regress_look('Payment');
-- in a transaction, with subtransactions
BEGIN;
SELECT * FROM regress_look('Order');
SAVEPOINT replaced;
CREATE OR REPLACE FUNCTION regress_reducer(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS
$$ BEGIN RETURN state || jsonb_build_object('depth', regress_depth(event.version), 'by', 'savepoint'); END $$;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ROLLBACK TO replaced;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
CREATE OR REPLACE FUNCTION regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'not for long'; END $$;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ROLLBACK;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
\set VERBOSITY terse
DO $$
BEGIN
    BEGIN
        CREATE OR REPLACE FUNCTION regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN ''in a block''; END';
        RAISE NOTICE '%', regress_look('Order');
        RAISE NOTICE '%', regress_look('Order');
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        RAISE NOTICE '%', regress_look('Order');
        RAISE NOTICE '%', regress_look('Order');
    END;
END
$$;
\set VERBOSITY sqlstate

--
-- functions are dropped, and made again
--
BEGIN;
DROP FUNCTION regress_step;
SAVEPOINT dropped;
SELECT * FROM regress_look('Order');
ROLLBACK TO dropped;
SELECT regress_again('regress_reducer');
CREATE FUNCTION regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'made again'; END $$;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ROLLBACK;
BEGIN;
DROP FUNCTION regress_reducer;
SELECT * FROM regress_look('Order');
ROLLBACK;
SELECT regress_again('regress_reducer');
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');

--
-- privileges
--
SET ROLE regress_kept_user;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION regress_step(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION regress_step(bigint) TO regress_kept_group;
SET ROLE regress_kept_user;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
RESET ROLE;
-- nothing but the membership changes
REVOKE regress_kept_group FROM regress_kept_user;
SET ROLE regress_kept_user;
SELECT * FROM regress_look('Order');
RESET ROLE;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
GRANT EXECUTE ON FUNCTION regress_step(bigint) TO PUBLIC;
REVOKE EXECUTE ON FUNCTION regress_reducer(jsonb, es_event) FROM PUBLIC;
SET ROLE regress_kept_user;
SELECT * FROM regress_look('Order');
RESET ROLE;
GRANT EXECUTE ON FUNCTION regress_reducer(jsonb, es_event) TO PUBLIC;

--
-- settings: the search_path, and those of the reducer
--
SELECT * FROM regress_look('Order');
CREATE SCHEMA regress_kept_path;
CREATE FUNCTION regress_kept_path.regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 'of another schema'; END $$;
SELECT * FROM regress_look('Order');
SET search_path = regress_kept_path, public;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
-- each path has its own
RESET search_path;
SELECT * FROM regress_look('Order');
SET search_path = regress_kept_path, public;
SELECT * FROM regress_look('Order');
-- the schema is renamed under the path, and comes back
ALTER SCHEMA regress_kept_path RENAME TO regress_kept_renamed;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ALTER SCHEMA regress_kept_renamed RENAME TO regress_kept_path;
SELECT * FROM regress_look('Order');
RESET search_path;
-- a function of the session's own schema of temporary objects is found only by its full name, as ever
CREATE FUNCTION pg_temp.regress_step(by bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'temporary' $$;
SELECT * FROM regress_look('Order');
ALTER FUNCTION regress_reducer(jsonb, es_event) SET work_mem = '1MB';
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ALTER FUNCTION regress_reducer(jsonb, es_event) RESET work_mem;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ALTER FUNCTION regress_reducer(jsonb, es_event) SECURITY DEFINER;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ALTER FUNCTION regress_reducer(jsonb, es_event) SECURITY INVOKER;

--
-- types, operators
--
CREATE TYPE regress_money AS (amount numeric, currency text);
CREATE DOMAIN regress_count AS int;
CREATE FUNCTION regress_plus(a jsonb, b text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN a::text || b; END $$;
CREATE OPERATOR |+| (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = regress_plus);
CREATE FUNCTION regress_types(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN state || jsonb_build_object('depth', regress_depth(event.version), 'money', jsonb_populate_record(NULL::regress_money, '{"amount": 1, "currency": "EUR", "at": 2}'),
        'count', (event.data ->> 'n')::regress_count, 'plus', event.data |+| 'x');
END
$$;
CREATE FUNCTION regress_typed(state regress_money, event es_event) RETURNS regress_money LANGUAGE plpgsql AS
$$ BEGIN RETURN jsonb_populate_record(state, '{"amount": 3, "currency": "GBP", "at": 4}'); END $$;
SELECT es_create_aggregate('Order', 'regress_types(jsonb,es_event)', snapshot_every => 0);
SELECT es_create_aggregate('Payment', 'regress_typed(regress_money,es_event)', snapshot_every => 0);
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Payment');
ALTER TYPE regress_money ADD ATTRIBUTE at int;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Payment');
ALTER TYPE regress_money DROP ATTRIBUTE amount;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Payment');
ALTER TYPE regress_money ALTER ATTRIBUTE at TYPE text;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Payment');
BEGIN;
DROP OPERATOR |+| (jsonb, text);
SELECT * FROM regress_look('Order');
ROLLBACK;
SELECT regress_again('regress_types');
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');
ALTER DOMAIN regress_count ADD CONSTRAINT several CHECK (VALUE > 1);
SELECT * FROM regress_look('Order');
ALTER DOMAIN regress_count DROP CONSTRAINT several;
SELECT * FROM regress_look('Order');
SELECT * FROM regress_look('Order');

--
-- runs of the same within each other, side by side, and after an error
--
CREATE FUNCTION regress_inner(id text, version bigint) RETURNS jsonb STABLE LANGUAGE plpgsql AS
$$ BEGIN RETURN CASE WHEN id IS NOT NULL THEN es_state('Translation', id, version) END; END $$;
CREATE FUNCTION regress_nesting(state jsonb, event es_event) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$
DECLARE
    before text := coalesce(state ->> 'last', 'nothing');
    deeper jsonb := regress_inner(event.data ->> 'of', (event.data ->> 'at')::bigint);
BEGIN
    RETURN state || jsonb_build_object('last', event.event_type, 'before', before, 'depth', regress_depth(event.version),
                                       'deeper', coalesce(deeper ->> 'last' || ' after ' || (deeper ->> 'before'), '-'), 'ratio', 6 / (event.data ->> 'n')::int);
END
$$;
SELECT es_create_aggregate('Translation', 'regress_nesting(jsonb,es_event)', snapshot_every => 0);
SELECT count(es_append('Translation', id, type || id, data::jsonb))
FROM (VALUES ('1', 'Requested', '{"n": 1}'), ('1', 'Done', '{"n": 2}'), ('2', 'Requested', '{"n": 3, "of": "1", "at": 2}'), ('2', 'Done', '{"n": 1, "of": "1", "at": 1}'),
             ('3', 'Requested', '{"n": 2, "of": "2", "at": 2}'), ('3', 'Failed', '{"n": 0}'), ('3', 'Done', '{"n": 6}')) e (id, type, data);
SELECT * FROM regress_look('Translation');
SELECT * FROM regress_look('Translation');
SELECT es_state('Translation', '3', 1) - 'depth' AS state;
SELECT es_state('Translation', '3');
SELECT es_state('Translation', '3', 1) - 'depth' AS state;
BEGIN;
DECLARE one CURSOR FOR SELECT i, es_state('Translation', i::text, 1) - 'depth' AS state FROM generate_series(1, 3) i;
DECLARE other CURSOR FOR SELECT i, es_state('Translation', i::text, 1) - 'depth' AS state FROM generate_series(3, 1, -1) i;
FETCH one;
FETCH other;
CREATE OR REPLACE FUNCTION regress_inner(id text, version bigint) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN '{"last": "replaced"}'; END $$;
FETCH one;
FETCH other;
CLOSE one;
FETCH other;
ROLLBACK;
SELECT * FROM regress_look('Translation');
SELECT * FROM regress_look('Translation');

--
-- only so many are kept
--
DO $$
BEGIN
    FOR i IN 1 .. 40 LOOP
        EXECUTE format('CREATE FUNCTION regress_many_%1$s(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS
            ''BEGIN RETURN state || jsonb_build_object(''''depth'''', regress_depth(event.version), ''''number'''', %1$s); END''', i);
        PERFORM es_create_aggregate('Many' || i, format('regress_many_%s(jsonb,es_event)', i)::regprocedure, snapshot_every => 0);
        PERFORM es_append('Many' || i, '1', 'Placed');
    END LOOP;
END
$$;
SELECT l.how, count(*) FROM generate_series(1, 40) i, regress_look('Many' || i) l WHERE (l.state ->> 'number')::int = i GROUP BY 1;
SELECT l.how, count(*) FROM generate_series(40, 21, -1) i, regress_look('Many' || i) l WHERE (l.state ->> 'number')::int = i GROUP BY 1;
SELECT l.how, count(*) FROM generate_series(1, 5) i, regress_look('Many' || i) l WHERE (l.state ->> 'number')::int = i GROUP BY 1;
SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'eventsrc program code';

SET client_min_messages = warning;
SELECT es_drop_store('regress_kept_programs', 'regress_kept_programs');
DROP SCHEMA regress_kept_path CASCADE;
DO $$
BEGIN
    FOR i IN 1 .. 40 LOOP
        EXECUTE format('DROP FUNCTION regress_many_%s', i);
    END LOOP;
END
$$;
DROP OPERATOR |+| (jsonb, text);
DROP FUNCTION regress_depth, public.regress_step, regress_label, regress_reducer, regress_sql_reducer, regress_look, regress_again, regress_plus, regress_types, regress_typed, regress_inner, regress_nesting;
DROP TYPE regress_money;
DROP DOMAIN regress_count;
DROP ROLE regress_kept_user, regress_kept_group;
