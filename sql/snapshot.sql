-- Snapshots on demand, and the trial of those that there are.

CREATE FUNCTION eventsrc.take_snapshot(aggregate_type text, aggregate_id text, guarded boolean, store name) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_take_snapshot';
COMMENT ON FUNCTION eventsrc.take_snapshot(text, text, boolean, name) IS
    'takes the snapshot of an aggregate at its last version, if it is not there already; guarded: errors are warnings';

CREATE FUNCTION eventsrc.verify_snapshot(aggregate_type text, aggregate_id text, version bigint, recorded_at timestamptz,
                                         state jsonb, reducer text, from_version bigint, from_state jsonb, store name)
    RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'es_verify_snapshot';
COMMENT ON FUNCTION eventsrc.verify_snapshot(text, text, bigint, timestamptz, jsonb, text, bigint, jsonb, name) IS
    'what is wrong with a snapshot, NULL if nothing; the fold begins after a version whose state is known';

-- The ids come from a cursor over streams, so that memory is bounded; each
-- aggregate is folded from its last snapshot.
CREATE FUNCTION es_snapshot(aggregate_type text, aggregate_id text DEFAULT NULL, store name DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET eventsrc.upcast = on
AS $$
DECLARE
    known name := eventsrc.own_store(store);
    id text;
    token bigint;
    total bigint;
    done bigint := 0;
    taken bigint := 0;
BEGIN
    IF coalesce(aggregate_type, '') = '' THEN
        RAISE EXCEPTION 'aggregate_type must not be NULL or empty' USING ERRCODE = 'VE004', HINT = 'Name the type, such as ''Order''.';
    END IF;
    IF aggregate_id IS NOT NULL THEN
        RETURN eventsrc.take_snapshot(aggregate_type, aggregate_id, false, known)::int;
    END IF;
    EXECUTE format('SELECT count(*) FROM %I.streams s WHERE s.aggregate_type = $1', known) INTO total USING aggregate_type;
    token := eventsrc.progress_begin('es_snapshot', known, total);
    FOR id IN EXECUTE format('SELECT s.aggregate_id FROM %I.streams s WHERE s.aggregate_type = $1 ORDER BY s.aggregate_id', known)
              USING aggregate_type LOOP
        taken := taken + eventsrc.take_snapshot(aggregate_type, id, true, known)::int;
        done := done + 1;
        PERFORM eventsrc.progress_update(token, done);
    END LOOP;
    PERFORM eventsrc.progress_end(token);
    RETURN taken;
END
$$;
COMMENT ON FUNCTION es_snapshot(text, text, name) IS
    'takes a snapshot of an aggregate, or of all of a type, at the last version, where there is none; returns how many it took';

-- A snapshot that was found right is where the fold for the aggregate's next one begins.
CREATE FUNCTION eventsrc.verify_snapshots(only_type text, only_store name)
    RETURNS TABLE (aggregate_type text, aggregate_id text, version bigint, problem text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 10
    SET search_path = pg_catalog, pg_temp
    SET eventsrc.upcast = on
AS $$
DECLARE
    known name := eventsrc.own_store(only_store);
    kept record;
    right_type text;
    right_id text;
    right_version bigint;
    right_state jsonb;
    token bigint;
    total bigint;
    done bigint := 0;
BEGIN
    EXECUTE format('SELECT count(*) FROM %I.snapshots s WHERE $1 IS NULL OR s.aggregate_type = $1', known) INTO total USING only_type;
    token := eventsrc.progress_begin('es_verify_snapshots', known, total);
    FOR kept IN EXECUTE format('SELECT s.*, s.ctid AS row FROM %I.snapshots s WHERE $1 IS NULL OR s.aggregate_type = $1'
                               ' ORDER BY s.aggregate_type, s.aggregate_id, s.version', known) USING only_type LOOP
        IF (kept.aggregate_type, kept.aggregate_id) IS DISTINCT FROM (right_type, right_id) THEN
            right_type := kept.aggregate_type;
            right_id := kept.aggregate_id;
            right_version := 0;
            right_state := 'null';
        END IF;
        problem := eventsrc.verify_snapshot(kept.aggregate_type, kept.aggregate_id, kept.version, kept.recorded_at, kept.state,
                                            kept.reducer, right_version, right_state, known);
        IF problem IS NULL THEN
            right_version := kept.version;
            right_state := kept.state;
        ELSE
            EXECUTE format('DELETE FROM %I.snapshots s WHERE s.ctid = $1 AND s.aggregate_type = $2 AND s.aggregate_id = $3'
                           ' AND s.version = $4 AND s.reducer = $5 AND s.taken_at = $6', known)
            USING kept.row, kept.aggregate_type, kept.aggregate_id, kept.version, kept.reducer, kept.taken_at;
            aggregate_type := kept.aggregate_type;
            aggregate_id := kept.aggregate_id;
            version := kept.version;
            RETURN NEXT;
        END IF;
        done := done + 1;
        PERFORM eventsrc.progress_update(token, done);
    END LOOP;
    PERFORM eventsrc.progress_end(token);
END
$$;
COMMENT ON FUNCTION eventsrc.verify_snapshots(text, name) IS 'es_verify_snapshots()';

CREATE FUNCTION es_verify_snapshots(aggregate_type text DEFAULT NULL, store name DEFAULT NULL)
    RETURNS TABLE (aggregate_type text, aggregate_id text, version bigint, problem text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 10 AS $$ SELECT * FROM eventsrc.verify_snapshots($1, $2) $$;
COMMENT ON FUNCTION es_verify_snapshots(text, name) IS
    'computes the states of all snapshots (of a type) anew from the events; drops those that are wrong or outdated, and returns what was the matter with them';
