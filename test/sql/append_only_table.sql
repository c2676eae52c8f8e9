-- The table access method append_only: what it refuses, and that all else is as on heap.
SET jit = off;
-- Refused: every way to change or remove a row, whatever the user or the role of the session
CREATE TABLE ledger (id int PRIMARY KEY, amount numeric, note text) USING append_only;
INSERT INTO ledger SELECT i, i * 10, 'row ' || i FROM generate_series(1, 5) i;
UPDATE ledger SET amount = 0 WHERE id = 1;
\echo :SQLSTATE
DELETE FROM ledger WHERE id = 1;
\echo :SQLSTATE
TRUNCATE ledger;
\echo :SQLSTATE
\set VERBOSITY terse
MERGE INTO ledger l USING (VALUES (1, 0), (9, 90)) v(id, amount) ON l.id = v.id
    WHEN MATCHED THEN UPDATE SET amount = v.amount WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.amount, 'merged');
MERGE INTO ledger l USING (VALUES (1, 0)) v(id, amount) ON l.id = v.id WHEN MATCHED THEN DELETE;
INSERT INTO ledger VALUES (1, 0, 'again') ON CONFLICT (id) DO UPDATE SET amount = excluded.amount;
UPDATE ledger SET amount = 0 WHERE ctid = '(0,1)';
WITH gone AS (DELETE FROM ledger RETURNING *) SELECT count(*) FROM gone;
TRUNCATE ledger CASCADE;
SET session_replication_role = replica;
UPDATE ledger SET amount = 0;
DELETE FROM ledger;
TRUNCATE ledger;
RESET session_replication_role;
BEGIN;
CREATE TABLE fresh (a int) USING append_only;
INSERT INTO fresh VALUES (1);
TRUNCATE fresh;
ROLLBACK;
CREATE TEMP TABLE emptied (a int) USING append_only ON COMMIT DELETE ROWS;
DO $$
BEGIN
    UPDATE ledger SET amount = 0;
EXCEPTION WHEN SQLSTATE 'VE006' THEN
    RAISE NOTICE 'caught %: %', SQLSTATE, SQLERRM;
END $$;
SELECT * FROM ledger ORDER BY id;

-- Not refused: commands that end up changing nothing
UPDATE ledger SET amount = 0 WHERE false;
DELETE FROM ledger WHERE id = 1000;
INSERT INTO ledger VALUES (1, 0, 'again') ON CONFLICT DO NOTHING;
INSERT INTO ledger VALUES (6, 60, 'row 6') ON CONFLICT (id) DO UPDATE SET amount = 0 RETURNING *;
MERGE INTO ledger l USING (VALUES (1, 0), (7, 70)) v(id, amount) ON l.id = v.id
    WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.amount, 'merged');
INSERT INTO ledger VALUES (1, 0, 'duplicate');
SELECT count(*), sum(amount) FROM ledger;
-- a table that never held a row has none to lose; pg_restore --jobs truncates before it loads
CREATE TABLE restored (a int) USING append_only;
TRUNCATE restored;
INSERT INTO restored VALUES (1);
TRUNCATE restored;

