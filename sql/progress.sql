-- How far long commands are.

CREATE FUNCTION eventsrc.progress_begin(command text, store name, total bigint) RETURNS bigint
    LANGUAGE C STRICT VOLATILE AS 'MODULE_PATHNAME', 'es_progress_begin_sql';
COMMENT ON FUNCTION eventsrc.progress_begin(text, name, bigint) IS 'reports that a command of this session begins, with how much there is to do (-1: unknown); returns a token for its further reports';
CREATE FUNCTION eventsrc.progress_update(token bigint, done bigint) RETURNS void
    LANGUAGE C STRICT VOLATILE AS 'MODULE_PATHNAME', 'es_progress_update_sql';
COMMENT ON FUNCTION eventsrc.progress_update(bigint, bigint) IS 'reports how much is done';
CREATE FUNCTION eventsrc.progress_end(token bigint) RETURNS void
    LANGUAGE C STRICT VOLATILE AS 'MODULE_PATHNAME', 'es_progress_end_sql';
COMMENT ON FUNCTION eventsrc.progress_end(bigint) IS 'reports that the command has ended';
CREATE FUNCTION eventsrc.progress()
    RETURNS TABLE (pid int, database name, command text, store name, done bigint, total bigint, started_at timestamptz)
    LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'es_progress_rows';
COMMENT ON FUNCTION eventsrc.progress() IS 'the long commands that run: es_progress';

CREATE VIEW es_progress AS SELECT * FROM eventsrc.progress();
COMMENT ON VIEW es_progress IS
    'how far the long commands are that run now: es_snapshot(), es_verify_snapshots(), es_check_upcasters(), es_import()';
GRANT SELECT ON es_progress TO PUBLIC;
