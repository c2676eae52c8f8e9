-- Events by what they belong to, by cause and by time.

-- The stores that the caller can read, or the one named.
CREATE FUNCTION eventsrc.readable_stores(store name) RETURNS name[]
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF store IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM eventsrc.stores s WHERE s.store = readable_stores.store) THEN
            RAISE EXCEPTION 'store "%" does not exist', store
                USING ERRCODE = 'VE002', HINT = 'SELECT store FROM eventsrc.stores lists the stores of this database.';
        END IF;
        RETURN ARRAY[store];
    END IF;
    RETURN ARRAY(SELECT s.store FROM eventsrc.stores s
                 WHERE has_schema_privilege(s.store::text, 'USAGE')
                   AND has_table_privilege(s.events, 'SELECT')
                 ORDER BY s.store);
END
$$;
COMMENT ON FUNCTION eventsrc.readable_stores(name) IS 'the stores that the caller may read, or the one that is named';

-- A query of the events of several stores for which a condition holds.
CREATE FUNCTION eventsrc.trace_query(stores name[], condition text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(string_agg(format(
               'SELECT %1$L::name AS store, global_position, aggregate_type, aggregate_id, version, event_id, event_type,'
               ' data, user_id, correlation_id, causation_id, recorded_at, occurred_at FROM %1$I.events WHERE %2$s', s, condition),
               ' UNION ALL '),
           'SELECT NULL::name, NULL::bigint, NULL::text, NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::jsonb,'
           ' NULL::text, NULL::text, NULL::text, NULL::timestamptz, NULL::timestamptz WHERE $1 IS NULL AND false')
           || ' ORDER BY 2'
    FROM unnest(stores) s
$$;
COMMENT ON FUNCTION eventsrc.trace_query(name[], text) IS 'a query of the events of several stores for which a condition holds';

CREATE FUNCTION eventsrc.timeline(wanted text, only_store name)
    RETURNS TABLE (store name, global_position bigint, aggregate_type text, aggregate_id text, version bigint,
                   event_id text, event_type text, data jsonb, user_id text, correlation_id text, causation_id text,
                   recorded_at timestamptz, occurred_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 100
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE eventsrc.trace_query(eventsrc.readable_stores($2), 'correlation_id = $1') USING $1;
END
$$;
COMMENT ON FUNCTION eventsrc.timeline(text, name) IS 'es_timeline()';

CREATE FUNCTION es_timeline(correlation_id text, store name DEFAULT NULL)
    RETURNS TABLE (store name, global_position bigint, aggregate_type text, aggregate_id text, version bigint,
                   event_id text, event_type text, data jsonb, user_id text, correlation_id text, causation_id text,
                   recorded_at timestamptz, occurred_at timestamptz)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 100 AS $$ SELECT * FROM eventsrc.timeline($1, $2) $$;
COMMENT ON FUNCTION es_timeline(text, name) IS
    'the events of a correlation in all stores that the caller may read (or in one), in global order';

CREATE FUNCTION eventsrc.causes(wanted text, only_store name)
    RETURNS TABLE (depth int, store name, global_position bigint, aggregate_type text, aggregate_id text, version bigint,
                   event_id text, event_type text, data jsonb, user_id text, correlation_id text, causation_id text,
                   recorded_at timestamptz, occurred_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    query text := eventsrc.trace_query(eventsrc.readable_stores($2), 'event_id = ANY ($1)');
    ids text[] := ARRAY[$1];
    seen text[] := ids;
BEGIN
    FOR level IN 0 .. 2147483646 LOOP
        depth := level;
        DECLARE
            causes text[] := '{}';
        BEGIN
            FOR store, global_position, aggregate_type, aggregate_id, version, event_id, event_type, data, user_id,
                correlation_id, causation_id, recorded_at, occurred_at IN EXECUTE query USING ids LOOP
                RETURN NEXT;
                IF causation_id <> ALL (seen) THEN
                    causes := causes || causation_id;
                    seen := seen || causation_id;
                END IF;
            END LOOP;
            ids := causes;
        END;
        EXIT WHEN ids = '{}';
    END LOOP;
END
$$;
COMMENT ON FUNCTION eventsrc.causes(text, name) IS 'es_causes()';

CREATE FUNCTION es_causes(event_id text, store name DEFAULT NULL)
    RETURNS TABLE (depth int, store name, global_position bigint, aggregate_type text, aggregate_id text, version bigint,
                   event_id text, event_type text, data jsonb, user_id text, correlation_id text, causation_id text,
                   recorded_at timestamptz, occurred_at timestamptz)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10 AS $$ SELECT * FROM eventsrc.causes($1, $2) $$;
COMMENT ON FUNCTION es_causes(text, name) IS
    'an event (depth 0), the event that caused it (1), the cause of that and so on, in all stores that the caller may read (or in one)';

CREATE FUNCTION eventsrc.effects(wanted text, only_store name)
    RETURNS TABLE (depth int, store name, global_position bigint, aggregate_type text, aggregate_id text, version bigint,
                   event_id text, event_type text, data jsonb, user_id text, correlation_id text, causation_id text,
                   recorded_at timestamptz, occurred_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stores name[] := eventsrc.readable_stores($2);
    query text := eventsrc.trace_query(stores, 'event_id = ANY ($1)');
    ids text[] := ARRAY[$1];
    seen text[] := ids;
BEGIN
    FOR level IN 0 .. 2147483646 LOOP
        depth := level;
        DECLARE
            effects text[] := '{}';
        BEGIN
            FOR store, global_position, aggregate_type, aggregate_id, version, event_id, event_type, data, user_id,
                correlation_id, causation_id, recorded_at, occurred_at IN EXECUTE query USING ids LOOP
                -- one that leads back to the beginning is no effect of it
                CONTINUE WHEN level > 0 AND event_id = ANY (seen);
                RETURN NEXT;
                effects := effects || event_id;
            END LOOP;
            ids := effects;
            seen := seen || effects;
        END;
        EXIT WHEN ids = '{}';
        query := eventsrc.trace_query(stores, 'causation_id = ANY ($1)');
    END LOOP;
END
$$;
COMMENT ON FUNCTION eventsrc.effects(text, name) IS 'es_effects()';

CREATE FUNCTION es_effects(event_id text, store name DEFAULT NULL)
    RETURNS TABLE (depth int, store name, global_position bigint, aggregate_type text, aggregate_id text, version bigint,
                   event_id text, event_type text, data jsonb, user_id text, correlation_id text, causation_id text,
                   recorded_at timestamptz, occurred_at timestamptz)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10 AS $$ SELECT * FROM eventsrc.effects($1, $2) $$;
COMMENT ON FUNCTION es_effects(text, name) IS
    'an event (depth 0), the events that it caused (1), those that they caused and so on, in all stores that the caller may read (or in one)';

CREATE FUNCTION es_create_trace_indexes(store name DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning AS $$
DECLARE
    name name := (eventsrc.readable_stores(coalesce(store, current_setting('eventsrc.store'))))[1];
BEGIN
    EXECUTE format('CREATE INDEX IF NOT EXISTS events_event_id ON %I.events (event_id)', name);
    EXECUTE format('CREATE INDEX IF NOT EXISTS events_correlation_id ON %I.events (correlation_id) WHERE correlation_id IS NOT NULL', name);
    EXECUTE format('CREATE INDEX IF NOT EXISTS events_causation_id ON %I.events (causation_id) WHERE causation_id IS NOT NULL', name);
END
$$;
COMMENT ON FUNCTION es_create_trace_indexes(name) IS
    'makes the indexes that es_timeline(), es_causes() and es_effects() need in big stores; appends wait while they are built';

-- es_position_at: positions and times rise together, but for events that were
-- being appended at the same moment and for clocks that were set.  So the
-- binary search is followed by a look at what lies before.
CREATE FUNCTION es_position_at(at timestamptz, store name DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    events text := format('%I.events', (eventsrc.readable_stores(coalesce(store, current_setting('eventsrc.store'))))[1]);
    low bigint := 0;
    high bigint;
    middle bigint;
    found_position bigint;
    found_time timestamptz;
BEGIN
    IF at IS NULL THEN
        RAISE EXCEPTION 'at must not be NULL' USING ERRCODE = 'VE004', HINT = 'Pass a moment, such as now() - interval ''1 day''.';
    END IF;
    EXECUTE format('SELECT global_position FROM %s ORDER BY global_position DESC LIMIT 1', events) INTO high;
    high := coalesce(high, 0) + 1;
    -- what is at or below low was recorded by then; what is at high was not, or is past the end
    WHILE high - low > 1 LOOP
        middle := low + (high - low) / 2;
        EXECUTE format('SELECT global_position, recorded_at FROM %s WHERE global_position > $1 AND global_position <= $2'
                       ' ORDER BY global_position DESC LIMIT 1', events)
        INTO found_position, found_time USING low, middle;
        IF found_time > at THEN
            high := found_position;
        ELSE
            low := middle;
        END IF;
    END LOOP;
    LOOP
        EXECUTE format('SELECT min(global_position) FROM (SELECT global_position, recorded_at FROM %s WHERE global_position < $1'
                       ' ORDER BY global_position DESC LIMIT 1000) e WHERE recorded_at > $2', events)
        INTO found_position USING high, at;
        EXIT WHEN found_position IS NULL;
        high := found_position;
    END LOOP;
    EXECUTE format('SELECT global_position FROM %s WHERE global_position < $1 ORDER BY global_position DESC LIMIT 1', events)
    INTO low USING high;
    RETURN coalesce(low, 0);
END
$$;
COMMENT ON FUNCTION es_position_at(timestamptz, name) IS
    'the position of a store''s last event before the first that was recorded after a moment (0: there is none); es_read_all() from there on misses nothing that was recorded since';

CREATE FUNCTION es_between(aggregate_type text, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL,
                           store name DEFAULT NULL)
    RETURNS SETOF es_event
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 1000
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT global_position, aggregate_type, aggregate_id, version, event_id, event_type, schema_version, data, metadata,'
        ' user_id, correlation_id, causation_id, traceparent, recorded_at, occurred_at, transaction'
        ' FROM %I.events WHERE recorded_at >= $2 AND recorded_at < $3 %s ORDER BY global_position',
        (eventsrc.readable_stores(coalesce(store, current_setting('eventsrc.store'))))[1],
        CASE WHEN aggregate_type IS NOT NULL THEN 'AND aggregate_type = $1' END)
    USING aggregate_type, coalesce(from_time, '-infinity'), coalesce(to_time, 'infinity');
END
$$;
COMMENT ON FUNCTION es_between(text, timestamptz, timestamptz, name) IS
    'the events of an aggregate type (NULL: of all) recorded from a moment on and before another, in global order';
