-- Views of states with typed columns, for analysts.

-- state_view_names gives the view and the function their names.
CREATE FUNCTION eventsrc.state_view_names(aggregate_type text, INOUT name text, INOUT store name, OUT view text, OUT func text)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF aggregate_type IS NULL OR aggregate_type = '' THEN
        RAISE EXCEPTION 'aggregate_type must not be NULL or empty' USING ERRCODE = 'VE004', HINT = 'Name the type, such as ''Order''.';
    END IF;
    store := (eventsrc.readable_stores(coalesce(store, current_setting('eventsrc.store'))))[1];
    name := coalesce(name, lower(regexp_replace(aggregate_type, '([[:lower:][:digit:]])([[:upper:]])', '\1_\2', 'g')));
    IF name = '' OR octet_length(name) > 59 THEN
        RAISE EXCEPTION 'a state view cannot be named "%"', name
            USING ERRCODE = 'VE004', DETAIL = 'The names of the view and of the function are this and "_now" or "_at".',
                  HINT = 'Pass a name of 1 to 59 bytes.';
    END IF;
    view := format('%I.%I', store, name || '_now');
    func := format('%I.%I', store, name || '_at');
END
$$;
COMMENT ON FUNCTION eventsrc.state_view_names(text, text, name) IS 'how the view and the function of es_create_state_view() are called';

-- state_view_columns reads '{"total": "numeric"}' or '{total numeric}'.
CREATE FUNCTION eventsrc.state_view_columns(columns text) RETURNS TABLE (name text, type text)
    LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    body text;
    item text;
    depth int := 0;
    quoted boolean := false;
    c text;
BEGIN
    IF columns ~ '^\s*\{\s*"[^"]*"\s*:' THEN
        RETURN QUERY SELECT j.key, j.value FROM pg_catalog.json_each_text(columns::json) j;
        RETURN;
    END IF;
    body := substring(columns from '^\s*\{(.*)\}\s*$');
    IF body IS NULL OR body ~ '^\s*$' THEN
        RAISE EXCEPTION 'columns must be a list of names and types, not %', coalesce('"' || columns || '"', 'NULL')
            USING ERRCODE = 'VE004', HINT = 'For example ''{total numeric, status text}'' or ''{"total": "numeric", "status": "text"}''.';
    END IF;
    item := '';
    FOREACH c IN ARRAY string_to_array(body, NULL) || ARRAY[','] LOOP
        quoted := quoted <> (c = '"');
        depth := depth + CASE WHEN quoted THEN 0 WHEN c = '(' THEN 1 WHEN c = ')' THEN -1 ELSE 0 END;
        IF c <> ',' OR quoted OR depth > 0 THEN
            item := item || c;
            CONTINUE;
        END IF;
        item := btrim(item, E' \t\n\r');
        IF item ~ '^"([^"]|"")+"\s*\S' THEN
            name := replace(substring(item from '^"((?:[^"]|"")+)"'), '""', '"');
            type := substring(item from '^"(?:[^"]|"")+"\s*(.*)$');
        ELSIF item ~ '^\S+\s+\S' THEN
            name := substring(item from '^(\S+)');
            type := substring(item from '^\S+\s+(.*)$');
        ELSE
            RAISE EXCEPTION 'column "%" needs a name and a type', item
                USING ERRCODE = 'VE004', HINT = 'For example ''{total numeric, status text}''.';
        END IF;
        RETURN NEXT;
        item := '';
    END LOOP;
    IF quoted OR depth > 0 OR item <> '' THEN
        RAISE EXCEPTION 'columns has a quote or parenthesis that does not end'
            USING ERRCODE = 'VE004', HINT = 'For example ''{total numeric(10,2), "odd name" text}''.';
    END IF;
END
$$;
COMMENT ON FUNCTION eventsrc.state_view_columns(text) IS 'the columns that es_create_state_view() is given';

-- column_list writes a relation's columns with their types, from the third on, for any search_path.
CREATE FUNCTION eventsrc.column_list(relation regclass) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
    FROM pg_attribute WHERE attrelid = relation AND attnum > 2
$$;
COMMENT ON FUNCTION eventsrc.column_list(regclass) IS 'a relation''s columns and their types, without the first two';

