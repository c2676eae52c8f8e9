-- Upcasters: functions that bring events of old versions up to date when they are read.

CREATE FUNCTION eventsrc.upcast(event record, store name) RETURNS es_event
    LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'es_upcast_event';
COMMENT ON FUNCTION eventsrc.upcast(record, name) IS 'an event, a row of events, as the store''s upcasters make it';

CREATE FUNCTION eventsrc.upcasts(store name) RETURNS boolean
    LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'es_upcasts';
COMMENT ON FUNCTION eventsrc.upcasts(name) IS 'whether events of a store are upcasted when they are read';

CREATE FUNCTION es_create_upcaster(event_type text, from_version int, function regprocedure,
                                   to_type text DEFAULT NULL, store name DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known name := eventsrc.own_store(store);
    proc record;
    missing int;
BEGIN
    PERFORM eventsrc.event_type_arg(event_type);
    IF to_type IS NOT NULL THEN
        PERFORM eventsrc.event_type_arg(to_type);
    END IF;
    IF from_version IS NULL OR from_version < 1 OR from_version = 2147483647 THEN
        RAISE EXCEPTION 'from_version % is not valid', coalesce(from_version::text, 'NULL')
            USING ERRCODE = 'VE004', HINT = 'Schema versions count from 1.';
    END IF;
    IF to_type = event_type THEN
        RAISE EXCEPTION 'an upcaster cannot lead from event type "%" to itself', event_type
            USING ERRCODE = 'VE019', HINT = 'Leave to_type out if the type keeps its name.';
    END IF;
    SELECT p.*, n.nspname INTO proc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = function::oid;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'function % does not exist', coalesce(function::text, 'NULL')
            USING ERRCODE = CASE WHEN function IS NULL THEN 'VE004' ELSE '42883' END,
                  HINT = 'Pass a function (event es_event), such as ''my_upcaster(es_event)''.';
    END IF;
    IF proc.prokind <> 'f' OR proc.proretset OR proc.pronargs <> 1
       OR proc.proargtypes[0] <> eventsrc.event_type_oid()
       OR proc.prorettype NOT IN ('jsonb'::regtype, eventsrc.event_type_oid()) THEN
        RAISE EXCEPTION '% cannot serve as upcaster', function
            USING ERRCODE = 'VE019',
                  DETAIL = 'An upcaster is a function (event es_event) that returns jsonb, the data of the next version, or es_event.',
                  HINT = 'For example: CREATE FUNCTION my_upcaster(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql RETURN event.data || ''{"currency": "EUR"}'';';
    END IF;
    IF to_type IS NOT NULL AND proc.prorettype <> 'jsonb'::regtype THEN
        RAISE EXCEPTION 'to_type is given, and % chooses the type too', function
            USING ERRCODE = 'VE019', HINT = 'Leave to_type out, or let the function return jsonb.';
    END IF;

    EXECUTE format('LOCK TABLE %I.upcasters IN SHARE ROW EXCLUSIVE MODE', known);
    EXECUTE format('SELECT CASE WHEN min(u.from_version) > $2 + 1 THEN $2 + 1'
                   ' WHEN max(u.from_version) < $2 - 1 THEN $2 - 1 END FROM %I.upcasters u WHERE u.event_type = $1', known)
        INTO missing USING event_type, from_version;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the upcasters of event type "%" would skip version %', event_type, missing
            USING ERRCODE = 'VE019',
                  DETAIL = 'Each leads from its version to the next; a chain with a gap never reaches its end.',
                  HINT = format('Register the one from version %s first.', missing);
    END IF;
    EXECUTE format('INSERT INTO %I.upcasters VALUES ($1, $2, $3, $4) ON CONFLICT (event_type, from_version)'
                   ' DO UPDATE SET function = excluded.function, to_type = excluded.to_type', known)
        USING event_type, from_version, format('%I.%I', proc.nspname, proc.proname), to_type;
END
$$;
COMMENT ON FUNCTION es_create_upcaster(text, int, regprocedure, text, name) IS
    'registers, or replaces, the function (event es_event) that brings events of a type from a version to the next when they are read: it returns jsonb, the new data (of to_type, if the type is renamed), or es_event, with type and version as it chooses';

CREATE FUNCTION eventsrc.event_type_oid() RETURNS oid
    LANGUAGE sql STABLE
    RETURN (SELECT p.prorettype FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.=) 'eventsrc.upcast'::pg_catalog.regproc);
