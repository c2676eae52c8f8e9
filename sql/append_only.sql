-- A table type whose rows are never changed or removed, for stores and for users' own tables.
CREATE FUNCTION eventsrc.append_only_handler(internal) RETURNS table_am_handler
    LANGUAGE C AS 'MODULE_PATHNAME', 'es_append_only_handler';
COMMENT ON FUNCTION eventsrc.append_only_handler(internal) IS 'handler of the table access method append_only';

CREATE ACCESS METHOD append_only TYPE TABLE HANDLER eventsrc.append_only_handler;
COMMENT ON ACCESS METHOD append_only IS
    'heap without UPDATE, DELETE, MERGE, ON CONFLICT DO UPDATE and TRUNCATE: rows are only ever added';
