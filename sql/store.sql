-- Stores: one schema each, of ordinary tables owned by whoever creates it.

-- append_trigger fills in and checks what INSERT and COPY write into an events
-- table, by the code of es_append() (src/append/trigger.c).
CREATE FUNCTION eventsrc.append_trigger() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'es_append_trigger_function';
COMMENT ON FUNCTION eventsrc.append_trigger() IS
    'trigger of every events table: assigns positions and versions, refuses conflicts';

-- A store is where the trigger is.
CREATE VIEW eventsrc.stores AS
    SELECT n.nspname AS store, c.oid AS events, c.relowner AS owner
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_trigger t ON t.oid OPERATOR(pg_catalog.=) d.objid
        AND t.tgparentid OPERATOR(pg_catalog.=) 0
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
        AND c.relkind OPERATOR(pg_catalog.=) 'p' AND c.relname OPERATOR(pg_catalog.=) 'events'
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
      AND d.refobjid OPERATOR(pg_catalog.=) 'eventsrc.append_trigger()'::pg_catalog.regprocedure;
COMMENT ON VIEW eventsrc.stores IS 'the stores of this database';
GRANT SELECT ON eventsrc.stores TO PUBLIC;

-- add_partitions makes the partitions of a store's events table for the month
-- of a moment and the given number of months after it, where they are missing.
-- The new table is built apart and then attached, which does not block appends.
CREATE FUNCTION eventsrc.add_partitions(events regclass, from_time timestamptz, ahead int)
RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
SET client_min_messages = warning
AS $$
DECLARE
    month timestamp := date_trunc('month', from_time AT TIME ZONE 'UTC');
    store name;
    part name;
    low timestamptz;
    high timestamptz;
    made int := 0;
BEGIN
    SELECT n.nspname INTO STRICT store
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = events;

    FOR i IN 0 .. ahead LOOP
        low := (month + make_interval(months => i)) AT TIME ZONE 'UTC';
        high := (month + make_interval(months => i + 1)) AT TIME ZONE 'UTC';
        part := 'events_' || to_char(low AT TIME ZONE 'UTC', 'YYYY_MM');
        IF eventsrc.has_partition(events, low) THEN
            CONTINUE;
        END IF;
        -- one maker at a time; the second finds the first's work done
        EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', events);
        IF eventsrc.has_partition(events, low) THEN
            CONTINUE;
        END IF;
        IF to_regclass(format('%I.%I', store, part)) IS NOT NULL THEN
            RAISE EXCEPTION 'table "%"."%" stands where a partition of the store should be made', store, part
                USING ERRCODE = 'VE011',
                      DETAIL = 'The store''s events table has no partition for ' || low || '.',
                      HINT = format('Attach it with ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L), or rename it.',
                                    events, store, part, low, high);
        END IF;
        EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING STATISTICS) USING append_only', store, part, events);
        EXECUTE format('CREATE UNIQUE INDEX ON %I.%I (aggregate_type, aggregate_id, version)', store, part);
        EXECUTE format('CREATE UNIQUE INDEX ON %I.%I (global_position)', store, part);
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                       events, store, part, low, high);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION eventsrc.add_partitions(regclass, timestamptz, int) IS
    'makes the missing monthly partitions of an events table, from a moment''s month on';

-- has_partition tells whether an events table has a partition for a moment.
CREATE FUNCTION eventsrc.has_partition(events regclass, at timestamptz) RETURNS boolean
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'es_has_partition';
COMMENT ON FUNCTION eventsrc.has_partition(regclass, timestamptz) IS
    'whether an events table has a partition for a moment';

