-- Row security on events holds on every way to them: one tenant neither sees nor writes another's events.
SELECT * FROM no_plan();

CREATE ROLE tap_tenant_a;
CREATE ROLE tap_tenant_b;
CREATE ROLE tap_store_owner;
SELECT format('GRANT CREATE ON DATABASE %I TO tap_store_owner', current_database()) \gexec
SET ROLE tap_store_owner;
SELECT es_create_store();
SELECT es_create_aggregate('Order', snapshot_every => 2);
GRANT USAGE ON SCHEMA es TO tap_tenant_a, tap_tenant_b;
GRANT SELECT, INSERT ON es.events TO tap_tenant_a, tap_tenant_b;
ALTER TABLE es.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants ON es.events USING (metadata ->> 'tenant' = current_user) WITH CHECK (metadata ->> 'tenant' = current_user);
RESET ROLE;

-- as_role runs a statement as a role and gives the SQLSTATE
CREATE FUNCTION as_role(role name, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    got text := '00000';
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', role);
        EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
        got := SQLSTATE;
    END;
    RESET ROLE;
    RETURN got;
END
$$;

-- writing
SELECT is(as_role('tap_tenant_a', $$SELECT es_append('Order', 'a1', 'Placed', jsonb_build_object('n', i), metadata => '{"tenant": "tap_tenant_a"}') FROM generate_series(1, 5) i$$),
          '00000', 'a tenant appends its own events');
SELECT is(as_role('tap_tenant_b', $$SELECT es_append_events('Order', 'b1', '{Placed,Sent,Paid}', '{"{\"x\": 1}","{\"x\": 2}","{\"y\": 3}"}',
    metadata => '{"{\"tenant\": \"tap_tenant_b\"}","{\"tenant\": \"tap_tenant_b\"}","{\"tenant\": \"tap_tenant_b\"}"}', expected_version => 0)$$),
          '00000', 'another too, many at once, with an expected version');
SELECT is(as_role('tap_tenant_a', $$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data, metadata) VALUES ('Order', 'a2', 'Placed', '{}', '{"tenant": "tap_tenant_a"}')$$),
          '00000', 'and by INSERT');
SELECT is(as_role('tap_tenant_a', statement), '42501', statement) FROM unnest(ARRAY[
    $$SELECT es_append('Order', 'a1', 'Placed')$$,
    $$SELECT es_append('Order', 'a1', 'Placed', metadata => '{"tenant": "tap_tenant_b"}')$$,
    $$SELECT es_append_events('Order', 'a1', '{Placed,Sent}', '{"{}","{}"}', metadata => '{"{\"tenant\": \"tap_tenant_a\"}","{\"tenant\": \"tap_tenant_b\"}"}')$$,
    $$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data, metadata) VALUES ('Order', 'a1', 'Placed', '{}', '{"tenant": "tap_tenant_b"}')$$]) statement;
SELECT is((SELECT count(*) FROM es.events), 9::bigint, 'what was refused left nothing behind');
SELECT is((SELECT array_agg(version ORDER BY version) FROM es.events WHERE aggregate_id = 'b1'), ARRAY[1, 2, 3]::bigint[], 'versions are dense');
SELECT is(as_role('tap_tenant_b', $$SELECT es_append('Order', 'b1', 'Placed', expected_version => 1, metadata => '{"tenant": "tap_tenant_b"}')$$), 'VE001', 'conflicts are found');
SELECT is(as_role('tap_tenant_b', $$SELECT es_append('Order', 'retried', 'Placed', expected_version => 0, event_id => 'once', metadata => '{"tenant": "tap_tenant_b"}')$$), '00000', 'an append with an id');
SET ROLE tap_tenant_b;
SELECT is((SELECT version FROM es_append('Order', 'retried', 'Placed', expected_version => 0, event_id => 'once', metadata => '{"tenant": "tap_tenant_b"}')), 1::bigint,
          'its retry gives the first result');
RESET ROLE;
SELECT is((SELECT count(*) FROM es.events WHERE aggregate_id = 'retried'), 1::bigint, 'and writes nothing');
-- imports
SELECT is(as_role('tap_tenant_b', $$SELECT es_import($q$SELECT 'Order' AS aggregate_type, 'moved' AS aggregate_id, 'Placed' AS event_type, '{"tenant": "tap_tenant_a"}'::jsonb AS metadata$q$)$$),
          '42501', 'an import of another''s event');
