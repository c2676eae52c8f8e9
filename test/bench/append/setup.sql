-- A store, and a bare table; no snapshots, as nothing in a bare INSERT corresponds to them.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_aggregate('Account', snapshot_every => 0);
\ir ../reference/bare.sql
-- for COPY: the stream's name comes from a setting, so that the file serves many times; the path is below the data folder
CREATE TABLE bare_copy (LIKE bare INCLUDING ALL);
ALTER TABLE bare_copy ALTER aggregate_id SET DEFAULT current_setting('bench.stream');
SELECT format($$COPY (SELECT 'Account', v, 'Deposited', %L FROM generate_series(1, 100000) v) TO '%s/bench.copy'$$,
              :'payload', current_setting('data_directory')) \gexec
