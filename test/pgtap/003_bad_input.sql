-- Bad input gets a clear error, with its SQLSTATE and a hint, and leaves nothing behind.
SELECT * FROM no_plan();
SELECT es_create_store();

-- everything that an error could leave behind, in short
CREATE FUNCTION traces() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ',
        (SELECT count(*) || ':' || coalesce(max(global_position), 0) FROM es.events),
        (SELECT count(*) FROM es.streams), (SELECT count(*) FROM es.snapshots), (SELECT count(*) FROM es.aggregates),
        (SELECT count(*) FROM es.event_types), (SELECT count(*) FROM es.upcasters), (SELECT count(*) FROM es.settings),
        (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_class WHERE relpersistence = 'p' AND relkind <> 't'), (SELECT count(*) FROM pg_trigger),
        es_safe_position(), current_setting('eventsrc.store'), current_user)
$$;

-- refused runs a statement and tells whether it gave the SQLSTATE, with a hint where we raised it, and left
-- everything as it was
CREATE FUNCTION refused(statement text, sqlstate_wanted text, what text, needs_detail boolean DEFAULT false) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    before text := traces();
    got text := '00000';
    message text;
    details text := '';
    hints text := '';
BEGIN
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS got = RETURNED_SQLSTATE, message = MESSAGE_TEXT, details = PG_EXCEPTION_DETAIL, hints = PG_EXCEPTION_HINT;
    END;
    RETURN NEXT is(got, sqlstate_wanted, what) || CASE WHEN got <> sqlstate_wanted THEN E'\n# ' || coalesce(message, 'no error') ELSE '' END;
    IF got LIKE 'VE%' THEN
        RETURN NEXT ok(hints <> '', what || ': there is a hint');
        RETURN NEXT ok(message !~ '\.$', what || ': the message is in PostgreSQL''s style: ' || left(message, 60));
        RETURN NEXT ok(hints ~ '[.;)]$' AND (details = '' OR details ~ '(\.|actual=-?\d+|last=\d+|=-?\d+)$'), what || ': detail and hint are in it too');
        IF needs_detail THEN
            RETURN NEXT ok(details <> '', what || ': there is a detail');
        END IF;
    END IF;
    RETURN NEXT is(traces(), before, what || ': nothing is left behind');
END
$$;

