-- state

CREATE FUNCTION eventsrc.snapshot_trigger()
    RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'es_snapshot_trigger';
COMMENT ON FUNCTION eventsrc.snapshot_trigger() IS 'takes the snapshot of an aggregate at the inserted event''s version';

CREATE FUNCTION es_create_aggregate(
    aggregate_type text,
    reducer        regprocedure DEFAULT NULL,
    initial        jsonb        DEFAULT '{}',
    snapshot_every int          DEFAULT 100,
    store          name         DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_create_aggregate';
COMMENT ON FUNCTION es_create_aggregate(text, regprocedure, jsonb, int, name) IS
    'registers how an aggregate type''s events make its state: reducer (state jsonb, event es_event) RETURNS jsonb (NULL: shallow merge of data), initial state, and every how many versions a snapshot is taken (0: never)';

-- Restricted, not safe: the reducer can be any function.
CREATE FUNCTION es_state(
    aggregate_type text,
    aggregate_id   text,
    version        bigint      DEFAULT NULL,
    as_of          timestamptz DEFAULT NULL,
    occurred       boolean     DEFAULT false,
    store          name        DEFAULT NULL)
    RETURNS jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'es_state';
COMMENT ON FUNCTION es_state(text, text, bigint, timestamptz, boolean, name) IS
    'the state of an aggregate now, at a version, or as of a moment by recorded_at (occurred => true: by occurred_at); NULL if it did not exist';

CREATE FUNCTION es_explain_state(
    aggregate_type text,
    aggregate_id   text,
    version        bigint      DEFAULT NULL,
    as_of          timestamptz DEFAULT NULL,
    occurred       boolean     DEFAULT false,
    store          name        DEFAULT NULL,
    OUT state            jsonb,
    OUT version          bigint,
    OUT snapshot_version bigint,
    OUT events_replayed  bigint,
    OUT reducer          text)
    LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'es_explain_state';
COMMENT ON FUNCTION es_explain_state(text, text, bigint, timestamptz, boolean, name) IS
    'es_state() with how it was computed: the version that the state is of, the snapshot it started from (NULL: none), the number of events folded after it, and the reducer''s identity';

CREATE FUNCTION es_merge_patch(state jsonb, event es_event)
    RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'es_merge_patch';
COMMENT ON FUNCTION es_merge_patch(jsonb, es_event) IS
    'a reducer for es_create_aggregate(): applies the events'' data as merge patches (RFC 7396); null removes a key, objects are patched in turn';

-- The state as a row: of the reducer's own type, or of any whose columns it has.
CREATE FUNCTION es_state_as(
    type           anyelement,
    aggregate_type text,
    aggregate_id   text,
    version        bigint      DEFAULT NULL,
    as_of          timestamptz DEFAULT NULL,
    occurred       boolean     DEFAULT false,
    store          name        DEFAULT NULL)
    RETURNS anyelement
    LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000
AS $$ SELECT pg_catalog.jsonb_populate_record(type, @extschema@.es_state(aggregate_type, aggregate_id, version, as_of, occurred, store)) $$;
COMMENT ON FUNCTION es_state_as(anyelement, text, text, bigint, timestamptz, boolean, name) IS
    'es_state() as a row of the composite type of the first argument, such as NULL::order_state';