COMMENT ON FUNCTION eventsrc.event_type_oid() IS 'the type es_event, wherever the extension is';

CREATE FUNCTION es_drop_upcaster(event_type text, from_version int, store name DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known name := eventsrc.own_store(store);
    neighbours int;
    dropped int;
BEGIN
    PERFORM eventsrc.event_type_arg(event_type);
    EXECUTE format('LOCK TABLE %I.upcasters IN SHARE ROW EXCLUSIVE MODE', known);
    EXECUTE format('SELECT count(*) FROM %I.upcasters u WHERE u.event_type = $1 AND abs(u.from_version - $2) = 1', known)
        INTO neighbours USING event_type, from_version;
    IF neighbours = 2 THEN
        RAISE EXCEPTION 'the upcasters of event type "%" would skip version %', event_type, from_version
            USING ERRCODE = 'VE019', DETAIL = 'There are upcasters before and after it.',
                  HINT = 'Replace it with es_create_upcaster(), or drop those before or after it first.';
    END IF;
    EXECUTE format('DELETE FROM %I.upcasters u WHERE u.event_type = $1 AND u.from_version = $2', known)
        USING event_type, from_version;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    IF dropped = 0 THEN
        RAISE EXCEPTION 'event type "%" has no upcaster from version %', event_type, coalesce(from_version::text, 'NULL')
            USING ERRCODE = 'VE019', HINT = format('SELECT * FROM %I.upcasters lists those that there are.', known);
    END IF;
END
$$;
COMMENT ON FUNCTION es_drop_upcaster(text, int, name) IS 'forgets an upcaster';

-- Errors are caught one event at a time; the rows come from a cursor.
CREATE FUNCTION es_check_upcasters(store name DEFAULT NULL)
RETURNS TABLE (aggregate_type text, aggregate_id text, version bigint, event_type text, schema_version int, error text)
LANGUAGE plpgsql VOLATILE
SET eventsrc.upcast = on
AS $$
DECLARE
    known name := eventsrc.own_store(store);
    stored record;
    upcasted record;
    step record;
    failure text;
    token bigint;
    total bigint;
    done bigint := 0;
BEGIN
    EXECUTE format('SELECT count(*) FROM %1$I.events e WHERE e.event_type IN (SELECT u.event_type FROM %1$I.upcasters u)', known)
        INTO total;
    token := eventsrc.progress_begin('es_check_upcasters', known, total);
    FOR stored IN EXECUTE format(
        'SELECT e.* FROM %1$I.events e WHERE e.event_type IN (SELECT u.event_type FROM %1$I.upcasters u)'
        ' ORDER BY e.global_position', known)
    LOOP
        BEGIN
            failure := NULL;
            SELECT (u).* INTO upcasted FROM eventsrc.upcast(stored, known) u;
            EXECUTE format('SELECT t.schema_version, t.json_schema FROM %I.event_types t WHERE t.event_type = $1'
                           ' ORDER BY t.schema_version DESC LIMIT 1', known)
                INTO step USING upcasted.event_type;
            IF step.json_schema IS NOT NULL THEN
                failure := format('As %s version %s it does not fit the schema of version %s. ',
                                  upcasted.event_type, upcasted.schema_version, step.schema_version)
                           || eventsrc.json_schema_failure(step.json_schema, upcasted.data);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            failure := sqlerrm;
        END;
        IF failure IS NOT NULL THEN
            aggregate_type := stored.aggregate_type;
            aggregate_id := stored.aggregate_id;
            version := stored.version;
            event_type := stored.event_type;
            schema_version := stored.schema_version;
            error := failure;
            RETURN NEXT;
        END IF;
        done := done + 1;
        PERFORM eventsrc.progress_update(token, done);
    END LOOP;
    PERFORM eventsrc.progress_end(token);
END
$$;
COMMENT ON FUNCTION es_check_upcasters(name) IS
    'tries the upcasters on every stored event that they are for, and checks what comes out by the last schema of its type; returns those that fail';