-- adopt_events writes the rows in "streams" of the events of a partition that was
-- just attached, whose streams are locked (src/append/attach.c); says what is
-- wrong with the events, if anything is.
CREATE FUNCTION eventsrc.adopt_events(events regclass, partition regclass, low timestamptz, high timestamptz,
                                      OUT wrong text, OUT last_position bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS $$
DECLARE
    streams text := (SELECT format('%I.streams', n.nspname)
                     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = events);
BEGIN
    EXECUTE format('SELECT max(global_position) FROM ONLY %s', partition) INTO last_position;

    -- before and after are the versions of a stream next to the partition's
    EXECUTE format($q$
        WITH own AS (
            SELECT aggregate_type, aggregate_id, min(version) AS first, max(version) AS last, count(*) AS count,
                   bool_or(backwards) AS backwards, max(recorded_at) AS latest
            FROM (SELECT aggregate_type, aggregate_id, version, recorded_at,
                         recorded_at < lag(recorded_at) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY version) AS backwards
                  FROM ONLY %1$s) e
            GROUP BY aggregate_type, aggregate_id
        ), placed AS (
            SELECT own.*, s.first_partition, s.last_partition, s.closed, before.version AS before, after.version AS after
            FROM own
            LEFT JOIN %3$s s USING (aggregate_type, aggregate_id)
            LEFT JOIN LATERAL (SELECT max(e.version) AS version FROM %2$s e
                               WHERE e.aggregate_type = own.aggregate_type AND e.aggregate_id = own.aggregate_id
                                 AND e.recorded_at < $1) before ON s.aggregate_id IS NOT NULL
            LEFT JOIN LATERAL (SELECT min(e.version) AS version FROM %2$s e
                               WHERE e.aggregate_type = own.aggregate_type AND e.aggregate_id = own.aggregate_id
                                 AND e.recorded_at >= $2) after ON s.aggregate_id IS NOT NULL
        ), judged AS (
            SELECT aggregate_type, aggregate_id,
                   CASE WHEN first < 1 OR last - first + 1 <> count THEN 'whose versions have gaps'
                        WHEN backwards THEN 'whose times run backwards'
                        WHEN latest > clock_timestamp() THEN 'with events of the future'
                        WHEN first_partition IS NULL THEN
                            CASE WHEN first <> 1 THEN 'which it begins at version ' || first END
                        WHEN first <= before OR last >= after OR $1 < first_partition THEN
                            'of which the store has other events with versions up to ' || greatest(before, after)
                        WHEN $1 > last_partition AND closed THEN 'which is closed'
                        WHEN $1 > last_partition AND first IS DISTINCT FROM before + 1 THEN
                            format('which it continues at version %%s, but the store ends at %%s', first, coalesce(before::text, 'a version that nobody knows'))
                   END AS wrong
            FROM placed
        )
        SELECT format('which holds stream %%s %%s, %%s', aggregate_type, aggregate_id, wrong)
        FROM judged WHERE wrong IS NOT NULL ORDER BY aggregate_type, aggregate_id LIMIT 1
    $q$, partition, events, streams) INTO wrong USING low, high;

    IF wrong IS NULL THEN
        EXECUTE format($q$
            (SELECT format('which holds an event at global position %%s, which is not valid', p.global_position)
             FROM ONLY %1$s p WHERE p.global_position < 1 LIMIT 1)
            UNION ALL
            (SELECT format('which holds an event at global position %%s, where the store has another', p.global_position)
             FROM ONLY %1$s p
             WHERE EXISTS (SELECT FROM %2$s e WHERE e.global_position = p.global_position AND e.tableoid <> %3$s)
             ORDER BY p.global_position LIMIT 1)
            LIMIT 1
        $q$, partition, events, partition::oid) INTO wrong;
    END IF;

    EXECUTE format($q$
        INSERT INTO %2$s AS s (aggregate_type, aggregate_id, first_partition, last_partition)
        SELECT DISTINCT aggregate_type, aggregate_id, $1, $1 FROM ONLY %1$s
        ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
            SET first_partition = least(s.first_partition, $1), last_partition = greatest(s.last_partition, $1)
            WHERE $1 NOT BETWEEN s.first_partition AND s.last_partition
    $q$, partition, streams) USING low;
END
$$;
COMMENT ON FUNCTION eventsrc.adopt_events(regclass, regclass, timestamptz, timestamptz) IS
    'writes the rows of streams for the events of a partition that was attached; says what is wrong with them';

CREATE FUNCTION es_create_store(store name DEFAULT 'es') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    column_list text := $columns$
        global_position bigint NOT NULL,
        aggregate_type  text COLLATE "C" NOT NULL,
        aggregate_id    text COLLATE "C" NOT NULL,
        version         bigint NOT NULL,
        event_id        text COLLATE "C" NOT NULL,
        event_type      text COLLATE "C" NOT NULL,
        schema_version  int NOT NULL,
        data            jsonb NOT NULL,
        metadata        jsonb,
        user_id         text COLLATE "C" NOT NULL,
        correlation_id  text COLLATE "C",
        causation_id    text COLLATE "C",
        traceparent     text COLLATE "C",
        recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
        occurred_at     timestamptz,
        transaction     xid8 NOT NULL
    $columns$;
