-- Who may do what: the owner of a store, a writer (USAGE, INSERT), a reader (USAGE, SELECT), and nobody.
SELECT * FROM no_plan();

CREATE ROLE tap_owner;
CREATE ROLE tap_writer;
CREATE ROLE tap_reader;
CREATE ROLE tap_nobody;
SELECT format('GRANT CREATE ON DATABASE %I TO tap_owner', current_database()) \gexec

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

SELECT is(as_role('tap_nobody', 'SELECT es_create_store()'), '42501', 'a store cannot be made without CREATE on the database');
SELECT is(as_role('tap_owner', 'SELECT es_create_store()'), '00000', 'with it it can');
SELECT is((SELECT array_agg(DISTINCT tableowner::text) FROM pg_tables WHERE schemaname = 'es'), ARRAY['tap_owner'], 'and is its maker''s');
SELECT is((SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'es'), 'tap_owner', 'the schema too');
SELECT is_empty($$SELECT c.relname, a.* FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'es'::regnamespace AND a.grantee <> c.relowner$$,
                'nobody else has a privilege on it');
SELECT is(as_role('tap_owner', 'GRANT USAGE ON SCHEMA es TO tap_writer, tap_reader; GRANT INSERT ON es.events TO tap_writer; GRANT SELECT ON es.events TO tap_reader'),
          '00000', 'the owner grants');

