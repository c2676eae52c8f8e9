-- The contract of every public function, type and view: names, arguments, results, properties, privileges.
BEGIN;
SELECT * FROM no_plan();

-- what users call: name, argument types, result, language, volatility, whether it returns a set
CREATE TEMPORARY TABLE contract (name name, arguments name[], result text, language name, volatility text, is_set boolean);
INSERT INTO contract VALUES
    ('es_create_store', '{name}', 'void', 'plpgsql', 'volatile', false),
    ('es_drop_store', '{name,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_grant', '{regrole,text,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_revoke', '{regrole,text,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_append', '{text,text,text,jsonb,bigint,jsonb,text,timestamp with time zone,integer,name}', 'record', 'c', 'volatile', false),
    ('es_append_events', '{text,text,text[],jsonb[],bigint,jsonb[],text[],timestamp with time zone[],integer[],name}', 'record', 'c', 'volatile', false),
    ('es_append_batch', '{jsonb,name}', 'setof record', 'c', 'volatile', true),
    ('es_import', '{text,boolean,name}', 'record', 'c', 'volatile', false),
    ('es_close_stream', '{text,text,text,bigint,name}', 'record', 'c', 'volatile', false),
    ('es_set_context', '{text,text,text,text}', 'void', 'c', 'volatile', false),
    ('es_caused_by', '{es_event}', 'void', 'sql', 'volatile', false),
    ('es_read_stream', '{text,text,bigint,bigint,boolean,name}', 'setof es_event', 'c', 'stable', true),
    ('es_read_all', '{bigint,bigint,text[],text[],name}', 'setof es_event', 'c', 'volatile', true),
    ('es_safe_position', '{}', 'bigint', 'c', 'volatile', false),
    ('es_wait', '{bigint,interval,name}', 'bigint', 'c', 'volatile', false),
    ('es_stream_version', '{text,text,name}', 'bigint', 'c', 'stable', false),
    ('es_create_aggregate', '{text,regprocedure,jsonb,integer,integer,name}', 'void', 'c', 'volatile', false),
    ('es_snapshot', '{text,text,name}', 'bigint', 'plpgsql', 'volatile', false),
    ('es_verify_snapshots', '{text,name}', 'setof record', 'sql', 'volatile', true),
    ('es_describe', '{name}', 'setof record', 'sql', 'volatile', true),
    ('es_event_stats', '{text,timestamp with time zone,timestamp with time zone,boolean,name}', 'setof record', 'sql', 'stable', true),
    ('es_state', '{text,text,bigint,timestamp with time zone,boolean,name}', 'jsonb', 'c', 'stable', false),
    ('es_explain_state', '{text,text,bigint,timestamp with time zone,boolean,name}', 'record', 'c', 'stable', false),
    ('es_merge_patch', '{jsonb,es_event}', 'jsonb', 'c', 'immutable', false),
    ('es_state_as', '{anyelement,text,text,bigint,timestamp with time zone,boolean,name}', 'anyelement', 'sql', 'stable', false),
    ('es_states', '{text,timestamp with time zone,boolean,name}', 'setof record', 'c', 'stable', true),
    ('es_history', '{text,text,bigint,bigint,name}', 'setof record', 'c', 'stable', true),
    ('es_diff', '{text,text,bigint,bigint,name}', 'jsonb', 'c', 'stable', false),
    ('es_replay', '{text,text,regprocedure,bigint,bigint,jsonb,name}', 'setof record', 'c', 'volatile', true),
    ('es_dry_run', '{text,regprocedure,jsonb,integer,name}', 'setof record', 'plpgsql', 'volatile', true),
    ('es_undo', '{text,text,bigint,text,bigint,name}', 'record', 'plpgsql', 'volatile', false),
    ('es_timeline', '{text,name}', 'setof record', 'sql', 'stable', true),
    ('es_causes', '{text,name}', 'setof record', 'sql', 'stable', true),
    ('es_effects', '{text,name}', 'setof record', 'sql', 'stable', true),
    ('es_position_at', '{timestamp with time zone,name}', 'bigint', 'plpgsql', 'stable', false),
    ('es_between', '{text,timestamp with time zone,timestamp with time zone,name}', 'setof es_event', 'plpgsql', 'stable', true),
    ('es_create_trace_indexes', '{name}', 'void', 'plpgsql', 'volatile', false),
    ('es_create_state_view', '{text,text,text,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_drop_state_view', '{text,text,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_create_event_type', '{text,integer,jsonb,text,text,name}', 'integer', 'plpgsql', 'volatile', false),
    ('es_drop_event_type', '{text,integer,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_set_strict', '{boolean,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_create_upcaster', '{text,integer,regprocedure,text,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_drop_upcaster', '{text,integer,name}', 'void', 'plpgsql', 'volatile', false),
    ('es_check_upcasters', '{name}', 'setof record', 'plpgsql', 'volatile', true),
    ('es_create_relay', '{name,name,text,bigint,bigint,jsonb,name}', 'void', 'c', 'volatile', false),
    ('es_alter_relay', '{name,text,jsonb}', 'void', 'c', 'volatile', false),
    ('es_seek_relay', '{name,bigint,timestamp with time zone}', 'bigint', 'c', 'volatile', false),
    ('es_replay_relay', '{name,text,bigint,bigint,name}', 'name', 'c', 'volatile', false),
    ('es_retry_dead_letter', '{name,bigint}', 'void', 'c', 'volatile', false),
    ('es_discard_dead_letter', '{name,bigint}', 'void', 'c', 'volatile', false),
    ('es_metrics', '{}', 'text', 'sql', 'volatile', false),
    ('es_drop_relay', '{name}', 'void', 'c', 'volatile', false),
    ('es_pause_relay', '{name}', 'void', 'c', 'volatile', false),
    ('es_resume_relay', '{name}', 'void', 'c', 'volatile', false);

