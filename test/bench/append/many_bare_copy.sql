\set i :i + 1
SELECT set_config('bench.stream', 'a' || :run || '-' || :i, false);
COPY bare_copy (aggregate_type, version, event_type, data) FROM 'bench.copy';