BEGIN
    IF store IS NULL OR store = '' THEN
        RAISE EXCEPTION 'a store needs a name'
            USING ERRCODE = 'VE003', HINT = 'Pass a name, or leave the argument out for "es".';
    END IF;
    IF store LIKE 'pg\_%' OR store IN ('eventsrc', 'information_schema') THEN
        RAISE EXCEPTION 'store name "%" is reserved', store
            USING ERRCODE = 'VE003',
                  DETAIL = 'Names that begin with "pg_", "eventsrc" and "information_schema" belong to the system.',
                  HINT = 'Choose another name, such as that of the bounded context.';
    END IF;
    IF to_regnamespace(quote_ident(store)) IS NOT NULL THEN
        RAISE EXCEPTION 'store "%" cannot be created: a schema of that name exists', store
            USING ERRCODE = 'VE003',
                  DETAIL = CASE WHEN EXISTS (SELECT FROM eventsrc.stores s WHERE s.store = es_create_store.store)
                                THEN 'It is a store already.' ELSE 'It is not a store.' END,
                  HINT = 'Choose another name.';
    END IF;

    EXECUTE format('CREATE SCHEMA %I', store);
    EXECUTE format('CREATE TABLE %I.events (%s) PARTITION BY RANGE (recorded_at)', store, column_list);
    EXECUTE format($ddl$
        CREATE TABLE %1$I.streams (
            aggregate_type  text COLLATE "C" NOT NULL,
            aggregate_id    text COLLATE "C" NOT NULL,
            first_partition timestamptz NOT NULL,
            last_partition  timestamptz NOT NULL,
            closed          boolean NOT NULL DEFAULT false,
            PRIMARY KEY (aggregate_type, aggregate_id)
        ) USING heap;
        CREATE TABLE %1$I.snapshots (
            aggregate_type  text COLLATE "C" NOT NULL,
            aggregate_id    text COLLATE "C" NOT NULL,
            version         bigint NOT NULL,
            recorded_at     timestamptz NOT NULL,
            state           jsonb NOT NULL,
            reducer         text NOT NULL,
            taken_at        timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (aggregate_type, aggregate_id, version)
        ) USING heap;
        CREATE TABLE %1$I.aggregates (
            aggregate_type  text COLLATE "C" PRIMARY KEY,
            reducer         text,
            initial         jsonb NOT NULL DEFAULT '{}',
            snapshot_every  int NOT NULL DEFAULT 100 CHECK (snapshot_every >= 0),
            keep_snapshots  int DEFAULT 10 CHECK (keep_snapshots >= 1)
        ) USING heap;
        CREATE TABLE %1$I.event_types (
            event_type      text COLLATE "C" NOT NULL,
            schema_version  int NOT NULL CHECK (schema_version >= 1),
            json_schema     jsonb,
            compatibility   text NOT NULL DEFAULT 'none' CHECK (compatibility IN ('none', 'backward', 'forward', 'full')),
            description     text,
            created_at      timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (event_type, schema_version)
        ) USING heap;
        CREATE TABLE %1$I.upcasters (
            event_type      text COLLATE "C" NOT NULL,
            from_version    int NOT NULL CHECK (from_version >= 1),
            function        text NOT NULL,
            to_type         text COLLATE "C",
            PRIMARY KEY (event_type, from_version)
        ) USING heap;
        CREATE TABLE %1$I.settings (
            name            text COLLATE "C" PRIMARY KEY,
            value           jsonb NOT NULL
        ) USING heap;
        COMMENT ON TABLE %1$I.events IS 'append-only event log; append with es_append(), read with es_read_stream(), es_read_all() or plain SELECT';
        COMMENT ON TABLE %1$I.streams IS 'one row a stream: the first and last partition of events (by its lower bound) that hold its events, and whether it is closed';
        COMMENT ON TABLE %1$I.snapshots IS 'cached states of aggregates; rows may be deleted at any time';
        COMMENT ON TABLE %1$I.aggregates IS 'how the states of aggregate types are made; see es_create_aggregate()';
        COMMENT ON TABLE %1$I.event_types IS 'versions of event types and their JSON Schemas; see es_create_event_type()';
        COMMENT ON TABLE %1$I.upcasters IS 'functions that bring events of old versions up to date when they are read; see es_create_upcaster()';
        COMMENT ON TABLE %1$I.settings IS 'settings of the store; see es_set_strict()';
        CREATE TRIGGER eventsrc_registry AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$I.event_types
            FOR EACH STATEMENT EXECUTE FUNCTION eventsrc.registry_trigger();
        CREATE TRIGGER eventsrc_registry AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$I.upcasters
            FOR EACH STATEMENT EXECUTE FUNCTION eventsrc.registry_trigger();
        CREATE TRIGGER eventsrc_registry AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$I.settings
            FOR EACH STATEMENT EXECUTE FUNCTION eventsrc.registry_trigger();
        ALTER TABLE %1$I.event_types ENABLE ALWAYS TRIGGER eventsrc_registry;
        ALTER TABLE %1$I.upcasters ENABLE ALWAYS TRIGGER eventsrc_registry;
        ALTER TABLE %1$I.settings ENABLE ALWAYS TRIGGER eventsrc_registry;
        CREATE TRIGGER eventsrc_append BEFORE INSERT ON %1$I.events
            FOR EACH ROW EXECUTE FUNCTION eventsrc.append_trigger();
        ALTER TABLE %1$I.events ENABLE ALWAYS TRIGGER eventsrc_append;
        CREATE TRIGGER eventsrc_snapshot AFTER INSERT ON %1$I.events
            FOR EACH ROW WHEN (NEW.version %% 100 = 0) EXECUTE FUNCTION eventsrc.snapshot_trigger();
        $ddl$, store);
    PERFORM eventsrc.add_partitions(format('%I.events', store)::regclass,
                                    now(),
                                    current_setting('eventsrc.partitions_ahead')::int);