CREATE TEMPORARY TABLE expectation (statement text, owner text, writer text, reader text, nobody text);
INSERT INTO expectation VALUES
    ($$SELECT es_append('Order', '1', 'Placed')$$,                                    '00000', '00000', '42501', '42501'),
    ($$SELECT es_append_events('Order', '1', '{A,B}', '{"{}","{}"}')$$,               '00000', '00000', '42501', '42501'),
    ($$SELECT es_append('Order', '1', 'Placed', expected_version => 99)$$,            'VE001', 'VE001', '42501', '42501'),
    ($$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "1", "events": [{"event_type": "A"}]}, {"aggregate_type": "Order", "aggregate_id": "2", "expected_version": 0}]')$$,
                                                                                     '00000', '00000', '42501', '42501'),
    ($$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 99}]')$$,
                                                                                     'VE001', 'VE001', '42501', '42501'),
    ($$SELECT es_append('Shut', current_user, 'A'); SELECT es_close_stream('Shut', current_user)$$,
                                                                                     '00000', '00000', '42501', '42501'),
    ($$SELECT es_close_stream('Order', 'never')$$,                                   'VE005', 'VE005', '42501', '42501'),
    ($$SELECT es_import($q$SELECT 'Order' AS aggregate_type, 'imported' AS aggregate_id, 'A' AS event_type$q$)$$,
                                                                                     '00000', '00000', '42501', '42501'),
    ($$SELECT es_import($q$SELECT 'Order' AS aggregate_type, current_user AS aggregate_id, 'A' AS event_type, timestamptz '2016-02-01 00:00Z' AS recorded_at$q$)$$,
                                                                                     '00000', '42501', '42501', '42501'),
    ($$UPDATE es.streams SET closed = false$$,                                       '00000', '42501', '42501', '42501'),
    ($$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', '1', 'Placed', '{}')$$,
                                                                                     '00000', '00000', '42501', '42501'),
    ($$SELECT es_read_stream('Order', '1')$$,                                        '00000', '42501', '00000', '42501'),
    ($$SELECT es_read_all()$$,                                                       '00000', '42501', '00000', '42501'),
    ($$SELECT es_stream_version('Order', '1')$$,                                     '00000', '42501', '00000', '42501'),
    ($$SELECT es_state('Order', '1')$$,                                              '00000', '42501', '00000', '42501'),
    ($$SELECT es_explain_state('Order', '1')$$,                                      '00000', '42501', '00000', '42501'),
    ($$SELECT es_state_as(NULL::es_event, 'Order', '1')$$,                           '00000', '42501', '00000', '42501'),
    ($$SELECT es_states('Order')$$,                                                  '00000', '42501', '00000', '42501'),
    ($$SELECT es_history('Order', '1')$$,                                            '00000', '42501', '00000', '42501'),
    ($$SELECT es_diff('Order', '1', 0)$$,                                            '00000', '42501', '00000', '42501'),
    ($$SELECT es_replay('Order', '1')$$,                                             '00000', '42501', '00000', '42501'),
    ($$SELECT es_dry_run('Order', NULL)$$,                                           '00000', '42501', '00000', '42501'),
    ($$SELECT es_undo('Order', '1', 1)$$,                                            '00000', '42501', '42501', '42501'),
    ($$SELECT es_fold(e) FROM es.events e WHERE aggregate_type = 'Order'$$,          '00000', '42501', '00000', '42501'),
    ($$SELECT es_timeline('c')$$,                                                    '00000', '00000', '00000', '00000'),
    ($$SELECT es_timeline('c', 'es')$$,                                              '00000', '42501', '00000', '42501'),
    ($$SELECT es_causes('e'), es_effects('e')$$,                                     '00000', '00000', '00000', '00000'),
    ($$SELECT es_position_at(now())$$,                                               '00000', '42501', '00000', '42501'),
    ($$SELECT es_between('Order')$$,                                                 '00000', '42501', '00000', '42501'),
    ($$SELECT es_create_trace_indexes()$$,                                           '00000', '42501', '42501', '42501'),
    ($$SELECT * FROM es.events$$,                                                    '00000', '42501', '00000', '42501'),
    ($$SELECT * FROM es.streams$$,                                                   '00000', '42501', '42501', '42501'),
    ($$INSERT INTO es.streams VALUES ('a', 'b', now(), now())$$,                     '00000', '42501', '42501', '42501'),
    ($$SELECT es_create_event_type('Thing'); SELECT es_drop_event_type('Thing')$$,   '00000', '42501', '42501', '42501'),
    ($$SELECT es_set_strict(false)$$,                                                '00000', '42501', '42501', '42501'),
    ($$SELECT es_drop_upcaster('Thing', 1)$$,                                        'VE019', '42501', '42501', '42501'),
    ($$SELECT es_snapshot('Order')$$,                                                '00000', '42501', '42501', '42501'),
    ($$SELECT es_snapshot('Order', '1')$$,                                           '00000', '42501', '42501', '42501'),
    ($$SELECT es_verify_snapshots()$$,                                               '00000', '42501', '42501', '42501'),
    ($$SELECT eventsrc.take_snapshot('Order', '1', true, 'es')$$,                    '00000', '42501', '42501', '42501'),
    ($$SELECT eventsrc.verify_snapshot('Order', '1', 1, now(), '{}', 'x', 0, '{}', 'es')$$,
                                                                                     '00000', '42501', '42501', '42501'),
    ($$SELECT es_describe()$$,                                                       '00000', '00000', '00000', '00000'),
    ($$SELECT es_describe('es')$$,                                                   '00000', '00000', '00000', '42501'),
    ($$SELECT es_event_stats()$$,                                                    '00000', '42501', '00000', '42501'),
    ($$SELECT * FROM es_progress$$,                                                  '00000', '00000', '00000', '00000'),
    ($$SELECT es_check_upcasters()$$,                                                '00000', '42501', '42501', '42501'),
    ($$SELECT * FROM es.event_types$$,                                               '00000', '42501', '42501', '42501'),
    ($$INSERT INTO es.upcasters VALUES ('Thing', 1, 'x')$$,                          '00000', '42501', '42501', '42501'),
    ($$DELETE FROM es.upcasters$$,                                                   '00000', '42501', '42501', '42501'),
    ($$UPDATE es.settings SET value = 'true'$$,                                      '00000', '42501', '42501', '42501'),
    ($$UPDATE es.settings SET value = 'false'$$,                                     '00000', '42501', '42501', '42501'),
    ($$DELETE FROM es.snapshots$$,                                                   '00000', '42501', '42501', '42501'),
    ($$UPDATE es.events SET data = '{}'$$,                                           'VE006', '42501', '42501', '42501'),
    ($$DELETE FROM es.events$$,                                                      'VE006', '42501', '42501', '42501'),
    ($$SELECT es_create_aggregate('Shelf')$$,                                        '00000', '42501', '42501', '42501'),
    ($$SELECT es_safe_position()$$,                                                  '00000', '00000', '00000', '00000'),
    ($$SELECT es_grant('tap_nobody', 'reader'); SELECT 1 / 0$$,                      '22012', '42501', '42501', '42501'),
    ($$SELECT es_revoke('tap_reader', 'reader'); SELECT 1 / 0$$,                     '22012', '42501', '42501', '42501'),
    ($$SELECT es_set_context('anna')$$,                                              '00000', '00000', '00000', '00000'),
    ($$SELECT es_caused_by(ROW(1, 'a', 'b', 1, 'e', 't', 1, '{}', NULL, 'u', NULL, NULL, NULL, now(), NULL, '1')::es_event)$$,
                                                                                     '00000', '00000', '00000', '00000'),
    ($$SELECT * FROM es_workers$$,                                                   '00000', '00000', '00000', '00000'),
    ($$SELECT * FROM es_relays$$,                                                    '00000', '00000', '00000', '00000'),
    ($$SELECT * FROM es_relay_lanes$$,                                               '00000', '00000', '00000', '00000'),
    ($$SELECT * FROM es_dead_letters$$,                                              '00000', '00000', '00000', '00000'),
    ($$SELECT es_metrics()$$,                                                        '00000', '00000', '00000', '00000'),
    ($$SELECT * FROM eventsrc.stores$$,                                              '00000', '00000', '00000', '00000'),
    ($$SELECT nextval('eventsrc.position')$$,                                        '42501', '42501', '42501', '42501'),
    ($$SELECT setval('eventsrc.position', 1)$$,                                      '42501', '42501', '42501', '42501'),
    ($$UPDATE eventsrc.published_position SET position = 0$$,                        '42501', '42501', '42501', '42501'),
    ($$SELECT * FROM eventsrc.published_position$$,                                  '42501', '42501', '42501', '42501'),
    ($$SELECT * FROM eventsrc.relays$$,                                              '42501', '42501', '42501', '42501'),
    ($$SELECT * FROM eventsrc.relay_lanes$$,                                         '42501', '42501', '42501', '42501'),
    ($$SELECT * FROM eventsrc.relay_dead_letters$$,                                  '42501', '42501', '42501', '42501'),
    ($$SELECT es_alter_relay('none'), es_seek_relay('none', 0)$$,                    'VE009', 'VE009', 'VE009', 'VE009'),
    ($$SELECT eventsrc.add_partitions('es.events', '2020-01-01', 0); SELECT 1 / 0$$, '22012', '42501', '42501', '42501'),
    ($$SELECT es_create_store('other'); SELECT 1 / 0$$,                              '22012', '42501', '42501', '42501'),
    ($$SELECT es_drop_store('es', 'es'); SELECT 1 / 0$$,                             '22012', '42501', '42501', '42501'),
    ($$SELECT eventsrc.drop_store_tables('es'); SELECT 1 / 0$$,                      '22012', '42501', '42501', '42501'),
    ($$SET eventsrc.allow_unsafe_ddl = on$$,                                         '42501', '42501', '42501', '42501'),
    ($$DROP TABLE es.streams$$,                                                      'VE016', '42501', '42501', '42501'),
    ($$DROP SCHEMA es CASCADE$$,                                                     'VE016', '42501', '42501', '42501'),
    ($$CREATE OR REPLACE TRIGGER eventsrc_append BEFORE INSERT ON es.events FOR EACH ROW EXECUTE FUNCTION eventsrc.append_trigger()$$,
                                                                                     'VE016', '42501', '42501', '42501'),
    ($$ALTER TABLE es.events DISABLE TRIGGER ALL; SELECT 1 / 0$$,                    NULL, '42501', '42501', '42501');