CREATE FUNCTION wrong_result(state jsonb, event es_event) RETURNS text LANGUAGE sql AS $$ SELECT '' $$;
CREATE FUNCTION wrong_arguments(state jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state $$;
CREATE FUNCTION returns_null(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION raises(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'too much' USING ERRCODE = 'XX123'; END $$;
SELECT es_create_aggregate('Nullable', 'returns_null(jsonb,es_event)');
SELECT es_create_aggregate('Raising', 'raises(jsonb,es_event)');
SELECT es_append(type, '1', 'Placed') FROM unnest(ARRAY['Order', 'Nullable', 'Raising', 'Order', 'Order']) type;

-- stores
SELECT refused(format('SELECT * FROM %s', call), 'VE002', 'unknown store: ' || call, true) FROM unnest(ARRAY[
    $$es_append('Order', '1', 'Placed', store => 'none')$$,
    $$es_append_events('Order', '1', '{Placed}', '{"{}"}', store => 'none')$$,
    $$es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "1", "events": [{"event_type": "Placed"}]}]', 'none')$$,
    $$es_close_stream('Order', '1', store => 'none')$$,
    $$es_import($q$SELECT 'Order' AS aggregate_type, '1' AS aggregate_id, 'Placed' AS event_type$q$, store => 'none')$$,
    $$es_read_stream('Order', '1', store => 'none')$$,
    $$es_read_all(store => 'none')$$,
    $$es_read_all(store => 'public')$$,
    $$es_read_all(store => 'eventsrc')$$,
    $$es_read_all(store => 'ES')$$,
    $$es_read_all(store => 'es; DROP TABLE es.events')$$,
    $$es_stream_version('Order', '1', store => 'none')$$,
    $$es_wait(0, store => 'none')$$,
    $$es_state('Order', '1', store => 'none')$$,
    $$es_explain_state('Order', '1', store => 'none')$$,
    $$es_states('Order', store => 'none')$$, $$es_history('Order', '1', store => 'none')$$,
    $$es_diff('Order', '1', 0, store => 'none')$$, $$es_replay('Order', '1', store => 'none')$$,
    $$es_undo('Order', '1', 0, store => 'none')$$,
    $$es_create_aggregate('Order', store => 'none')$$]) call;
SELECT refused($$SELECT es_drop_store('none', 'none')$$, 'VE002', 'unknown store: es_drop_store');
SELECT refused($$SELECT es_drop_store(NULL, NULL)$$, 'VE002', 'no store to drop');
SELECT refused($$SELECT es_drop_store('es', NULL)$$, 'VE003', 'a store is not dropped without confirmation', true);
SELECT refused($$SELECT es_drop_store('es', 'ES')$$, 'VE003', 'nor with another');
SELECT refused($$SELECT es_drop_store('public', 'public')$$, 'VE002', 'what is no store is not dropped');
SELECT refused($$SELECT es_create_store('es')$$, 'VE003', 'a store that exists', true);
SELECT refused($$SELECT es_create_store('public')$$, 'VE003', 'a schema that exists', true);
SELECT refused($$SELECT es_create_store('pg_mine')$$, 'VE003', 'a system name', true);
SELECT refused($$SELECT es_create_store('eventsrc')$$, 'VE003', 'our own name', true);
SELECT refused($$SELECT es_create_store('')$$, 'VE003', 'an empty name');
SELECT refused($$SELECT es_create_store(NULL)$$, 'VE003', 'no name');
SELECT refused($$SET LOCAL eventsrc.store = ''; SELECT es_read_all()$$, 'VE002', 'an empty setting');
SELECT refused(format('SELECT %s(%s)', name, arguments), state, name || ': ' || arguments)
FROM unnest(ARRAY['es_grant', 'es_revoke']) name, (VALUES
    ($$'pg_monitor', 'admin'$$, 'VE004'), ($$'pg_monitor', 'READER'$$, 'VE004'), ($$'pg_monitor', ''$$, 'VE004'), ($$'pg_monitor', NULL$$, 'VE004'),
    ($$NULL, 'reader'$$, 'VE004'), ($$'-', 'reader'$$, 'VE004'), ($$current_user::regrole, 'reader'$$, 'VE004'),
    ($$'pg_monitor', 'reader', 'none'$$, 'VE002'), ($$'pg_monitor', 'reader', 'public'$$, 'VE002'),
    ($$'no_such_role', 'reader'$$, '42704'), ($$999999, 'reader'$$, '42704')) bad (arguments, state);
SELECT refused('SELECT es_wait(' || arguments || ')', 'VE004', 'es_wait: ' || arguments)
FROM unnest(ARRAY['NULL', '-1', '0, NULL', $$0, '-1 second'$$, $$0, '-1 day'$$]) arguments;
CREATE TABLE es.mine (a int);
SELECT refused($$SELECT es_drop_store('es', 'es')$$, 'VE003', 'a store that holds a table of the user''s', true);
DROP TABLE es.mine;
DO $$ BEGIN PERFORM set_config('eventsrc.store', 'none', true); PERFORM es_read_all(); EXCEPTION WHEN SQLSTATE 'VE002' THEN NULL; END $$;

-- names that are odd but good
CREATE TEMPORARY TABLE odd (store name);
INSERT INTO odd VALUES ('Mine "and" yours'), ('it''s'), ('select'), ('ü ß'), (repeat('n', 63)), ('%I %s $1'), ('a.b'), (E'back\\slash'), ('Es');
SELECT lives_ok(format('SELECT es_create_store(%L)', store), 'a store can be named ' || store) FROM odd;
SELECT lives_ok(format('SELECT es_create_aggregate(%L, snapshot_every => 2, store => %1$L)', store), store || ' takes aggregates') FROM odd;
SELECT lives_ok(format($$SELECT es_append('Order', %L, 'Placed', '{"a": 1}', store => %1$L)$$, store), store || ' takes events') FROM odd;
SELECT lives_ok(format($$INSERT INTO %I.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', %1$L, 'Placed', '{"b": 2}')$$, store),
                store || ' takes inserted events') FROM odd;
SELECT is(es_stream_version('Order', store, store), 2::bigint, store || ' has a version') FROM odd;
SELECT is(es_state('Order', store, store => store), '{"a": 1, "b": 2}', store || ' has a state') FROM odd;
SELECT is((SELECT count(*) FROM es_read_stream('Order', store, store => store)), 2::bigint, store || ' has a stream') FROM odd;
SELECT is((SELECT count(*) FROM es_read_all(store => store)), 2::bigint, store || ' can be followed') FROM odd;
SELECT refused(format('SELECT es_create_store(%L)', store), 'VE003', store || ' is not made twice') FROM odd;
SELECT throws_ok(format($$SELECT es_append('Order', %L, 'Placed', expected_version => 7, store => %1$L)$$, store), 'VE001', NULL, store || ' refuses conflicts') FROM odd;
SELECT lives_ok(format('SELECT es_drop_store(%L, %1$L)', store), store || ' can be dropped') FROM odd;
SELECT is((SELECT count(*) FROM pg_namespace WHERE nspname = store), 0::bigint, store || ' is gone') FROM odd;

-- NULL and empty texts
SELECT refused('SELECT * FROM ' || replace(call, '?', value), 'VE004', replace(call, '?', value))
FROM unnest(ARRAY[
    $$es_append(?, '1', 'Placed')$$, $$es_append('Order', ?, 'Placed')$$, $$es_append('Order', '1', ?)$$,
    $$es_append_events(?, '1', '{Placed}', '{"{}"}')$$, $$es_append_events('Order', ?, '{Placed}', '{"{}"}')$$,
    $$es_append_events('Order', '1', ARRAY[?], '{"{}"}')$$,
    $$es_append_events('Order', '1', '{Placed}', '{"{}"}', event_ids => ARRAY[?])$$,
    $$es_close_stream(?, '1')$$, $$es_close_stream('Order', ?)$$,
    $$es_read_stream(?, '1')$$, $$es_read_stream('Order', ?)$$,
    $$es_stream_version(?, '1')$$, $$es_stream_version('Order', ?)$$,
    $$es_state(?, '1')$$, $$es_state('Order', ?)$$, $$es_explain_state(?, '1')$$, $$es_explain_state('Order', ?)$$,
    $$es_import(?)$$, $$es_import(format('SELECT %L AS aggregate_type, 1 AS aggregate_id, 1 AS event_type', ?))$$,
    $$es_import(format('SELECT 1 AS aggregate_type, %L AS aggregate_id, 1 AS event_type', ?))$$,
    $$es_states(?)$$, $$es_history(?, '1')$$, $$es_history('Order', ?)$$, $$es_diff(?, '1', 0)$$, $$es_diff('Order', ?, 0)$$,
    $$es_replay(?, '1')$$, $$es_replay('Order', ?)$$,
    $$es_create_aggregate(?)$$]) call, unnest(ARRAY['NULL', '''''']) value;
SELECT refused($$SELECT es_append('Order', '1', 'Placed', event_id => '')$$, 'VE004', 'an empty event id');
SELECT refused($$SELECT es_append('Order', '1', repeat('x', 10 * 1024 * 1024))$$, 'VE004', 'an event type of 10 MB', true);
SELECT refused($$SELECT es_append(repeat('x', 10 * 1024 * 1024), '1', 'Placed')$$, 'VE004', 'an aggregate type of 10 MB', true);
SELECT refused($$SELECT es_append('Order', repeat('x', 10 * 1024 * 1024), 'Placed')$$, 'VE004', 'an aggregate id of 10 MB', true);
SELECT refused($$SELECT es_append('Order', '1', 'Placed', event_id => repeat('x', 10 * 1024 * 1024))$$, 'VE004', 'an event id of 10 MB', true);
SELECT refused($$SELECT es_read_stream('Order', repeat('x', 10 * 1024 * 1024))$$, 'VE004', 'reading an id of 10 MB', true);
SELECT lives_ok($$SELECT es_append('Order', 'large', 'Placed', jsonb_build_object('x', repeat('x', 10 * 1024 * 1024)))$$, 'data of 10 MB is good');
SELECT is((SELECT length(data ->> 'x') FROM es_read_stream('Order', 'large')), 10 * 1024 * 1024, 'and comes back');

-- data
SELECT refused($$SELECT es_append('Order', '1', 'Placed', NULL)$$, 'VE004', 'no data');
SELECT refused($$SELECT es_append('Order', '1', 'Placed', 'null')$$, 'VE004', 'JSON null as data');
SELECT refused($$SELECT es_append_events('Order', '1', '{Placed,Sent}', '{"{}","null"}')$$, 'VE004', 'JSON null among data');
SELECT lives_ok($$SELECT es_append('Order', 'scalars', 'Placed', data::jsonb) FROM unnest(ARRAY['1', '"text"', 'true', '[]', '[null]', '{"a": null}']) data$$,
                'any other JSON is good');

-- numbers
SELECT refused(format('SELECT * FROM %s', call), 'VE004', call, true) FROM unnest(ARRAY[
    $$es_read_stream('Order', '1', max_count => -1)$$,
    $$es_read_stream('Order', '1', from_version => -1)$$,
    $$es_read_all(max_count => -1)$$,
    $$es_read_all(-1)$$,
    $$es_state('Order', '1', -1)$$]) call;
SELECT refused(format('SELECT * FROM %s', call), 'VE004', call) FROM unnest(ARRAY[
    $$es_append('Order', '1', 'Placed', expected_version => -2)$$,
    $$es_append_events('Order', '1', '{Placed}', '{"{}"}', expected_version => -2)$$,
    $$es_close_stream('Order', '1', expected_version => -2)$$,
    $$es_append('Order', '1', 'Placed', schema_version => 0)$$,
    $$es_append_events('Order', '1', '{Placed}', '{"{}"}', schema_versions => '{0}')$$,
    $$es_create_aggregate('Order', snapshot_every => -1)$$,
    $$es_create_aggregate('Order', snapshot_every => NULL)$$,
    $$es_create_aggregate('Order', initial => NULL)$$,
    $$es_create_aggregate('Order', initial => '[]')$$]) call;
SELECT is_empty($$SELECT * FROM es_read_stream('Order', '1', max_count => 0)$$, 'none is a number of events');
SELECT is_empty($$SELECT * FROM es_read_all(max_count => 0)$$, 'here too');
SELECT is_empty($$SELECT * FROM es_read_all(9223372036854775807)$$, 'after the last position of all there is nothing');
SELECT is_empty($$SELECT * FROM es_read_stream('Order', '1', 9223372036854775807)$$, 'nor at the last version of all');
SELECT is((SELECT count(*) FROM es_read_all(NULL, NULL)), (SELECT count(*) FROM es.events), 'NULL is no limit');

-- arrays
SELECT refused(format('SELECT * FROM es_append_events(%s)', call), 'VE004', 'es_append_events: ' || call)
FROM unnest(ARRAY[
    $$'Order', '1', '{}', '{}'$$,
    $$'Order', '1', NULL, NULL$$,
    $$'Order', '1', '{Placed}', NULL$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}"}'$$,
    $$'Order', '1', '{Placed}', '{"{}","{}"}'$$,
    $$'Order', '1', '{Placed,NULL}', '{"{}","{}"}'$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}",NULL}'$$,
    $$'Order', '1', '{{Placed,Sent}}', '{"{}","{}"}'$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}","{}"}', metadata => '{"{}"}'$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}","{}"}', event_ids => '{a}'$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}","{}"}', event_ids => '{a,NULL}'$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}","{}"}', occurred_at => '{2020-01-01}'$$,
    $$'Order', '1', '{Placed,Sent}', '{"{}","{}"}', schema_versions => '{1,2,3}'$$]) call;