END
$$;
COMMENT ON FUNCTION es_create_store(name) IS
    'makes a store: a schema with the tables events, streams, snapshots, aggregates, event_types, upcasters and settings, owned by the caller';

-- drop_store_tables drops the tables and the schema of a store; the guards let it pass (src/store/guard.c).
CREATE FUNCTION eventsrc.drop_store_tables(store name) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'es_drop_store_tables';
COMMENT ON FUNCTION eventsrc.drop_store_tables(name) IS
    'the part of es_drop_store() that drops the tables and the schema; needs ownership as DROP TABLE does';

-- loss tells what DROP EXTENSION would take away; NULL if nothing.
CREATE FUNCTION eventsrc.loss() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH held AS (
        SELECT c.oid, i.inhparent, c.relname, n.nspname, greatest(c.reltuples, 0) AS rows, pg_total_relation_size(c.oid) AS size
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_am a ON a.oid = c.relam AND a.amname = 'append_only'
        LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relkind = 'r'
    ), lost AS (
        SELECT 1 AS kind, s.store::text AS name,
               format('store "%s" (%s%s)', s.store, pg_size_pretty(coalesce(sum(h.size), 0)),
                      CASE WHEN sum(h.rows) > 0 THEN ', events: about ' || sum(h.rows)::bigint END) AS what
        FROM eventsrc.stores s LEFT JOIN held h ON h.inhparent = s.events GROUP BY s.store
        UNION ALL
        SELECT 2, h.nspname || '.' || h.relname, format('table %I.%I (%s)', h.nspname, h.relname, pg_size_pretty(h.size))
        FROM held h WHERE NOT EXISTS (SELECT FROM eventsrc.stores s WHERE s.events = h.inhparent)
    )
    SELECT string_agg(what, ', ' ORDER BY kind, name) FROM lost
$$;
COMMENT ON FUNCTION eventsrc.loss() IS 'the stores and append_only tables that DROP EXTENSION eventsrc CASCADE would drop';

