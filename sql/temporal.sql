-- States over time: of a whole type, step by step, differences, the fold as an aggregate.

CREATE FUNCTION es_states(
    aggregate_type text,
    as_of          timestamptz DEFAULT NULL,
    occurred       boolean     DEFAULT false,
    store          name        DEFAULT NULL)
    RETURNS TABLE (aggregate_id text, version bigint, state jsonb)
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 100000 ROWS 10000 AS 'MODULE_PATHNAME', 'es_states';
COMMENT ON FUNCTION es_states(text, timestamptz, boolean, name) IS
    'the states of all aggregates of a type, now or as of a moment by recorded_at (occurred => true: by occurred_at), in one pass over the events';

CREATE FUNCTION es_history(
    aggregate_type text,
    aggregate_id   text,
    from_version   bigint DEFAULT NULL,
    to_version     bigint DEFAULT NULL,
    store          name   DEFAULT NULL)
    RETURNS TABLE (version bigint, recorded_at timestamptz, event_type text, user_id text, state jsonb, changes jsonb)
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 10000 ROWS 100 AS 'MODULE_PATHNAME', 'es_history';
COMMENT ON FUNCTION es_history(text, text, bigint, bigint, name) IS
    'an aggregate''s state after each event of a range of versions, and what the event changed as a JSON patch (RFC 6902)';

CREATE FUNCTION es_diff(
    aggregate_type text,
    aggregate_id   text,
    from_version   bigint,
    to_version     bigint DEFAULT NULL,
    store          name   DEFAULT NULL)
    RETURNS jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 2000 AS 'MODULE_PATHNAME', 'es_diff';
COMMENT ON FUNCTION es_diff(text, text, bigint, bigint, name) IS
    'the JSON patch (RFC 6902) that makes the state at one version (0: the initial one) that at another (NULL: the last); NULL if the aggregate does not exist';