SELECT has_function('public', name, arguments) FROM contract;
SELECT function_returns('public', name, arguments, result) FROM contract;
SELECT function_lang_is('public', name, arguments, language) FROM contract;
SELECT volatility_is('public', name, arguments, volatility) FROM contract;
SELECT isnt_definer('public', name, arguments) FROM contract;
SELECT isnt_strict('public', name, arguments) FROM contract;
SELECT isnt(obj_description(to_regprocedure(format('public.%I(%s)', name, array_to_string(arguments, ','))), 'pg_proc'), NULL,
            format('%s has a comment', name)) FROM contract;

-- drivers call by name: the names and defaults of the arguments are part of the contract
SELECT is(pg_get_function_arguments(to_regprocedure(format('public.%I(%s)', c.name, array_to_string(c.arguments, ',')))), a.arguments,
          format('the arguments of %s', c.name))
FROM contract c JOIN (VALUES
    ('es_create_store', 'store name DEFAULT ''es''::name'),
    ('es_drop_store', 'store name, confirm name'),
    ('es_grant', 'role regrole, privilege text, store name DEFAULT NULL::name'),
    ('es_revoke', 'role regrole, privilege text, store name DEFAULT NULL::name'),
    ('es_wait', 'after_position bigint, timeout interval DEFAULT ''00:00:30''::interval, store name DEFAULT NULL::name'),
    ('es_append', 'aggregate_type text, aggregate_id text, event_type text, data jsonb DEFAULT ''{}''::jsonb, expected_version bigint DEFAULT NULL::bigint, metadata jsonb DEFAULT NULL::jsonb, event_id text DEFAULT NULL::text, occurred_at timestamp with time zone DEFAULT NULL::timestamp with time zone, schema_version integer DEFAULT NULL::integer, store name DEFAULT NULL::name, OUT version bigint, OUT global_position bigint'),
    ('es_append_events', 'aggregate_type text, aggregate_id text, event_types text[], data jsonb[], expected_version bigint DEFAULT NULL::bigint, metadata jsonb[] DEFAULT NULL::jsonb[], event_ids text[] DEFAULT NULL::text[], occurred_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], schema_versions integer[] DEFAULT NULL::integer[], store name DEFAULT NULL::name, OUT version bigint, OUT global_position bigint'),
    ('es_append_batch', 'batch jsonb, store name DEFAULT NULL::name'),
    ('es_import', 'query text, clamp boolean DEFAULT false, store name DEFAULT NULL::name, OUT imported bigint, OUT skipped bigint'),
    ('es_close_stream', 'aggregate_type text, aggregate_id text, reason text DEFAULT NULL::text, expected_version bigint DEFAULT NULL::bigint, store name DEFAULT NULL::name, OUT version bigint, OUT global_position bigint'),
    ('es_set_context', 'user_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, causation_id text DEFAULT NULL::text, traceparent text DEFAULT NULL::text'),
    ('es_read_stream', 'aggregate_type text, aggregate_id text, from_version bigint DEFAULT NULL::bigint, max_count bigint DEFAULT NULL::bigint, backward boolean DEFAULT false, store name DEFAULT NULL::name'),
    ('es_read_all', 'after_position bigint DEFAULT 0, max_count bigint DEFAULT 1000, aggregate_types text[] DEFAULT NULL::text[], event_types text[] DEFAULT NULL::text[], store name DEFAULT NULL::name'),
    ('es_create_relay', 'name name, server name, topic text DEFAULT ''{store}.{aggregate_type}''::text, from_position bigint DEFAULT 0, to_position bigint DEFAULT NULL::bigint, options jsonb DEFAULT ''{}''::jsonb, store name DEFAULT NULL::name'),
    ('es_alter_relay', 'name name, topic text DEFAULT NULL::text, options jsonb DEFAULT NULL::jsonb'),
    ('es_seek_relay', 'name name, "position" bigint DEFAULT NULL::bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone'),
    ('es_replay_relay', 'name name, topic text, from_position bigint, to_position bigint DEFAULT NULL::bigint, replay name DEFAULT NULL::name'),
    ('es_retry_dead_letter', 'relay name, "position" bigint'),
    ('es_discard_dead_letter', 'relay name, "position" bigint'),
    ('es_create_event_type', 'event_type text, schema_version integer DEFAULT NULL::integer, json_schema jsonb DEFAULT NULL::jsonb, compatibility text DEFAULT ''none''::text, description text DEFAULT NULL::text, store name DEFAULT NULL::name'),
    ('es_drop_event_type', 'event_type text, schema_version integer DEFAULT NULL::integer, store name DEFAULT NULL::name'),
    ('es_set_strict', 'strict boolean, store name DEFAULT NULL::name'),
    ('es_create_upcaster', 'event_type text, from_version integer, function regprocedure, to_type text DEFAULT NULL::text, store name DEFAULT NULL::name'),
    ('es_drop_upcaster', 'event_type text, from_version integer, store name DEFAULT NULL::name'),
    ('es_check_upcasters', 'store name DEFAULT NULL::name'),
    ('es_safe_position', ''),
    ('es_stream_version', 'aggregate_type text, aggregate_id text, store name DEFAULT NULL::name'),
    ('es_create_aggregate', 'aggregate_type text, reducer regprocedure DEFAULT NULL::regprocedure, initial jsonb DEFAULT ''{}''::jsonb, snapshot_every integer DEFAULT 100, keep_snapshots integer DEFAULT 10, store name DEFAULT NULL::name'),
    ('es_snapshot', 'aggregate_type text, aggregate_id text DEFAULT NULL::text, store name DEFAULT NULL::name'),
    ('es_verify_snapshots', 'aggregate_type text DEFAULT NULL::text, store name DEFAULT NULL::name'),
    ('es_describe', 'store name DEFAULT NULL::name'),
    ('es_event_stats', 'aggregate_type text DEFAULT NULL::text, from_time timestamp with time zone DEFAULT NULL::timestamp with time zone, to_time timestamp with time zone DEFAULT NULL::timestamp with time zone, estimate boolean DEFAULT false, store name DEFAULT NULL::name'),
    ('es_states', 'aggregate_type text, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, occurred boolean DEFAULT false, store name DEFAULT NULL::name'),
    ('es_history', 'aggregate_type text, aggregate_id text, from_version bigint DEFAULT NULL::bigint, to_version bigint DEFAULT NULL::bigint, store name DEFAULT NULL::name'),
    ('es_diff', 'aggregate_type text, aggregate_id text, from_version bigint, to_version bigint DEFAULT NULL::bigint, store name DEFAULT NULL::name'),
    ('es_undo', 'aggregate_type text, aggregate_id text, to_version bigint, reason text DEFAULT NULL::text, expected_version bigint DEFAULT NULL::bigint, store name DEFAULT NULL::name, OUT version bigint, OUT global_position bigint'),
    ('es_state', 'aggregate_type text, aggregate_id text, version bigint DEFAULT NULL::bigint, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, occurred boolean DEFAULT false, store name DEFAULT NULL::name')
) a (name, arguments) USING (name);

