-- What there is: stores, aggregate types, event types, upcasters, snapshots; and how many events.

CREATE FUNCTION eventsrc.snapshot_counts(OUT hits bigint, OUT misses bigint)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'es_snapshot_counts';
COMMENT ON FUNCTION eventsrc.snapshot_counts() IS
    'since the server''s start and in this database: states that began at a snapshot, and those that found none though they are of as many versions as a snapshot is taken of';

-- describe_store: one store; what the caller may not read is left out.
CREATE FUNCTION eventsrc.describe_store(known name) RETURNS TABLE (kind text, name text, detail jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    events regclass;
    owner regrole;
    counts record;
BEGIN
    SELECT s.events, s.owner INTO events, owner FROM eventsrc.stores s WHERE s.store = known;
    kind := 'store';
    name := known;
    SELECT jsonb_build_object('owner', owner::text, 'partitions', count(*), 'bytes', coalesce(sum(pg_total_relation_size(t.relid)), 0),
                              'events', coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint)
    INTO detail
    FROM pg_partition_tree(events) t JOIN pg_class c ON c.oid = t.relid WHERE t.isleaf;
    IF has_table_privilege(format('%I.settings', known)::regclass, 'SELECT') THEN
        EXECUTE format('SELECT $1 || jsonb_build_object(''strict'', coalesce((SELECT value FROM %I.settings WHERE name = ''strict''), ''false''))', known)
        INTO detail USING detail;
    END IF;
    RETURN NEXT;
    IF has_table_privilege(format('%I.aggregates', known)::regclass, 'SELECT') THEN
        RETURN QUERY EXECUTE format(
            'SELECT ''aggregate type'', aggregate_type, jsonb_build_object(''reducer'', coalesce(reducer, ''merge''), ''initial'', initial,'
            ' ''snapshot_every'', snapshot_every, ''keep_snapshots'', keep_snapshots) FROM %I.aggregates ORDER BY aggregate_type', known);
    END IF;
    IF has_table_privilege(format('%I.event_types', known)::regclass, 'SELECT') THEN
        RETURN QUERY EXECUTE format(
            'SELECT ''event type'', event_type, jsonb_build_object(''versions'', jsonb_agg(schema_version ORDER BY schema_version),'
            ' ''json_schema'', bool_or(json_schema IS NOT NULL), ''compatibility'', (array_agg(compatibility ORDER BY schema_version DESC))[1],'
            ' ''description'', (array_agg(description ORDER BY schema_version DESC))[1])'
            ' FROM %I.event_types GROUP BY event_type ORDER BY event_type', known);
    END IF;
    IF has_table_privilege(format('%I.upcasters', known)::regclass, 'SELECT') THEN
        RETURN QUERY EXECUTE format(
            'SELECT ''upcaster'', event_type, jsonb_build_object(''from_version'', from_version, ''function'', function, ''to_type'', to_type)'
            ' FROM %I.upcasters ORDER BY event_type, from_version', known);
    END IF;
    IF has_table_privilege(format('%I.snapshots', known)::regclass, 'SELECT') THEN
        RETURN QUERY EXECUTE format(
            'SELECT ''snapshots'', aggregate_type, jsonb_build_object(''snapshots'', count(*), ''aggregates'', count(DISTINCT aggregate_id),'
            ' ''bytes'', sum(pg_column_size(state)), ''last_taken_at'', max(taken_at))'
            ' FROM %I.snapshots GROUP BY aggregate_type ORDER BY aggregate_type', known);
    END IF;
END
$$;
COMMENT ON FUNCTION eventsrc.describe_store(name) IS 'es_describe() of one store';

CREATE FUNCTION eventsrc.describe(only_store name)
    RETURNS TABLE (store name, kind text, name text, detail jsonb)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known name;
    c record := eventsrc.snapshot_counts();
BEGIN
    FOREACH known IN ARRAY eventsrc.readable_stores(only_store) LOOP
        RETURN QUERY SELECT known, d.* FROM eventsrc.describe_store(known) d;
    END LOOP;
    RETURN QUERY SELECT NULL::name, 'snapshot hit rate'::text, current_database()::text,
        jsonb_build_object('hits', c.hits, 'misses', c.misses, 'rate', round(c.hits::numeric / nullif(c.hits + c.misses, 0), 4));
END
$$;
COMMENT ON FUNCTION eventsrc.describe(name) IS 'es_describe()';

CREATE FUNCTION es_describe(store name DEFAULT NULL)
    RETURNS TABLE (store name, kind text, name text, detail jsonb)
    LANGUAGE sql VOLATILE ROWS 100 AS $$ SELECT * FROM eventsrc.describe($1) $$;
COMMENT ON FUNCTION es_describe(name) IS
    'what there is in a store (NULL: in all that the caller may read): aggregate types with their reducers, event types with their versions, upcasters, snapshots, and how often snapshots served';

-- es_event_stats: days are those of UTC, as partitions are.
CREATE FUNCTION eventsrc.event_stats(only_type text, from_time timestamptz, to_time timestamptz, estimate boolean, only_store name)
    RETURNS TABLE (day date, aggregate_type text, event_type text, events bigint, bytes bigint, per_second numeric)
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 1000
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_name text := format('%I.events', (eventsrc.readable_stores(coalesce(only_store, current_setting('eventsrc.store'))))[1]);
    percent float8 := 100;
    sample text := '';
BEGIN
    IF estimate IS TRUE THEN
        -- some 5,000 pages of all
        SELECT least(100, 100 * 5000.0 * current_setting('block_size')::int / greatest(sum(pg_relation_size(t.relid)), 1)) INTO percent
        FROM pg_partition_tree(table_name::regclass) t WHERE t.isleaf;
        IF percent < 100 THEN
            sample := format('TABLESAMPLE SYSTEM (%s)', percent);
        END IF;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT s.day, s.aggregate_type, s.event_type, round(s.events)::bigint, round(s.bytes)::bigint,'
        ' round((s.events / greatest(extract(epoch FROM least(s.day + 1, now() AT TIME ZONE ''UTC'') - s.day), 1))::numeric, 6)'
        ' FROM (SELECT (e.recorded_at AT TIME ZONE ''UTC'')::date AS day, e.aggregate_type, e.event_type, count(*) * $4 AS events,'
        '       sum(pg_column_size(e.data) + coalesce(pg_column_size(e.metadata), 0)) * $4 AS bytes'
        '       FROM %s e %s WHERE e.recorded_at >= $2 AND e.recorded_at < $3 %s GROUP BY 1, 2, 3) s'
        ' ORDER BY 1, 2, 3',
        table_name, sample, CASE WHEN only_type IS NOT NULL THEN 'AND e.aggregate_type = $1' END)
    USING only_type, coalesce(from_time, '-infinity'), coalesce(to_time, 'infinity'), 100 / percent;
END
$$;
COMMENT ON FUNCTION eventsrc.event_stats(text, timestamptz, timestamptz, boolean, name) IS 'es_event_stats()';

CREATE FUNCTION es_event_stats(
    aggregate_type text        DEFAULT NULL,
    from_time      timestamptz DEFAULT NULL,
    to_time        timestamptz DEFAULT NULL,
    estimate       boolean     DEFAULT false,
    store          name        DEFAULT NULL)
    RETURNS TABLE (day date, aggregate_type text, event_type text, events bigint, bytes bigint, per_second numeric)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1000 AS $$ SELECT * FROM eventsrc.event_stats($1, $2, $3, $4, $5) $$;
COMMENT ON FUNCTION es_event_stats(text, timestamptz, timestamptz, boolean, name) IS
    'events, bytes of their data and metadata, and events per second, by day (UTC) and type; estimate => true looks at a sample of 5,000 pages';