-- VOLATILE: any function may be tried as reducer.
CREATE FUNCTION es_replay(
    aggregate_type text,
    aggregate_id   text,
    reducer        regprocedure DEFAULT NULL,
    from_version   bigint DEFAULT NULL,
    to_version     bigint DEFAULT NULL,
    initial        jsonb  DEFAULT NULL,
    store          name   DEFAULT NULL)
    RETURNS TABLE (version bigint, recorded_at timestamptz, event_type text, data jsonb,
                   state_before jsonb, state_after jsonb, changes jsonb, error text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE COST 10000 ROWS 100 AS 'MODULE_PATHNAME', 'es_replay';
COMMENT ON FUNCTION es_replay(text, text, regprocedure, bigint, bigint, jsonb, name) IS
    'folds an aggregate''s events from the first, by a scratch reducer and initial state if given, and returns each event with the change it made; ends with the event on which the reducer fails';

CREATE FUNCTION eventsrc.fold_step(internal, record) RETURNS internal
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'es_fold_step';
COMMENT ON FUNCTION eventsrc.fold_step(internal, record) IS 'folds one more event: es_fold()';
CREATE FUNCTION eventsrc.fold_final(internal) RETURNS jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'es_fold_final';
COMMENT ON FUNCTION eventsrc.fold_final(internal) IS 'the state of es_fold()';
CREATE AGGREGATE es_fold(event record) (
    sfunc = eventsrc.fold_step, stype = internal, sspace = 4096,
    finalfunc = eventsrc.fold_final, finalfunc_modify = read_only, parallel = restricted);
COMMENT ON AGGREGATE es_fold(record) IS
    'the state that events make by their type''s reducer, in the order given: es_fold(e ORDER BY version); events are rows of a store''s table events or of type es_event';

CREATE FUNCTION eventsrc.state_by(aggregate_type text, aggregate_id text, version bigint, replace boolean,
                                  reducer regprocedure, initial jsonb, store name)
    RETURNS jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'es_state_by';
COMMENT ON FUNCTION eventsrc.state_by(text, text, bigint, boolean, regprocedure, jsonb, name) IS
    'the state at a version (0: the initial one), if replace by another reducer than the registered one';

CREATE FUNCTION eventsrc.json_diff(from_value jsonb, to_value jsonb) RETURNS jsonb
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'es_json_diff_sql';
COMMENT ON FUNCTION eventsrc.json_diff(jsonb, jsonb) IS 'the JSON patch (RFC 6902) that makes one value the other';

-- es_dry_run compares two reducers over real streams.  The errors of the new one become rows.
CREATE FUNCTION es_dry_run(
    aggregate_type text,
    reducer        regprocedure,
    initial        jsonb DEFAULT NULL,
    sample         int   DEFAULT 100,
    store          name  DEFAULT NULL)
    RETURNS TABLE (aggregate_id text, version bigint, state_now jsonb, state_then jsonb, changes jsonb, error text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 100 AS $$
#variable_conflict use_variable
DECLARE
    last text := '';
BEGIN
    IF sample < 0 THEN
        RAISE EXCEPTION 'sample must not be negative'
            USING ERRCODE = 'VE004', HINT = 'Pass the number of aggregates to try, or NULL for all.';
    END IF;
    store := coalesce(store, current_setting('eventsrc.store'));
    -- from id to id by the index; a sample is the first ones
    FOR i IN 1 .. coalesce(sample, 2147483647) LOOP
        SELECT e.id INTO last FROM eventsrc.next_aggregate(store, aggregate_type, last) e (id);
        EXIT WHEN last IS NULL;
        aggregate_id := last;
        error := NULL;
        SELECT s.state, s.version INTO state_now, version
        FROM @extschema@.es_explain_state(aggregate_type, last, store => store) s;
        BEGIN
            state_then := eventsrc.state_by(aggregate_type, last, version, true, reducer, initial, store);
        EXCEPTION WHEN OTHERS THEN
            DECLARE
                context text;
            BEGIN
                -- a function that can be no reducer fails everywhere
                IF SQLSTATE = 'VE007' THEN
                    RAISE;
                END IF;
                GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
                error := concat(SQLSTATE, ': ', SQLERRM,
                                coalesce(' (' || substring(context from '(at version \d+, event type [^\n]*)') || ')', ''));
                state_then := NULL;
            END;
        END;
        IF error IS NOT NULL OR state_now IS DISTINCT FROM state_then THEN
            changes := eventsrc.json_diff(state_now, state_then);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION es_dry_run(text, regprocedure, jsonb, int, name) IS
    'compares a new reducer (NULL: the built-in merge) with the registered one over the streams of a sample of aggregates (NULL: all), and returns those whose state would change, or on which the new one fails';

CREATE FUNCTION eventsrc.next_aggregate(store name, aggregate_type text, after_id text) RETURNS text
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    id text;
BEGIN
    EXECUTE format('SELECT aggregate_id FROM %I.events WHERE aggregate_type = $1 AND aggregate_id > $2 ORDER BY aggregate_id LIMIT 1', store)
    INTO id USING aggregate_type, after_id;
    RETURN id;
END
$$;
COMMENT ON FUNCTION eventsrc.next_aggregate(name, text, text) IS 'the next aggregate of a type, by id: es_dry_run()';

-- es_undo: the fold knows events of this type, whatever the reducer (src/state/fold.c).
CREATE FUNCTION es_undo(
    aggregate_type   text,
    aggregate_id     text,
    to_version       bigint,
    reason           text   DEFAULT NULL,
    expected_version bigint DEFAULT NULL,
    store            name   DEFAULT NULL,
    OUT version bigint, OUT global_position bigint)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_variable
DECLARE
    last bigint;
    state jsonb;
BEGIN
    IF to_version IS NULL OR to_version < 0 THEN
        RAISE EXCEPTION 'to_version must not be NULL or negative'
            USING ERRCODE = 'VE004', HINT = 'Pass the version whose state is to come back; 0 is the initial state.';
    END IF;
    store := coalesce(store, current_setting('eventsrc.store'));
    last := @extschema@.es_stream_version(aggregate_type, aggregate_id, store);
    IF last IS NULL THEN
        RAISE EXCEPTION 'stream % % of store "%" does not exist', aggregate_type, aggregate_id, store
            USING ERRCODE = 'VE005', HINT = 'Only a stream that has events can be undone; check its type, id and store.';
    END IF;
    IF to_version = last THEN
        RAISE EXCEPTION '% % is at version % already', aggregate_type, aggregate_id, to_version
            USING ERRCODE = 'VE004', HINT = format('There is nothing to undo; pass a version below %s.', last);
    END IF;
    -- a state that lacks what row security hides must not become the state for everybody
    IF pg_catalog.row_security_active(format('%I.events', store)) AND
       (SELECT count(*) FROM @extschema@.es_read_stream(aggregate_type, aggregate_id, 1, to_version, store => store) e
        WHERE e.version <= to_version) <> to_version THEN
        RAISE EXCEPTION 'row security hides events of % % from you', aggregate_type, aggregate_id
            USING ERRCODE = '42501', HINT = 'Let a role undo that sees all events of the stream.';
    END IF;
    state := eventsrc.state_by(aggregate_type, aggregate_id, to_version, false, NULL, NULL, store);
    SELECT a.version, a.global_position INTO version, global_position
    FROM @extschema@.es_append(
        aggregate_type, aggregate_id, 'StateRestored',
        jsonb_strip_nulls(jsonb_build_object('restored_version', to_version, 'reason', reason))
            || jsonb_build_object('state', state),
        expected_version => coalesce(expected_version, last), store => store) a;
END
$$;
COMMENT ON FUNCTION es_undo(text, text, bigint, text, bigint, name) IS
    'brings the state of an earlier version back by appending an event of type StateRestored, which makes the state what it was for every reducer; history stays as it is';
