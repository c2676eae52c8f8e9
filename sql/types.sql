-- Event types: versions with JSON Schemas, compatibility, strict stores.

CREATE FUNCTION eventsrc.registry_trigger() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'es_registry_trigger';
COMMENT ON FUNCTION eventsrc.registry_trigger() IS
    'trigger of the tables event_types, upcasters and settings of a store: all backends read them anew';

CREATE FUNCTION eventsrc.check_json_schema(json_schema jsonb) RETURNS void
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'es_check_json_schema';
COMMENT ON FUNCTION eventsrc.check_json_schema(jsonb) IS
    'raises an error if it is no JSON Schema of draft 4, 6 or 7';

CREATE FUNCTION eventsrc.json_schema_breaks(narrow jsonb, wide jsonb) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'es_json_schema_breaks';
COMMENT ON FUNCTION eventsrc.json_schema_breaks(jsonb, jsonb) IS
    'what keeps a JSON Schema from accepting all that another, narrower one accepts; NULL if nothing does';

CREATE FUNCTION eventsrc.json_schema_failure(json_schema jsonb, data jsonb) RETURNS text
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'es_json_schema_failure';
COMMENT ON FUNCTION eventsrc.json_schema_failure(jsonb, jsonb) IS
    'why data does not fit a JSON Schema; NULL if it fits';