SELECT is(as_role('tap_tenant_b', $$SELECT es_import($q$SELECT 'Order' AS aggregate_type, 'moved' AS aggregate_id, 'Placed' AS event_type, '{"tenant": "tap_tenant_b"}'::jsonb AS metadata$q$); SELECT 1 / 0$$),
          '22012', 'an import of its own');
-- what a conflict tells is what a unique violation would: that something is there; see the caveats of the README
SELECT is(as_role('tap_tenant_b', $$SELECT es_append('Order', 'a1', 'Placed', expected_version => 0, metadata => '{"tenant": "tap_tenant_b"}')$$), 'VE001', 'an append at a version that another''s event has');
SELECT is(as_role('tap_tenant_b', $$SELECT es_import($q$SELECT 'Order' AS aggregate_type, 'a1' AS aggregate_id, 1::bigint AS version, 'Placed' AS event_type, '{"tenant": "tap_tenant_b"}'::jsonb AS metadata$q$)$$),
          'VE001', 'an import likewise');
SELECT is(as_role('tap_tenant_b', $$SELECT es_import($q$SELECT 'Order' AS aggregate_type, 'a1' AS aggregate_id, 1::bigint AS version, 'guessed' AS event_id, 'Placed' AS event_type, '{"tenant": "tap_tenant_b"}'::jsonb AS metadata$q$)$$),
          'VE001', 'also with an id that is not the event''s');
-- batches
SELECT is(as_role('tap_tenant_b', $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "batch", "expected_version": 0, "events": [{"event_type": "Placed", "metadata": {"tenant": "tap_tenant_a"}}]}]')$$),
          '42501', 'a batch with another''s event');
SELECT is(as_role('tap_tenant_b', $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "batch", "expected_version": 1, "events": [{"event_type": "Placed", "metadata": {"tenant": "tap_tenant_b"}}]}]')$$),
          'VE001', 'a batch in conflict');
SELECT is(as_role('tap_tenant_b', $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "batch", "expected_version": 0, "events": [{"event_type": "Placed", "metadata": {"tenant": "tap_tenant_b"}}]},
    {"aggregate_type": "Order", "aggregate_id": "batch too", "events": [{"event_type": "Placed", "metadata": {"tenant": "tap_tenant_b"}}]}]'); SELECT 1 / 0$$),
          '22012', 'a batch with its own');
SELECT is(as_role('tap_tenant_b', $$SELECT es_close_stream('Order', 'a1')$$), '42501', 'the event that closes a stream has no tenant here');
SELECT is((SELECT count(*) FROM es.streams WHERE closed OR aggregate_id LIKE 'batch%'), 0::bigint, 'and nothing of that is left');
-- a stream that two tenants share
SELECT is(as_role('tap_tenant_a', $$SELECT es_append('Order', 'shared', 'Placed', '{"a": 1}', metadata => '{"tenant": "tap_tenant_a"}')$$), '00000', 'a shared stream, begun by one');
SELECT is(as_role('tap_tenant_b', $$SELECT es_append('Order', 'shared', 'Placed', '{"b": 2}', metadata => '{"tenant": "tap_tenant_b"}')$$), '00000', 'continued by another');

-- reading
SET ROLE tap_tenant_a;
SELECT is((SELECT count(*) FROM es_read_all()), 7::bigint, 'a: es_read_all()');
SELECT is((SELECT array_agg(DISTINCT metadata ->> 'tenant') FROM es_read_all()), ARRAY['tap_tenant_a'], 'a: only its own');
SELECT is((SELECT array_agg(global_position) FROM (SELECT * FROM es_read_all(0, 3)) e), (SELECT array_agg(global_position) FROM (SELECT * FROM es.events ORDER BY 1 LIMIT 3) e),
          'a: pages are full of its own');