SELECT is(pg_get_function_result('es_append_batch(jsonb,name)'::regprocedure),
          'TABLE(aggregate_type text, aggregate_id text, version bigint, global_position bigint)', 'the result of es_append_batch');

-- a set can be longer than the planner thinks; a function that writes is not for parallel workers
SELECT is(p.proparallel, CASE c.volatility WHEN 'volatile' THEN 'u' WHEN 'immutable' THEN 's' ELSE 'r' END::"char", format('%s and parallel workers', c.name))
FROM contract c JOIN pg_proc p ON p.oid = to_regprocedure(format('public.%I(%s)', c.name, array_to_string(c.arguments, ',')));

-- what an event is
SELECT is(string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum),
          'global_position bigint, aggregate_type text, aggregate_id text, version bigint, event_id text, event_type text, '
          'schema_version integer, data jsonb, metadata jsonb, user_id text, correlation_id text, causation_id text, '
          'traceparent text, recorded_at timestamp with time zone, occurred_at timestamp with time zone, transaction xid8',
          'the columns of es_event')
FROM pg_attribute WHERE attrelid = 'es_event'::regclass AND attnum > 0;

SELECT has_view('public', 'es_workers', 'there is a view of the workers');
SELECT has_view('public', 'es_relays', 'there is a view of the relays');
SELECT columns_are('public', 'es_progress', ARRAY['pid', 'database', 'command', 'store', 'done', 'total', 'started_at']);
SELECT has_view('public', 'es_dead_letters', 'there is a view of the dead letters');
SELECT columns_are('public', 'es_dead_letters', ARRAY['relay', 'store', 'position', 'event_id', 'reason', 'at']);
SELECT columns_are('public', 'es_relays', ARRAY['relay', 'store', 'server', 'broker_type', 'broker', 'topic', 'state', 'position',
    'safe_position', 'lag_events', 'lag_seconds', 'sent', 'retries', 'last_error', 'last_error_at', 'pid', 'owner', 'delivery',
    'to_position', 'throughput', 'options', 'lanes']);