SELECT refused($$SELECT * FROM es_read_all(aggregate_types => ARRAY['Order', NULL])$$, 'VE004', 'NULL among types to read', true);
SELECT refused($$SELECT * FROM es_read_all(event_types => ARRAY[NULL]::text[])$$, 'VE004', 'NULL among event types to read', true);
SELECT is_empty($$SELECT * FROM es_read_all(event_types => '{}')$$, 'no type matches none');

-- batches
SELECT refused(format('SELECT * FROM es_append_batch(%L)', batch), 'VE004', 'es_append_batch: ' || coalesce(batch, 'NULL'))
FROM unnest(ARRAY[NULL, 'null', '"x"', '{}', '[]', '[7]', '[{}]', '[{"aggregate_type": "Order", "aggregate_id": "1"}]',
    '[{"aggregate_type": "Order", "aggregate_id": "1", "events": []}]', '[{"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 0.5}]',
    '[{"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 9223372036854775808}]',
    '[{"aggregate_type": "Order", "aggregate_id": "1", "events": [{}]}]', '[{"aggregate_type": "Order", "aggregate_id": "1", "events": [{"event_type": "Placed", "data": null}]}]',
    '[{"aggregate_type": "Order", "aggregate_id": "1", "events": [{"event_type": "Placed"}], "expected": 0}]',
    '[{"aggregate_type": "Order", "aggregate_id": "1", "events": [{"event_type": "Placed", "Data": {}}]}]']) batch;