-- event_type_arg checks the argument event_type.
CREATE FUNCTION eventsrc.event_type_arg(event_type text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(octet_length(event_type), 0) NOT BETWEEN 1 AND 256 THEN
        RAISE EXCEPTION 'event_type must be a text of 1 to 256 bytes'
            USING ERRCODE = 'VE004',
                  DETAIL = coalesce(format('It has %s bytes.', octet_length(event_type)), 'It is NULL.'),
                  HINT = 'Name the type, such as ''Placed''.';
    END IF;
END
$$;
COMMENT ON FUNCTION eventsrc.event_type_arg(text) IS 'checks the name of an event type';

CREATE FUNCTION es_create_event_type(event_type text, schema_version int DEFAULT NULL, json_schema jsonb DEFAULT NULL,
                                     compatibility text DEFAULT 'none', description text DEFAULT NULL,
                                     store name DEFAULT NULL)
RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    known name := eventsrc.own_store(store);
    same record;
    latest record;
    breaks text;
BEGIN
    PERFORM eventsrc.event_type_arg(es_create_event_type.event_type);
    IF es_create_event_type.schema_version < 1 THEN
        RAISE EXCEPTION 'schema version % is not valid', es_create_event_type.schema_version
            USING ERRCODE = 'VE004', HINT = 'Schema versions count from 1; NULL is the next.';
    END IF;
    IF es_create_event_type.compatibility IS NULL
       OR es_create_event_type.compatibility NOT IN ('none', 'backward', 'forward', 'full') THEN
        RAISE EXCEPTION 'unknown compatibility %', coalesce('"' || es_create_event_type.compatibility || '"', 'NULL')
            USING ERRCODE = 'VE004',
                  HINT = 'There are "none", "backward" (the new version takes all data of the last), "forward" (the last takes all of the new) and "full" (both).';
    END IF;
    PERFORM eventsrc.check_json_schema(es_create_event_type.json_schema);

    -- one change at a time; appends and reads go on
    EXECUTE format('LOCK TABLE %I.event_types IN SHARE ROW EXCLUSIVE MODE', known);
    EXECUTE format('SELECT * FROM %I.event_types t WHERE t.event_type = $1 ORDER BY t.schema_version DESC LIMIT 1', known)
        INTO latest USING es_create_event_type.event_type;
    EXECUTE format('SELECT * FROM %I.event_types t WHERE t.event_type = $1 AND t.schema_version = $2', known)
        INTO same USING es_create_event_type.event_type, coalesce(es_create_event_type.schema_version, latest.schema_version);
    IF same.schema_version IS NOT NULL AND same.json_schema IS NOT DISTINCT FROM es_create_event_type.json_schema
       AND same.compatibility = es_create_event_type.compatibility THEN
        RETURN same.schema_version;  -- as a deployment repeats it
    END IF;
    IF es_create_event_type.schema_version IS NOT NULL AND same.schema_version IS NOT NULL THEN
        RAISE EXCEPTION 'event type "%" version % is registered already',
                        es_create_event_type.event_type, es_create_event_type.schema_version
            USING ERRCODE = 'VE018', DETAIL = 'A version that is registered does not change, since events carry it.',
                  HINT = format('Register version %s, or drop this one with es_drop_event_type().', latest.schema_version + 1);
    END IF;
    IF es_create_event_type.compatibility <> 'none' AND latest.schema_version IS NOT NULL THEN
        IF es_create_event_type.schema_version < latest.schema_version THEN
            RAISE EXCEPTION 'event type "%" version % is older than the last, %', es_create_event_type.event_type,
                            es_create_event_type.schema_version, latest.schema_version
                USING ERRCODE = 'VE018', DETAIL = 'Compatibility is checked with the version before.',
                      HINT = 'Register an older version with compatibility "none".';
        END IF;
        IF es_create_event_type.compatibility IN ('backward', 'full') THEN
            breaks := eventsrc.json_schema_breaks(latest.json_schema, es_create_event_type.json_schema);
            IF breaks IS NOT NULL THEN
                RAISE EXCEPTION 'the new version of event type "%" does not take all data of version %',
                                es_create_event_type.event_type, latest.schema_version
                    USING ERRCODE = 'VE018', DETAIL = 'Not backward compatible: ' || breaks || '.',
                          HINT = 'Relax the new schema there, or register it with compatibility "none" and an upcaster.';
            END IF;
        END IF;
        IF es_create_event_type.compatibility IN ('forward', 'full') THEN
            breaks := eventsrc.json_schema_breaks(es_create_event_type.json_schema, latest.json_schema);
            IF breaks IS NOT NULL THEN
                RAISE EXCEPTION 'version % of event type "%" does not take all data of the new one',
                                latest.schema_version, es_create_event_type.event_type
                    USING ERRCODE = 'VE018', DETAIL = 'Not forward compatible: ' || breaks || '.',
                          HINT = 'Tighten the new schema there, or register it with compatibility "none" or "backward".';
            END IF;
        END IF;
    END IF;

    EXECUTE format('INSERT INTO %I.event_types (event_type, schema_version, json_schema, compatibility, description)'
                   ' VALUES ($1, coalesce($2, $3), $4, $5, $6) RETURNING schema_version', known)
        INTO latest
        USING es_create_event_type.event_type, es_create_event_type.schema_version,
              coalesce(latest.schema_version, 0) + 1, es_create_event_type.json_schema,
              es_create_event_type.compatibility, es_create_event_type.description;
    RETURN latest.schema_version;
END
$$;
COMMENT ON FUNCTION es_create_event_type(text, int, jsonb, text, text, name) IS
    'registers a version of an event type (NULL: the next), the JSON Schema that its data must fit (NULL: any), and how it must be compatible with the version before; returns the version';

CREATE FUNCTION es_drop_event_type(event_type text, schema_version int DEFAULT NULL, store name DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known name := eventsrc.own_store(store);
    dropped int;
BEGIN
    PERFORM eventsrc.event_type_arg(event_type);
    EXECUTE format('LOCK TABLE %I.event_types IN SHARE ROW EXCLUSIVE MODE', known);
    EXECUTE format('DELETE FROM %I.event_types t WHERE t.event_type = $1 AND ($2 IS NULL OR t.schema_version = $2)', known)
        USING event_type, schema_version;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    IF dropped = 0 THEN
        RAISE EXCEPTION 'event type "%"% is not registered', event_type, coalesce(' version ' || schema_version, '')
            USING ERRCODE = 'VE018', HINT = format('SELECT event_type, schema_version FROM %I.event_types lists those that are.', known);
    END IF;
END
$$;
COMMENT ON FUNCTION es_drop_event_type(text, int, name) IS
    'forgets a version of an event type (NULL: all); events that were appended stay';

CREATE FUNCTION es_set_strict(strict boolean, store name DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known name := eventsrc.own_store(store);
BEGIN
    IF strict IS NULL THEN
        RAISE EXCEPTION 'strict must not be NULL' USING ERRCODE = 'VE004', HINT = 'Pass true or false.';
    END IF;
    EXECUTE format('INSERT INTO %I.settings VALUES (''strict'', to_jsonb($1))'
                   ' ON CONFLICT (name) DO UPDATE SET value = excluded.value', known) USING strict;
END
$$;
COMMENT ON FUNCTION es_set_strict(boolean, name) IS
    'makes a store take events of registered types and versions only, or of all again';
