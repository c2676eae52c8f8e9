-- Background workers: what runs, what failed and why.
CREATE FUNCTION eventsrc.workers(
    OUT pid int, OUT kind text, OUT datid oid, OUT id bigint, OUT state text, OUT started_at timestamptz,
    OUT failures int, OUT retry_at timestamptz, OUT last_error_at timestamptz, OUT last_error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'es_workers_status' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION eventsrc.workers() IS 'the background workers of eventsrc in the whole cluster; behind es_workers';

CREATE VIEW es_workers AS
    -- the upper bits tell the lanes of a relay apart
    SELECT w.pid, w.kind, d.datname AS database, w.id & ((1::bigint << 56) - 1) AS id, w.state, w.started_at,
           w.failures, w.retry_at, w.last_error_at, w.last_error
    FROM eventsrc.workers() w LEFT JOIN pg_catalog.pg_database d ON d.oid = w.datid;
COMMENT ON VIEW es_workers IS 'the background workers of eventsrc in the whole cluster: launcher, one a database, relays';
COMMENT ON COLUMN es_workers.pid IS 'process id; null while the worker waits to be started again';
COMMENT ON COLUMN es_workers.kind IS 'launcher, database, or the kind of a worker that a database''s worker looks after';
COMMENT ON COLUMN es_workers.id IS 'which worker of that kind; null for the launcher and the databases'' workers; the lanes of a relay share its number';
COMMENT ON COLUMN es_workers.state IS 'starting, running, leaving, or failed';
COMMENT ON COLUMN es_workers.failures IS 'failures in a row; a minute of good running ends the row';
COMMENT ON COLUMN es_workers.retry_at IS 'when a failed worker is to be started again';
COMMENT ON COLUMN es_workers.last_error IS 'the last error of the worker; shown to superusers and members of pg_monitor';
GRANT SELECT ON es_workers TO PUBLIC;