SELECT refused($$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 3},
    {"aggregate_type": "Order", "aggregate_id": "1", "events": [{"event_type": "Placed"}]}]')$$, 'VE004', 'a stream with two entries', true);
SELECT refused(format('SELECT es_append_batch(%L)', jsonb_build_array(jsonb_build_object('aggregate_type', 'Order', 'aggregate_id', repeat('x', 1025)))),
               'VE004', 'an aggregate id that is too long, in a batch', true);
SELECT refused(format('SELECT es_append_batch(%L)', jsonb_build_array(jsonb_build_object('aggregate_type', 'Order', 'aggregate_id', '1', 'events',
    jsonb_build_array(jsonb_build_object('event_type', 'Placed', 'occurred_at', moment))))), 'VE004', 'a batch with the time ' || moment, true)
FROM unnest(ARRAY['', 'yesterday or so', '2020-02-30', '300000-01-01', repeat('1', 5000)]) moment;

-- versions
SELECT refused($$SELECT es_append('Order', '1', 'Placed', expected_version => 2)$$, 'VE001', 'a version that was passed', true);
SELECT refused($$SELECT es_append('Order', '1', 'Placed', expected_version => 9)$$, 'VE001', 'a version that is not there yet', true);
SELECT refused($$SELECT es_append('Order', '1', 'Placed', expected_version => 0)$$, 'VE001', 'a stream that exists', true);
SELECT refused($$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "new", "events": [{"event_type": "Placed"}]},
    {"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 2}]')$$, 'VE001', 'a version that was passed, in a batch', true);
SELECT refused($$SELECT es_close_stream('Order', '1', expected_version => 2)$$, 'VE001', 'closing at a version that was passed', true);
SELECT refused($$SELECT es_close_stream('Order', 'new')$$, 'VE005', 'closing a stream that does not exist');
SELECT refused($$SELECT es_append('Order', 'new', 'Placed', expected_version => -1)$$, 'VE001', 'a stream that does not exist', true);
SELECT refused($$SELECT es_append('Order', 'new', 'Placed', expected_version => 1)$$, 'VE001', 'a version of a stream that does not exist', true);
SELECT refused($$SELECT es_append_events('Order', '1', '{Placed}', '{"{}"}', expected_version => 2)$$, 'VE001', 'a conflict of many', true);
SELECT refused($$SELECT es_append_events('Order', '1', '{A,B}', '{"{}","{}"}'); SELECT es_append('Order', '1', 'Placed', expected_version => 3)$$,
               'VE001', 'a conflict after an append', true);
SELECT refused($$SELECT es_state('Order', '1', 99)$$, 'VE005', 'a state past the end', true);
SELECT is(es_state('Order', 'new'), NULL, 'there is no state of a stream that does not exist');
SELECT is(es_stream_version('Order', 'new'), NULL, 'nor a version');
SELECT refused($$SELECT es_explain_state('Order', '1', 99)$$, 'VE005', 'explaining a state past the end', true);
SELECT refused($$SELECT es_diff('Order', '1', 0, 99)$$, 'VE005', 'a difference to a state past the end', true);
SELECT refused($$SELECT es_undo('Order', '1', 99)$$, 'VE005', 'an undo to a version past the end', true);
SELECT refused($$SELECT es_undo('Order', '1', 1, expected_version => 99)$$, 'VE001', 'an undo that expects another version', true);
SELECT refused($$SELECT es_undo('Order', 'new', 0)$$, 'VE005', 'an undo of what does not exist');
SELECT refused(format('SELECT %s', call), 'VE004', 'bad argument: ' || call) FROM unnest(ARRAY[
    $$es_undo('Order', '1', NULL)$$, $$es_undo('Order', '1', -1)$$,
    $$es_diff('Order', '1', -1)$$, $$es_history('Order', '1', -1)$$, $$es_replay('Order', '1', from_version => -1)$$,
    $$es_dry_run('Order', NULL, sample => -1)$$, $$es_position_at(NULL)$$,
    $$es_create_state_view('Order', '{}')$$, $$es_create_state_view('', '{a int}')$$, $$es_drop_state_view('None')$$,
    $$es_fold(ROW(1)) $$]) call;
SELECT refused($$SELECT es_replay('Order', '1', 'wrong_result(jsonb,es_event)')$$, 'VE007', 'a replay by what is no reducer', true);
SELECT refused($$SELECT es_history('Raising', '1')$$, 'XX123', 'a history by a reducer that fails');
SELECT refused($$SELECT es_states('Nullable')$$, 'VE008', 'states by a reducer that returns NULL', true);

-- reducers
SELECT refused($$SELECT es_create_aggregate('Wrong', 'wrong_result(jsonb,es_event)')$$, 'VE007', 'a reducer with a wrong result', true);
SELECT refused($$SELECT es_create_aggregate('Wrong', 'wrong_arguments(jsonb)')$$, 'VE007', 'a reducer with wrong arguments', true);
SELECT refused($$SELECT es_create_aggregate('Wrong', 'pg_catalog.sum(bigint)')$$, 'VE007', 'an aggregate as reducer', true);
SELECT refused($$SELECT es_create_aggregate('Wrong', 99999999::oid::regprocedure)$$, '42883', 'a reducer that does not exist');
SELECT refused($$SELECT es_state('Nullable', '1')$$, 'VE008', 'a reducer that returns NULL', true);
SELECT refused($$SELECT es_state('Raising', '1')$$, 'XX123', 'a reducer that raises');

-- plain INSERT and COPY
SELECT refused('INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data, ' || given, state, 'INSERT with ' || given)
FROM (VALUES
    ($$version) VALUES ('Order', '1', 'Placed', '{}', 9)$$, 'VE001'),
    ($$version) VALUES ('Order', '1', 'Placed', '{}', 3)$$, 'VE001'),
    ($$version) VALUES ('Order', '1', 'Placed', '{}', 0)$$, 'VE004'),
    ($$version) VALUES ('Order', '1', 'Placed', '{}', -5)$$, 'VE004'),
    ($$recorded_at) VALUES ('Order', '1', 'Placed', '{}', '2020-01-01')$$, '23514'),
    ($$recorded_at) VALUES ('Order', '1', 'Placed', '{}', now() + interval '1 minute')$$, 'VE004'),
    ($$version) VALUES ('Order', '1', '', '{}', 4)$$, 'VE004'),
    ($$version) VALUES (NULL, '1', 'Placed', '{}', 4)$$, 'VE004'),
    ($$version) VALUES ('', '1', 'Placed', '{}', 4)$$, 'VE004'),
    ($$version) VALUES ('Order', '', 'Placed', '{}', 4)$$, 'VE004'),
    ($$version) VALUES ('Order', '1', 'Placed', NULL, 4)$$, '23502'),
    ($$version) VALUES ('Order', '1', 'Placed', 'null', 4)$$, 'VE004'),
    ($$schema_version) VALUES ('Order', '1', 'Placed', '{}', 0)$$, 'VE004'),
    ($$event_id) VALUES ('Order', '1', 'Placed', '{}', '')$$, 'VE004')) bad (given, state);