SELECT is(as_role(role, statement), wanted, format('%s: %s', role, statement))
FROM expectation, LATERAL (VALUES ('tap_owner', owner), ('tap_writer', writer), ('tap_reader', reader), ('tap_nobody', nobody)) r (role, wanted)
WHERE wanted IS NOT NULL;

-- state views are the owner's to make, and others' to read if granted
SELECT is(as_role(role, $$SELECT es_create_state_view('Order', '{status text}')$$), wanted, role || ': es_create_state_view()')
FROM (VALUES ('tap_writer', '42501'), ('tap_reader', '42501'), ('tap_nobody', '42501'), ('tap_owner', '00000')) r (role, wanted);
SELECT is(as_role('tap_reader', 'SELECT * FROM es.order_now'), '42501', 'a state view is not for everybody');
SELECT is(as_role('tap_owner', 'GRANT SELECT ON es.order_now TO tap_reader, tap_writer'), '00000', 'the owner grants it');
SELECT is(as_role('tap_reader', 'SELECT * FROM es.order_now'), '00000', 'a reader reads it');
SELECT is(as_role('tap_writer', 'SELECT * FROM es.order_now'), '42501', 'not who may not read the events');
SELECT is(as_role(role, 'SELECT * FROM es.order_at(now())'), wanted, role || ': the function of a state view')
FROM (VALUES ('tap_writer', '42501'), ('tap_reader', '00000'), ('tap_nobody', '42501'), ('tap_owner', '00000')) r (role, wanted);
SELECT is(as_role(role, $$SELECT es_drop_state_view('Order')$$), wanted, role || ': es_drop_state_view()')
FROM (VALUES ('tap_writer', '42501'), ('tap_reader', '42501'), ('tap_nobody', '42501'), ('tap_owner', '00000')) r (role, wanted);

