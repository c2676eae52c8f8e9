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