SELECT refused(statement, 'VE006', statement) FROM unnest(ARRAY[
    'UPDATE es.events SET data = ''{}''', 'DELETE FROM es.events', 'TRUNCATE es.events',
    'DELETE FROM es.events WHERE aggregate_id = ''1''']) statement;
SELECT refused('INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data, global_position) VALUES (''Order'', ''1'', ''Placed'', ''{}'', 1) RETURNING 1/0', '22012', 'an INSERT that fails late');

-- read-only transactions
BEGIN READ ONLY;
SELECT refused(statement, '25006', 'read-only: ' || statement) FROM unnest(ARRAY[
    $$SELECT es_append('Order', '1', 'Placed')$$,
    $$SELECT es_append_events('Order', '1', '{Placed}', '{"{}"}')$$,
    $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 3}]')$$,
    $$SELECT es_close_stream('Order', '1')$$,
    $$SELECT es_import($q$SELECT 'Order' AS aggregate_type, '1' AS aggregate_id, 'Placed' AS event_type$q$)$$,
    $$SELECT es_create_aggregate('Order')$$,
    $$SELECT es_create_store('more')$$,
    $$SELECT es_drop_store('es', 'es')$$,
    $$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', '1', 'Placed', '{}')$$]) statement;
SELECT is((SELECT count(*) FROM es_read_stream('Order', '1')), 3::bigint, 'read-only: streams can be read');
SELECT isnt((SELECT count(*) FROM es_read_all()), 0::bigint, 'read-only: all can be read');
SELECT is(es_state('Order', '1'), '{}', 'read-only: states too');
COMMIT;