-- A twin on heap, filled alike: both must answer alike, with every index and without
CREATE TABLE twin_heap (id int, k int, t text, j jsonb, r int4range) WITH (parallel_workers = 2);
CREATE TABLE twin_append (id int, k int, t text, j jsonb, r int4range) USING append_only WITH (parallel_workers = 2);
CREATE FUNCTION fill_twins(how_often int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    base int;
BEGIN
    FOR i IN 1 .. how_often LOOP
        BEGIN
            SELECT coalesce(max(id), 0) INTO base FROM twin_heap;
            FOR s IN 1 .. 3 LOOP
                BEGIN
                    INSERT INTO twin_heap
                        SELECT n, (random() * 100)::int, md5(n::text), jsonb_build_object('n', n % 7), int4range(n, n + 1)
                        FROM generate_series(base + s * 20, base + s * 20 + (random() * 19)::int) n;
                    INSERT INTO twin_append SELECT * FROM twin_heap WHERE id >= base + s * 20;
                    PERFORM id FROM twin_append WHERE id % 5 = s FOR UPDATE;
                    IF random() < 0.3 THEN
                        RAISE EXCEPTION USING errcode = 'ZZ001';
                    END IF;
                EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
                END;
            END LOOP;
            IF random() < 0.2 THEN
                RAISE EXCEPTION USING errcode = 'ZZ001';
            END IF;
        EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
        END;
    END LOOP;
END $$;
CREATE FUNCTION twins_agree() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    question text;
    answer text;
    first_answer text;
    mode text;
    tab text;
    asked int := 0;
BEGIN
    FOREACH question IN ARRAY ARRAY[
        'SELECT md5(string_agg(q::text, '','')) FROM (SELECT * FROM %I WHERE id > 0 ORDER BY id) q',
        'SELECT md5(string_agg(q::text, '','')) FROM (SELECT k FROM %I WHERE k BETWEEN 10 AND 90 ORDER BY k) q',
        'SELECT md5(string_agg(q::text, '','')) FROM (SELECT id FROM %I WHERE k < 10 ORDER BY id) q',
        'SELECT md5(string_agg(q::text, '','')) FROM (SELECT t FROM %I WHERE upper(t) > ''8'' ORDER BY upper(t)) q',
        'SELECT count(*)::text FROM %I WHERE t = md5(''77'')',
        'SELECT string_agg(id::text, '','' ORDER BY id) FROM %I WHERE j @> ''{"n": 3}''',
        'SELECT string_agg(id::text, '','' ORDER BY id) FROM %I WHERE r && int4range(100, 900)',
        'SELECT count(*) || '' '' || sum(k) FROM %I WHERE ctid >= ''(0,1)''',
        'SELECT count(*) || '' '' || sum(k) || '' '' || max(t) FROM %I'] LOOP
        first_answer := NULL;
        FOREACH mode IN ARRAY ARRAY['seq', 'index', 'bitmap', 'parallel'] LOOP
            PERFORM set_config('enable_seqscan', (mode IN ('seq', 'parallel'))::text, true),
                    set_config('enable_indexscan', (mode = 'index')::text, true),
                    set_config('enable_indexonlyscan', (mode = 'index')::text, true),
                    set_config('enable_bitmapscan', (mode = 'bitmap')::text, true),
                    set_config('max_parallel_workers_per_gather', CASE mode WHEN 'parallel' THEN '2' ELSE '0' END, true),
                    set_config('parallel_setup_cost', '0', true),
                    set_config('parallel_tuple_cost', '0', true),
                    set_config('min_parallel_table_scan_size', '0', true);
            FOREACH tab IN ARRAY ARRAY['twin_heap', 'twin_append'] LOOP
                EXECUTE format(question, tab) INTO answer;
                first_answer := coalesce(first_answer, answer);
                asked := asked + 1;
                IF first_answer IS DISTINCT FROM answer THEN
                    RETURN format('%s by %s scan: %s, not %s', format(question, tab), mode, answer, first_answer);
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;
    RETURN asked || ' answers agree';
END $$;
SELECT setseed(0.3);
SELECT fill_twins(60);
SELECT count(*) > 500 AS enough, (SELECT count(*) FROM twin_append) = count(*) AS same FROM twin_heap;
SELECT twins_agree();
SELECT format(i, 'twin_heap'), format(i, 'twin_append') FROM unnest(ARRAY[
    'CREATE INDEX ON %I (k)',
    'CREATE INDEX ON %I (id) WHERE k < 10',
    'CREATE INDEX ON %I (upper(t))',
    'CREATE INDEX ON %I USING hash (t)',
    'CREATE INDEX ON %I USING gin (j)',
    'CREATE INDEX ON %I USING gist (r)',
    'CREATE INDEX ON %I USING brin (id) WITH (pages_per_range = 2)',
    'ALTER TABLE %I ADD PRIMARY KEY (id)',
    'ALTER TABLE %I ADD EXCLUDE USING gist (r WITH &&)']) i
\gexec
SELECT twins_agree();
SELECT pg_stat_force_next_flush();
SELECT DISTINCT amname AS indexes_used FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am am ON am.oid = relam
    WHERE indrelid = 'twin_append'::regclass AND pg_stat_get_numscans(indexrelid) > 0 AND amname <> 'brin' ORDER BY 1;
-- with rows of the own transaction, of the command before, and rolled back ones
BEGIN;
SELECT fill_twins(20);
SAVEPOINT s;
SELECT fill_twins(5);
CREATE INDEX twin_rolled_back ON twin_append (k, id);
ROLLBACK TO s;
SELECT fill_twins(5);
CREATE UNIQUE INDEX twin_unique ON twin_append (id, k);
REINDEX TABLE twin_append;
SELECT twins_agree();
COMMIT;
SELECT twins_agree();
-- in parallel, concurrently, and at other isolation levels
SET max_parallel_maintenance_workers = 2;
SET min_parallel_table_scan_size = 0;
CREATE INDEX twin_parallel ON twin_append (k, t);
REINDEX INDEX twin_append_pkey;
CREATE INDEX CONCURRENTLY twin_concurrent ON twin_append (t, k) WHERE k > 3;
CREATE UNIQUE INDEX CONCURRENTLY twin_concurrent_unique ON twin_append (upper(t), id);
REINDEX TABLE CONCURRENTLY twin_append;
SELECT twins_agree();
RESET max_parallel_maintenance_workers;
RESET min_parallel_table_scan_size;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT fill_twins(5);
CREATE INDEX twin_repeatable ON twin_append (id DESC);
SELECT twins_agree();
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT fill_twins(5);
REINDEX TABLE twin_append;
SELECT twins_agree();
COMMIT;
SELECT count(*) AS invalid_indexes FROM pg_index WHERE indrelid = 'twin_append'::regclass AND NOT indisvalid;
-- BRIN: blocks are summarized when the index is built, and ranges of them later
CREATE TABLE ranges (id int) USING append_only;
INSERT INTO ranges SELECT generate_series(1, 2000);
CREATE INDEX ranges_id ON ranges USING brin (id) WITH (pages_per_range = 1);
INSERT INTO ranges SELECT generate_series(2001, 5000);
BEGIN;
INSERT INTO ranges SELECT generate_series(100001, 101000);
ROLLBACK;
SELECT brin_summarize_new_values('ranges_id') > 5 AS summarized;
SELECT brin_desummarize_range('ranges_id', 3);
SELECT brin_summarize_range('ranges_id', 3);
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM ranges WHERE id BETWEEN 1990 AND 2989;
SELECT count(*) FROM ranges WHERE id BETWEEN 1990 AND 2989;
SELECT count(*) FROM ranges WHERE id > 4990;
RESET enable_seqscan;
-- uniqueness is checked by the build
INSERT INTO ledger VALUES (8, 70, 'the same amount twice');
CREATE UNIQUE INDEX ON ledger (amount);
CREATE UNIQUE INDEX CONCURRENTLY ledger_bad ON ledger (amount);
DROP INDEX ledger_bad;
ALTER TABLE ledger ADD EXCLUDE USING btree (amount WITH =);
BEGIN;
SAVEPOINT s;
INSERT INTO ledger VALUES (9, 10, 'rolled back');
ROLLBACK TO s;
CREATE UNIQUE INDEX ON ledger (amount) WHERE amount < 20;
COMMIT;
-- a row that is only locked is not hidden from a build
BEGIN;
SELECT id FROM ledger WHERE id = 1 FOR UPDATE;
SAVEPOINT s;
SELECT id FROM ledger WHERE id = 2 FOR SHARE;
SELECT id FROM ledger WHERE id = 2 FOR UPDATE;
ROLLBACK TO s;
CREATE INDEX ledger_note ON ledger (note);
SELECT count(*) FROM ledger WHERE note ~ '^row';
COMMIT;
SET enable_seqscan = off;
SELECT id FROM ledger WHERE note IN ('row 1', 'row 2') ORDER BY id FOR NO KEY UPDATE;
RESET enable_seqscan;

-- rows that were changed behind the access method's back stop a build
BEGIN;
CREATE TABLE tampered (a int);
INSERT INTO tampered VALUES (1), (2);
DELETE FROM tampered WHERE a = 2;
UPDATE pg_class SET relam = (SELECT oid FROM pg_am WHERE amname = 'append_only') WHERE oid = 'tampered'::regclass;
CREATE INDEX ON tampered (a);
\echo :SQLSTATE
ROLLBACK;

-- Maintenance
ANALYZE twin_append;
ANALYZE twin_heap;
SELECT h.reltuples = a.reltuples AS same_count FROM pg_class h, pg_class a
    WHERE h.oid = 'twin_heap'::regclass AND a.oid = 'twin_append'::regclass;
VACUUM twin_append;
VACUUM (FREEZE, ANALYZE) twin_append;
SELECT twins_agree();
VACUUM FULL twin_append;
SELECT twins_agree();
CLUSTER twin_append USING twin_concurrent_unique;
CLUSTER twin_append USING twin_append_pkey;
SELECT twins_agree();
CREATE TABLE aborted (a text) USING append_only;
BEGIN;
INSERT INTO aborted SELECT md5(i::text) FROM generate_series(1, 1000) i;
ROLLBACK;
VACUUM aborted;
SELECT pg_relation_size('aborted') AS bytes_after_vacuum;

-- COPY, large values, cursors, samples, TIDs, EXPLAIN
CREATE TABLE copied (a int, b text) USING append_only;
COPY copied FROM stdin;
1	one
2	two
\.
COPY copied TO stdout;
INSERT INTO copied SELECT 3, string_agg(md5(i::text), '') FROM generate_series(1, 330000) i;
SELECT a, length(b), md5(b) = (SELECT md5(string_agg(md5(i::text), '')) FROM generate_series(1, 330000) i) AS whole,
    substr(b, 33, 32) = md5('2') AS slice FROM copied WHERE a = 3;
CREATE INDEX ON copied (a, length(b));
SELECT am.amname AS toast_is FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid JOIN pg_am am ON am.oid = t.relam
    WHERE c.oid = 'copied'::regclass;
VACUUM FULL copied;
SELECT ctid, a FROM copied WHERE ctid = '(0,2)';
SELECT ctid, a FROM copied WHERE ctid > '(0,1)' AND ctid < '(1,0)' ORDER BY 1;
SELECT count(*) FROM copied TABLESAMPLE bernoulli (100);
SELECT count(*) FROM copied TABLESAMPLE system (100);
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT a FROM copied;
FETCH ALL c;
FETCH BACKWARD 2 c;
UPDATE copied SET a = 0 WHERE CURRENT OF c;
ROLLBACK;
DO $$
DECLARE
    line text;
BEGIN
    FOR line IN EXPLAIN ANALYZE SELECT * FROM twin_append WHERE k = 5 LOOP END LOOP;
    FOR line IN EXPLAIN ANALYZE INSERT INTO ledger SELECT 100 + i, 1000 + i FROM generate_series(1, 3) i LOOP END LOOP;
END $$;

-- Foreign keys to and from append-only tables
CREATE TABLE remark (ledger_id int REFERENCES ledger, remark text);
INSERT INTO remark VALUES (1, 'fine');
INSERT INTO remark VALUES (12345, 'no such row');
CREATE TABLE account (id int PRIMARY KEY);
CREATE TABLE booking (account_id int REFERENCES account ON DELETE CASCADE ON UPDATE CASCADE) USING append_only;
INSERT INTO account VALUES (1), (2);
INSERT INTO booking VALUES (1);
INSERT INTO booking VALUES (3);
DELETE FROM account WHERE id = 1;
UPDATE account SET id = 5 WHERE id = 1;
DELETE FROM account WHERE id = 2;

-- DDL
ALTER TABLE ledger ADD COLUMN stamp float DEFAULT random();
ALTER TABLE ledger ALTER COLUMN amount TYPE bigint;
ALTER TABLE ledger DROP COLUMN stamp;
ALTER TABLE ledger ADD CHECK (id > 0), ALTER COLUMN amount SET NOT NULL;
INSERT INTO ledger VALUES (-1, 1);
ALTER TABLE copied SET UNLOGGED;
ALTER TABLE copied SET LOGGED;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE append_only_space LOCATION '';
ALTER TABLE ledger SET TABLESPACE append_only_space;
SELECT count(*), sum(amount) FROM ledger;
ALTER TABLE ledger SET TABLESPACE pg_default;
DROP TABLESPACE append_only_space;
SELECT count(*), sum(amount) FROM ledger;
UPDATE ledger SET amount = 0;
ALTER TABLE copied SET ACCESS METHOD heap;
UPDATE copied SET a = a + 10;
DELETE FROM copied WHERE a = 11;
ALTER TABLE copied SET ACCESS METHOD append_only;
UPDATE copied SET a = a + 10;
REINDEX TABLE copied;
SET enable_seqscan = off;
SELECT a, length(b) FROM copied WHERE a > 0 ORDER BY a;
RESET enable_seqscan;
SET default_table_access_method = append_only;
CREATE TABLE made AS SELECT a FROM generate_series(1, 3) a;
SELECT a INTO made_too FROM generate_series(1, 3) a;
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM made;
CREATE UNIQUE INDEX ON seen (count);
CREATE TEMP TABLE temporary (a int);
RESET default_table_access_method;
INSERT INTO temporary VALUES (1);
DELETE FROM temporary;
DELETE FROM made;
DELETE FROM made_too;
INSERT INTO made VALUES (4);
REFRESH MATERIALIZED VIEW seen;
SELECT * FROM seen;
INSERT INTO made VALUES (5);
REFRESH MATERIALIZED VIEW CONCURRENTLY seen;

-- Partitions
CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10) USING append_only;
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20) USING append_only;
CREATE UNIQUE INDEX ON parted (k);
INSERT INTO parted SELECT i, 'p' || i FROM generate_series(0, 19) i;
UPDATE parted SET k = k + 10 WHERE k = 1;
UPDATE parted SET v = '' WHERE k = 1;
DELETE FROM parted WHERE k = 11;
TRUNCATE parted;
INSERT INTO parted VALUES (1, 'again') ON CONFLICT (k) DO NOTHING;
INSERT INTO parted VALUES (1, 'again') ON CONFLICT (k) DO UPDATE SET v = 'changed';
ALTER TABLE parted DETACH PARTITION parted_1;
DROP TABLE parted_1;
SELECT count(*), min(k) FROM parted;

-- Logical decoding
CREATE PUBLICATION ledger_changes FOR TABLE ledger;
SELECT 'created' AS slot FROM pg_create_logical_replication_slot('append_only_slot', 'pgoutput');
INSERT INTO ledger SELECT 200 + i, 2000 + i, 'decoded' FROM generate_series(1, 3) i;
SELECT count(*) AS inserts_decoded
    FROM pg_logical_slot_get_binary_changes('append_only_slot', NULL, NULL, 'proto_version', '1', 'publication_names', 'ledger_changes')
    WHERE get_byte(data, 0) = ascii('I');
SELECT pg_drop_replication_slot('append_only_slot');
DROP PUBLICATION ledger_changes;

-- The access method belongs to the extension
DROP ACCESS METHOD append_only;
DROP MATERIALIZED VIEW seen;
DROP TABLE remark, booking, account, ledger, restored, twin_heap, twin_append, ranges, aborted, copied, made, made_too,
    temporary, parted;
DROP FUNCTION fill_twins, twins_agree;