SELECT is(as_role(role, $$SELECT es_wait(0, '0')$$), wanted, role || ': es_wait() needs USAGE on the schema')
FROM (VALUES ('tap_owner', '00000'), ('tap_writer', '00000'), ('tap_reader', '00000'), ('tap_nobody', '42501')) r (role, wanted);

-- a writer's append does all that belongs to it: new streams, partitions' rows, snapshots
SELECT is(as_role('tap_owner', $$SELECT es_create_aggregate('Busy', snapshot_every => 5)$$), '00000', 'an aggregate with snapshots');
SELECT is(as_role('tap_writer', $$SELECT es_append('Busy', 'b' || i % 2, 'Placed', jsonb_build_object('n', i)) FROM generate_series(1, 20) i$$),
          '00000', 'the writer appends past a snapshot');
SELECT is((SELECT array_agg((aggregate_id, version)::text ORDER BY aggregate_id, version) FROM es.snapshots WHERE aggregate_type = 'Busy'),
          ARRAY['(b0,5)', '(b0,10)', '(b1,5)', '(b1,10)'], 'and snapshots were taken');
SELECT is((SELECT array_agg(DISTINCT user_id) FROM es.events WHERE aggregate_type = 'Busy'), ARRAY[session_user::text], 'user_id is the session''s user unless set');
SELECT is((SELECT count(*) FROM es.streams WHERE aggregate_type = 'Busy'), 2::bigint, 'streams were entered');
SET ROLE tap_reader;
SELECT is(es_state('Busy', 'b1'), '{"n": 19}', 'the reader has the state');
SELECT is((SELECT snapshot_version FROM es_explain_state('Busy', 'b1')), 10::bigint, 'from a snapshot');
SELECT is((SELECT count(*) FROM es_read_all(0, NULL)), (SELECT count(*) FROM es.events), 'and all events');
RESET ROLE;

-- a view or function lends its owner's rights, as everywhere in PostgreSQL
GRANT CREATE ON SCHEMA public TO tap_owner;
SET ROLE tap_owner;
CREATE FUNCTION place(id text) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS
    $$ SELECT version FROM es_append('Order', id, 'Placed') $$;
RESET ROLE;
SELECT is(as_role('tap_nobody', $$SELECT place('definer')$$), '00000', 'a SECURITY DEFINER function lends INSERT');
SELECT is((SELECT count(*) FROM es.events WHERE aggregate_id = 'definer'), 1::bigint, 'and the event is there');

-- USAGE is taken back
SET ROLE tap_owner;
REVOKE USAGE ON SCHEMA es FROM tap_writer;
RESET ROLE;
SELECT is(as_role('tap_writer', $$SELECT es_append('Order', '1', 'Placed')$$), '42501', 'without USAGE on the schema there is no append');

-- es_grant() and es_revoke()
CREATE ROLE "Tap app";
CREATE TEMPORARY TABLE granted (privilege text, statement text, wanted text);
INSERT INTO granted VALUES
    ('reader', $$SELECT es_append('Order', 'g', 'Placed')$$, '42501'),
    ('reader', $$SELECT * FROM es_read_all()$$, '00000'),
    ('reader', $$SELECT es_stream_version('Order', '1')$$, '00000'),
    ('reader', $$SELECT es_state('Order', '1')$$, '00000'),
    ('reader', $$SELECT es_wait(0, '0')$$, '00000'),
    ('reader', $$SELECT * FROM es.events$$, '00000'),
    ('writer', $$SELECT es_append('Order', 'g', 'Placed')$$, '00000'),
    ('writer', $$SELECT es_append_events('Order', 'g', '{A,B}', '{"{}","{}"}')$$, '00000'),
    ('writer', $$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'g', 'Placed', '{}')$$, '00000'),
    ('writer', $$SELECT es_append('Busy', 'g', 'Placed') FROM generate_series(1, 6)$$, '00000'),
    ('writer', $$SELECT * FROM es_read_all()$$, '00000'),
    ('writer', $$SELECT es_explain_state('Busy', 'g')$$, '00000'),
    ('writer', $$DELETE FROM es.snapshots$$, '42501'),
    ('writer', $$SELECT es_create_aggregate('Shelf')$$, '42501');