CREATE FUNCTION es_create_state_view(aggregate_type text, columns text, name text DEFAULT NULL, store name DEFAULT NULL)
    RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    n record := eventsrc.state_view_names(aggregate_type, name, store);
    definition text := '';
    list text;
    c record;
BEGIN
    IF to_regclass(n.view) IS NOT NULL OR to_regprocedure(n.func || '(timestamptz)') IS NOT NULL THEN
        RAISE EXCEPTION 'state view % cannot be created: % exists', n.view,
                CASE WHEN to_regclass(n.view) IS NOT NULL THEN n.view ELSE n.func || '(timestamptz)' END
            USING ERRCODE = 'VE004', HINT = 'Drop it first (es_drop_state_view() if it is one), or pass another name.';
    END IF;
    FOR c IN SELECT * FROM eventsrc.state_view_columns(columns) LOOP
        IF c.name IN ('aggregate_id', 'version') THEN
            RAISE EXCEPTION 'a state view has a column "%" already', c.name
                USING ERRCODE = 'VE004', HINT = 'Leave it out: aggregate_id and version come first in every state view.';
        END IF;
        IF to_regtype(c.type) IS NULL THEN
            RAISE EXCEPTION 'type "%" of column "%" does not exist', c.type, c.name
                USING ERRCODE = '42704', HINT = 'Name a type such as text, numeric, timestamptz, jsonb or text[].';
        END IF;
        definition := concat_ws(', ', nullif(definition, ''), format('%I %s', c.name, c.type));
    END LOOP;
    EXECUTE format(
        'CREATE VIEW %s WITH (security_invoker = true) AS'
        ' SELECT s.aggregate_id, s.version, c.* FROM @extschema@.es_states(%L, store => %L) s,'
        ' LATERAL pg_catalog.jsonb_to_record(CASE pg_catalog.jsonb_typeof(s.state) WHEN ''object'' THEN s.state ELSE ''{}'' END) AS c (%s)',
        n.view, aggregate_type, n.store, definition);
    list := eventsrc.column_list(n.view::regclass);
    EXECUTE format(
        'CREATE FUNCTION %s(at timestamptz) RETURNS TABLE (aggregate_id text, version bigint, %s) LANGUAGE sql STABLE AS %L',
        n.func, list, format(
        'SELECT s.aggregate_id, s.version, c.* FROM @extschema@.es_states(%L, $1, store => %L) s,'
        ' LATERAL pg_catalog.jsonb_to_record(CASE pg_catalog.jsonb_typeof(s.state) WHEN ''object'' THEN s.state ELSE ''{}'' END) AS c (%s)',
        aggregate_type, n.store, list));
    EXECUTE format('COMMENT ON VIEW %s IS %L', n.view, format('eventsrc state view: the states of all %s now', aggregate_type));
    EXECUTE format('COMMENT ON FUNCTION %s(timestamptz) IS %L', n.func, format('eventsrc state view: the states of all %s as of a moment', aggregate_type));
END
$$;
COMMENT ON FUNCTION es_create_state_view(text, text, text, name) IS
    'makes a view of the states of all aggregates of a type, and a function of those at a moment, with typed columns, in the store''s schema: order_now, order_at(timestamptz)';

CREATE FUNCTION es_drop_state_view(aggregate_type text, name text DEFAULT NULL, store name DEFAULT NULL)
    RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n record := eventsrc.state_view_names(aggregate_type, name, store);
BEGIN
    IF coalesce(obj_description(to_regclass(n.view), 'pg_class') NOT LIKE 'eventsrc state view:%', true) THEN
        RAISE EXCEPTION 'there is no state view %', n.view
            USING ERRCODE = 'VE004', DETAIL = 'es_create_state_view() marks its views by their comment.',
                  HINT = 'Pass the arguments that es_create_state_view() was given.';
    END IF;
    EXECUTE format('DROP VIEW %s', n.view);
    EXECUTE format('DROP FUNCTION IF EXISTS %s(timestamptz)', n.func);
END
$$;
COMMENT ON FUNCTION es_drop_state_view(text, text, name) IS 'drops what es_create_state_view() made';