CREATE FUNCTION es_drop_store(store name, confirm name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    stray text;
    relays text := eventsrc.relays_of(store);
BEGIN
    IF NOT EXISTS (SELECT FROM eventsrc.stores s WHERE s.store = es_drop_store.store) THEN
        RAISE EXCEPTION 'store "%" does not exist', store
            USING ERRCODE = 'VE002', HINT = 'SELECT store FROM eventsrc.stores lists the stores of this database.';
    END IF;
    IF confirm IS DISTINCT FROM store THEN
        RAISE EXCEPTION 'store "%" is not dropped without confirmation', store
            USING ERRCODE = 'VE003',
                  DETAIL = 'All of its events, streams and snapshots would be lost.',
                  HINT = format('Repeat the name: SELECT es_drop_store(%L, confirm => %1$L).', store);
    END IF;

    IF relays IS NOT NULL THEN
        RAISE EXCEPTION 'store "%" is not dropped: relays send from it', store
            USING ERRCODE = 'VE003', DETAIL = 'They are: ' || relays || '.',
                  HINT = format('Drop them first: SELECT es_drop_relay(relay) FROM es_relays WHERE store = %L;', store);
    END IF;

    -- what is not ours is not dropped with the store
    SELECT string_agg(format('%I', c.relname), ', ' ORDER BY c.relname) INTO stray
    FROM pg_class c
    WHERE c.relnamespace = quote_ident(store)::regnamespace
      AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND c.relname NOT IN ('events', 'streams', 'snapshots', 'aggregates', 'event_types', 'upcasters', 'settings')
      AND NOT EXISTS (SELECT FROM pg_inherits i
                      WHERE i.inhrelid = c.oid
                        AND i.inhparent = format('%I.events', store)::regclass);
    IF stray IS NOT NULL THEN
        RAISE EXCEPTION 'store "%" is not dropped: its schema holds other relations', store
            USING ERRCODE = 'VE003', DETAIL = 'They are: ' || stray || '.',
                  HINT = 'Move them to another schema with ALTER ... SET SCHEMA, or drop them.';
    END IF;

    PERFORM eventsrc.drop_store_tables(store);
END
$$;
COMMENT ON FUNCTION es_drop_store(name, name) IS
    'drops a store and all its events; the name must be repeated as confirmation';

-- own_store finds a store (NULL: the setting) and checks that the caller owns it.
CREATE FUNCTION eventsrc.own_store(store name) RETURNS name
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid;
BEGIN
    store := coalesce(store, current_setting('eventsrc.store'));
    SELECT s.owner INTO owner FROM eventsrc.stores s WHERE s.store = own_store.store;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'store "%" does not exist', store
            USING ERRCODE = 'VE002', HINT = 'SELECT store FROM eventsrc.stores lists the stores of this database.';
    END IF;
    IF NOT pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of store "%"', store
            USING ERRCODE = '42501', HINT = format('Its owner is %s.', owner::regrole);
    END IF;
    RETURN store;
END
$$;
COMMENT ON FUNCTION eventsrc.own_store(name) IS 'finds a store and checks that the caller owns it';

-- store_privileges checks the arguments of es_grant() and es_revoke(), and that the
-- caller owns the store; returns the table privileges that a name stands for.
CREATE FUNCTION eventsrc.store_privileges(role regrole, privilege text, INOUT store name, OUT privileges text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    privileges := CASE privilege WHEN 'reader' THEN 'SELECT' WHEN 'writer' THEN 'INSERT, SELECT' END;
    IF privileges IS NULL THEN
        RAISE EXCEPTION 'unknown privilege %', coalesce('"' || privilege || '"', 'NULL')
            USING ERRCODE = 'VE004', HINT = 'There are "reader" (SELECT on events) and "writer" (INSERT and SELECT).';
    END IF;
    IF role IS NULL OR role = 0::oid THEN
        RAISE EXCEPTION 'role must not be NULL'
            USING ERRCODE = 'VE004', HINT = 'Pass the name of a role; for PUBLIC use GRANT and REVOKE.';
    END IF;
    IF role::text = role::oid::text THEN
        RAISE EXCEPTION 'role with OID % does not exist', role USING ERRCODE = '42704';
    END IF;
    store := eventsrc.own_store(store);
    IF role = (SELECT s.owner FROM eventsrc.stores s WHERE s.store = store_privileges.store) THEN
        RAISE EXCEPTION 'role % owns the store "%"', role, store
            USING ERRCODE = 'VE004', HINT = 'An owner''s privileges are not granted or revoked; name another role.';
    END IF;
END
$$;
COMMENT ON FUNCTION eventsrc.store_privileges(regrole, text, name) IS
    'checks the arguments of es_grant() and es_revoke()';

CREATE FUNCTION es_grant(role regrole, privilege text, store name DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record := eventsrc.store_privileges(role, privilege, store);
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', p.store, role);
    EXECUTE format('GRANT %s ON %I.events TO %s', p.privileges, p.store, role);
END
$$;
COMMENT ON FUNCTION es_grant(regrole, text, name) IS
    'gives a role the privileges of a ''reader'' (reads events and states) or ''writer'' (appends too) of a store';

-- USAGE on the schema goes with the last privilege on events.
CREATE FUNCTION es_revoke(role regrole, privilege text, store name DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record := eventsrc.store_privileges(role, privilege, store);
BEGIN
    EXECUTE format('REVOKE %s ON %I.events FROM %s', p.privileges, p.store, role);
    IF NOT EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = format('%I.events', p.store)::regclass AND a.grantee = role) THEN
        EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %s', p.store, role);
    END IF;
END
$$;
COMMENT ON FUNCTION es_revoke(regrole, text, name) IS
    'takes from a role what es_grant() gave it';