SELECT is(as_role('tap_owner', $$SELECT es_grant('"Tap app"', 'reader')$$), '00000', 'the owner makes a reader');
SELECT is(as_role('Tap app', statement), wanted, 'reader: ' || statement) FROM granted WHERE privilege = 'reader';
SELECT is(as_role('tap_owner', $$SELECT es_grant('"Tap app"', 'writer', 'es')$$), '00000', 'and a writer of it');
SELECT is(as_role('Tap app', statement), wanted, 'writer: ' || statement) FROM granted WHERE privilege = 'writer';
SELECT is((SELECT string_agg(privilege_type, ',' ORDER BY privilege_type) FROM pg_class c, aclexplode(c.relacl) a
           WHERE c.oid = 'es.events'::regclass AND a.grantee = '"Tap app"'::regrole), 'INSERT,SELECT', 'a writer has INSERT and SELECT, no more');
SELECT is(as_role('Tap app', $$SELECT es_grant('tap_nobody', 'reader')$$), '42501', 'a writer makes no readers');
SELECT is(as_role('tap_owner', $$SELECT es_grant('tap_owner', 'reader')$$), 'VE004', 'the owner is not granted anything');
SELECT is(as_role('tap_owner', $$SELECT es_revoke('tap_owner', 'writer')$$), 'VE004', 'nor revoked');
SELECT is(as_role('tap_owner', $$SELECT es_revoke('"Tap app"', 'reader')$$), '00000', 'reading is revoked');
SELECT is(as_role('Tap app', $$SELECT * FROM es_read_all()$$), '42501', 'it cannot read any more');
SELECT is(as_role('Tap app', $$SELECT es_append('Order', 'g', 'Placed')$$), '00000', 'but append');
SELECT is(as_role('tap_owner', $$SELECT es_revoke('"Tap app"', 'writer')$$), '00000', 'all is revoked');
SELECT is(as_role('Tap app', $$SELECT es_append('Order', 'g', 'Placed')$$), '42501', 'it cannot append any more');
SELECT is(has_schema_privilege('Tap app', 'es', 'USAGE'), false, 'nor look into the schema');
SELECT is(as_role('tap_owner', $$SELECT es_revoke('"Tap app"', 'writer')$$), '00000', 'revoking what is not granted changes nothing');
SELECT lives_ok($$SELECT es_grant('"Tap app"', 'reader')$$, 'a superuser grants');
SELECT is(as_role('tap_owner', $$SELECT es_revoke('"Tap app"', 'reader')$$), '00000', 'and the owner revokes it');
SELECT is(has_schema_privilege('Tap app', 'es', 'USAGE'), false, 'all of it');
SELECT is(as_role('Tap app', $$SELECT * FROM es_read_all()$$), '42501', 'really');

-- nobody uses our triggers to get at anything
CREATE SCHEMA nobodys AUTHORIZATION tap_nobody;
SELECT is(as_role('tap_nobody', $$CREATE TABLE nobodys.events (a int);
    CREATE TRIGGER t BEFORE INSERT ON nobodys.events FOR EACH ROW EXECUTE FUNCTION eventsrc.append_trigger();
    INSERT INTO nobodys.events VALUES (1)$$), 'VE011', 'the trigger on a table that is no store''s');
SELECT is(as_role('tap_nobody', $$CREATE TABLE nobodys.events (a int);
    CREATE TRIGGER t AFTER INSERT ON nobodys.events FOR EACH ROW EXECUTE FUNCTION eventsrc.snapshot_trigger();
    INSERT INTO nobodys.events VALUES (1)$$), 'VE002', 'the snapshot trigger too');
SELECT isnt(as_role('tap_nobody', $$CREATE TABLE nobodys.events (recorded_at int) PARTITION BY LIST (recorded_at);
    CREATE TRIGGER t BEFORE INSERT ON nobodys.events FOR EACH ROW EXECUTE FUNCTION eventsrc.append_trigger();
    SELECT es_append('Order', '1', 'Placed', store => 'nobodys')$$), '00000', 'a table that only looks like events is no store');
SELECT is(as_role('tap_nobody', 'SELECT eventsrc.append_trigger()'), '39P01', 'a trigger function is called by triggers');

SELECT * FROM finish();
SELECT es_drop_store('es', confirm => 'es');
DROP OWNED BY tap_owner, tap_writer, tap_reader, tap_nobody CASCADE;
DROP ROLE tap_owner, tap_writer, tap_reader, tap_nobody, "Tap app";