-- a closed stream
SELECT lives_ok($$SELECT es_append('Order', 'closed', 'Placed'); SELECT es_close_stream('Order', 'closed')$$, 'a stream is closed');
SELECT refused(statement, 'VE015', 'closed: ' || statement, true) FROM unnest(ARRAY[
    $$SELECT es_append('Order', 'closed', 'Placed')$$,
    $$SELECT es_append('Order', 'closed', 'Placed', expected_version => 2)$$,
    $$SELECT es_append_events('Order', 'closed', '{Placed}', '{"{}"}')$$,
    $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "closed", "events": [{"event_type": "Placed"}]}]')$$,
    $$SELECT es_close_stream('Order', 'closed')$$,
    $$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'closed', 'Placed', '{}')$$]) statement;
SELECT is((SELECT array_agg(event_type ORDER BY version) FROM es_read_stream('Order', 'closed')), ARRAY['Placed', 'StreamClosed'], 'closed: it can be read');

-- event types and upcasters
CREATE FUNCTION same_data(event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN (event).data;
CREATE FUNCTION text_of(event es_event) RETURNS text LANGUAGE sql IMMUTABLE RETURN '';
SELECT es_create_event_type('Checked', json_schema => '{"type": "object", "required": ["a"]}');
SELECT refused(statement, 'VE002', 'unknown store: ' || statement) FROM unnest(ARRAY[
    $$SELECT es_create_event_type('X', store => 'none')$$,
    $$SELECT es_drop_event_type('X', store => 'none')$$,
    $$SELECT es_set_strict(true, 'none')$$,
    $$SELECT es_create_upcaster('X', 1, 'same_data(es_event)', store => 'none')$$,
    $$SELECT es_drop_upcaster('X', 1, 'none')$$,
    $$SELECT es_snapshot('X', store => 'none')$$,
    $$SELECT es_verify_snapshots(store => 'none')$$,
    $$SELECT es_describe('none')$$,
    $$SELECT es_event_stats(store => 'none')$$,
    $$SELECT es_check_upcasters('none')$$]) statement;
SELECT refused(statement, 'VE004', 'bad argument: ' || statement) FROM unnest(ARRAY[
    $$SELECT es_create_aggregate('X', keep_snapshots => 0)$$,
    $$SELECT es_create_aggregate('X', keep_snapshots => -1)$$,
    $$SELECT es_snapshot(NULL)$$,
    $$SELECT es_snapshot('')$$,
    $$SELECT es_snapshot('X', '')$$,
    $$SELECT es_create_event_type(NULL)$$,
    $$SELECT es_create_event_type('')$$,
    $$SELECT es_create_event_type(repeat('x', 257))$$,
    $$SELECT es_create_event_type('X', 0)$$,
    $$SELECT es_create_event_type('X', compatibility => 'total')$$,
    $$SELECT es_create_event_type('X', compatibility => NULL)$$,
    $$SELECT es_drop_event_type(NULL)$$,
    $$SELECT es_set_strict(NULL)$$,
    $$SELECT es_create_upcaster(NULL, 1, 'same_data(es_event)')$$,
    $$SELECT es_create_upcaster('X', NULL, 'same_data(es_event)')$$,
    $$SELECT es_create_upcaster('X', -1, 'same_data(es_event)')$$,
    $$SELECT es_create_upcaster('X', 1, NULL)$$,
    $$SELECT es_create_upcaster('X', 1, 'same_data(es_event)', '')$$,
    $$SELECT es_drop_upcaster(NULL, 1)$$]) statement;
SELECT refused(statement, 'VE018', 'no event type: ' || statement) FROM unnest(ARRAY[
    $$SELECT es_create_event_type('X', json_schema => '[]')$$,
    $$SELECT es_create_event_type('X', json_schema => '{"type": "thing"}')$$,
    $$SELECT es_create_event_type('X', json_schema => '{"required": "a"}')$$,
    $$SELECT es_create_event_type('X', json_schema => '{"$ref": "http://example.com/a.json"}')$$,
    $$SELECT es_create_event_type('X', json_schema => '{"anyOf": [{"$ref": "#"}]}')$$,
    $$SELECT es_create_event_type('X', json_schema => '{"pattern": "("}')$$,
    $$SELECT es_create_event_type('X', json_schema => '{"$schema": "http://json-schema.org/draft-03/schema#"}')$$,
    $$SELECT es_create_event_type('Checked', 1)$$,
    $$SELECT es_create_event_type('Checked', compatibility => 'backward', json_schema => '{"type": "object", "required": ["a", "b"]}')$$,
    $$SELECT es_create_event_type('Checked', compatibility => 'forward', json_schema => '{}')$$,
    $$SELECT es_drop_event_type('X')$$,
    $$SELECT es_drop_event_type('Checked', 2)$$]) statement;
SELECT refused(statement, 'VE019', 'no upcaster: ' || statement) FROM unnest(ARRAY[
    $$SELECT es_create_upcaster('X', 1, 'text_of(es_event)')$$,
    $$SELECT es_create_upcaster('X', 1, 'now()')$$,
    $$SELECT es_create_upcaster('X', 1, 'same_data(es_event)', 'X')$$,
    $$SELECT es_drop_upcaster('X', 1)$$]) statement;
SELECT refused(statement, 'VE017', 'data that does not fit: ' || statement, true) FROM unnest(ARRAY[
    $$SELECT es_append('Order', 'checked', 'Checked', '{}')$$,
    $$SELECT es_append('Order', 'checked', 'Checked', '3')$$,
    $$SELECT es_append_events('Order', 'checked', '{Checked,Checked}', ARRAY['{"a": 1}', '{"b": 1}']::jsonb[])$$,
    $$SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "checked", "events": [{"event_type": "Checked"}]}]')$$,
    $$INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', 'checked', 'Checked', '{}')$$]) statement;
SELECT is(es_stream_version('Order', 'checked'), NULL, 'nothing was appended of what does not fit');


-- relays
CREATE SERVER bad_broker FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1');
SELECT refused(format('SELECT es_create_relay(%L, %L, options => %L)', 'r', 'bad_broker', options), 'VE009', 'options of a relay: ' || options)
FROM unnest(ARRAY['[]', '"raw"', '{"x": 1}', '{"envelope": "xml"}', '{"envelope": 1}', '{"delivery": "often"}', '{"key": "{x}"}',
    '{"aggregate_types": []}', '{"event_types": "Placed"}', '{"filter": "nothing"}', '{"transform": "pg_catalog.now"}',
    '{"filter": "a.b.c.d"}', '{"tombstones": 1}', '{"on_error": "retry"}', '{"dead_letter_topic": "x"}', '{"headers": {"a": 1}}',
    '{"source": "{"}', '{"upcast": "no"}', '{"lanes": 0}', '{"lanes": 17}', '{"lanes": 1.5}', '{"lanes": "2"}', '{"lanes": 1e400}',
    '{"send_after": "commit"}', '{"send_after": true}']) options;
SELECT refused(statement, 'VE009', statement) FROM unnest(ARRAY[
    $$SELECT es_create_relay('r', 'none')$$, $$SELECT es_create_relay('r', 'bad_broker', '{x}')$$,
    $$SELECT es_alter_relay('none')$$, $$SELECT es_seek_relay('none', 0)$$, $$SELECT es_replay_relay('none', 't', 0)$$,
    $$SELECT es_retry_dead_letter('none', 1)$$, $$SELECT es_discard_dead_letter('none', 1)$$]) statement;
SELECT refused(statement, 'VE004', statement) FROM unnest(ARRAY[
    $$SELECT es_create_relay('r', 'bad_broker', NULL)$$, $$SELECT es_create_relay('r', 'bad_broker', options => NULL)$$,
    $$SELECT es_create_relay('r', 'bad_broker', from_position => -1)$$,
    $$SELECT es_create_relay('r', 'bad_broker', to_position => 0)$$]) statement;
DROP SERVER bad_broker;

-- and afterwards everything still works
SELECT is((SELECT version FROM es_append('Order', '1', 'Placed', expected_version => 3)), 4::bigint, 'the next version is what it should be');
SELECT is(es_safe_position(), (SELECT max(global_position) FROM es.events), 'the safe position is that of the last event');

SELECT * FROM finish();