SELECT is((SELECT array_agg(version) FROM es_read_stream('Order', 'a1')), ARRAY[1, 2, 3, 4, 5]::bigint[], 'a: es_read_stream()');
SELECT is((SELECT array_agg(version) FROM es_read_stream('Order', 'a1', 4, 2, true)), ARRAY[4, 3]::bigint[], 'a: backward');
SELECT is_empty($$SELECT * FROM es_read_stream('Order', 'b1')$$, 'a: nothing of another''s stream');
SELECT is(es_stream_version('Order', 'a1'), 5::bigint, 'a: es_stream_version()');
SELECT is(es_stream_version('Order', 'b1'), NULL, 'a: another''s stream does not exist');
SELECT is(es_stream_version('Order', 'shared'), 1::bigint, 'a: of a shared stream its own part');
SELECT is(es_state('Order', 'a1'), '{"n": 5}', 'a: es_state()');
SELECT is(es_state('Order', 'b1'), NULL, 'a: another''s state does not exist, snapshot or not');
SELECT is(es_state('Order', 'shared'), '{"a": 1}', 'a: the state is made of its own events, whatever the snapshot says');
SELECT is((SELECT snapshot_version FROM es_explain_state('Order', 'shared')), NULL, 'a: no snapshot is used');
SET ROLE tap_tenant_b;
SELECT is((SELECT count(*) FROM es_read_all()), 5::bigint, 'b: es_read_all()');
SELECT is((SELECT array_agg(DISTINCT metadata ->> 'tenant') FROM es_read_all(event_types => '{Placed,Sent}')), ARRAY['tap_tenant_b'], 'b: only its own');
SELECT is(es_state('Order', 'shared'), '{"b": 2}', 'b: its own part of a shared stream');
RESET ROLE;
SELECT is((SELECT state FROM es.snapshots WHERE aggregate_id = 'shared'), '{"a": 1, "b": 2}', 'the snapshot itself is of all');
SET ROLE tap_store_owner;
SELECT is((SELECT count(*) FROM es_read_all()), 12::bigint, 'the owner reads all');
SELECT is(es_state('Order', 'shared'), '{"a": 1, "b": 2}', 'and has the whole state');
SELECT is((SELECT snapshot_version FROM es_explain_state('Order', 'shared')), 2::bigint, 'from the snapshot');
RESET ROLE;

-- row security that binds the owner too
ALTER TABLE es.events FORCE ROW LEVEL SECURITY;
SET ROLE tap_store_owner;
SELECT is((SELECT count(*) FROM es_read_all()), 0::bigint, 'forced: the owner reads none');
SELECT is(es_stream_version('Order', 'a1'), NULL, 'forced: nor a version');
SELECT throws_ok($$SELECT es_append('Order', 'c', 'Placed')$$, '42501', NULL, 'forced: nor may it append');
RESET ROLE;
ALTER TABLE es.events NO FORCE ROW LEVEL SECURITY;

-- row_security = off: an error instead of a part
SET ROLE tap_tenant_a;
SET row_security = off;
SELECT throws_ok($$SELECT count(*) FROM es_read_all()$$, '42501', NULL, 'row_security = off: es_read_all() refuses');
SELECT throws_ok($$SELECT count(*) FROM es_read_stream('Order', 'a1')$$, '42501', NULL, 'row_security = off: es_read_stream() refuses');
SELECT throws_ok($$SELECT es_stream_version('Order', 'a1')$$, '42501', NULL, 'row_security = off: es_stream_version() refuses');
SELECT throws_ok($$SELECT es_append('Order', 'a1', 'Placed', metadata => '{"tenant": "tap_tenant_a"}')$$, '42501', NULL, 'row_security = off: es_append() refuses');
RESET row_security;
RESET ROLE;

-- without policies there is nothing to see
DROP POLICY tenants ON es.events;
SET ROLE tap_tenant_a;
SELECT is((SELECT count(*) FROM es_read_all()), 0::bigint, 'without a policy: nothing is read');
SELECT throws_ok($$SELECT es_append('Order', 'a1', 'Placed', metadata => '{"tenant": "tap_tenant_a"}')$$, '42501', NULL, 'nor appended');
RESET ROLE;
ALTER TABLE es.events DISABLE ROW LEVEL SECURITY;
SET ROLE tap_tenant_a;
SELECT is((SELECT count(*) FROM es_read_all()), 12::bigint, 'with row security off: all is read, by the same session');
RESET ROLE;

SELECT * FROM finish();
SELECT es_drop_store('es', confirm => 'es');
DROP OWNED BY tap_tenant_a, tap_tenant_b, tap_store_owner CASCADE;
DROP ROLE tap_tenant_a, tap_tenant_b, tap_store_owner;