SELECT has_view('public', 'es_relay_lanes', 'there is a view of the lanes of relays');
SELECT columns_are('public', 'es_relay_lanes', ARRAY['relay', 'lane', 'state', 'position', 'lag_events', 'lag_seconds', 'sent',
    'throughput', 'retries', 'last_error', 'last_error_at', 'pid']);
SELECT columns_are('public', 'es_workers', ARRAY['pid', 'kind', 'database', 'id', 'state', 'started_at', 'failures',
                                                 'retry_at', 'last_error_at', 'last_error']);

-- names and places, for all that the extension has or will have
CREATE TEMPORARY VIEW members AS
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'eventsrc' AND d.deptype = 'e';
SELECT is_empty($$
    SELECT i.identity FROM members m, pg_identify_object(m.classid, m.objid, 0) i
    WHERE i.schema IS NOT NULL AND i.schema <> 'eventsrc' AND i.identity NOT LIKE '%[]'
      AND NOT (i.type IN ('function', 'view', 'type', 'composite type', 'aggregate') AND coalesce(i.name, split_part(i.identity, '(', 1)) ~ '^(public\.)?es_')
    $$, 'in the extension''s schema there is nothing but es_*');
SELECT set_eq($$
    SELECT DISTINCT i.schema FROM members m, pg_identify_object(m.classid, m.objid, 0) i WHERE i.schema IS NOT NULL
    $$, ARRAY['public', 'eventsrc'], 'the extension has objects in its own schema and in eventsrc only');
SELECT is_empty($$
    SELECT i.type, i.identity FROM members m, pg_identify_object(m.classid, m.objid, 0) i
    WHERE m.classid IN ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass, 'pg_am'::regclass)
      AND NOT (m.classid = 'pg_type'::regclass AND EXISTS (
              SELECT FROM pg_type t WHERE t.oid = m.objid AND (t.typelem <> 0 OR t.typrelid IN (SELECT oid FROM pg_class WHERE relkind <> 'c'))))
      AND obj_description(m.objid, m.classid::regclass::name) IS NULL
      AND NOT (m.classid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = m.objid) IN ('c', 'i', 't'))
    $$, 'every function, type, table, view, schema and access method has a comment');

-- what PUBLIC may do
SELECT ok(has_function_privilege('pg_monitor', p.oid, 'EXECUTE'), format('everybody may call %s', p.proname))
FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE p.pronamespace <> 'eventsrc'::regnamespace;
SELECT schema_privs_are('eventsrc', 'public', ARRAY['USAGE'], 'PUBLIC may look into the schema eventsrc, no more');
SELECT is_empty($$
    SELECT c.oid::regclass, a.privilege_type FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
        aclexplode(c.relacl) a
    WHERE a.grantee = 0 AND a.privilege_type <> 'SELECT'
    $$, 'PUBLIC may write nothing');
SELECT is_empty($$
    SELECT c.oid::regclass FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
        aclexplode(c.relacl) a
    WHERE a.grantee = 0 AND c.relkind NOT IN ('v')
    $$, 'PUBLIC may read views only');
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
    WHERE p.prosecdef AND coalesce(p.proconfig::text, '') NOT LIKE '%search_path=pg_catalog%'
    $$, 'a function with its owner''s rights has a search_path of its own');

-- the settings
SELECT is(current_setting('eventsrc.store'), 'es', 'the store is es unless set');
SELECT isnt(s.short_desc, NULL, format('%s has a description', s.name)) FROM pg_settings s WHERE s.name LIKE 'eventsrc.%';

SELECT * FROM finish();
ROLLBACK;
