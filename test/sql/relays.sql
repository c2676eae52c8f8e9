-- Relays, as far as no broker is needed: options, privileges, bad input.
\set VERBOSITY default
SET client_min_messages = warning;
CREATE ROLE relay_admin;
CREATE ROLE relay_user;
CREATE ROLE relay_other;
SET client_min_messages = notice;

-- CREATE SERVER: what librdkafka knows, checked by librdkafka
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc;
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc OPTIONS ("bootstrap.servers" 'localhost:1');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'carrier pigeon');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.server" 'localhost:1');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', nonsense 'x');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "linger.ms" 'soon');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "compression.codec" 'zip');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "socket.timeout.ms" '1');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "max.in.flight" '6');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', partitioner 'random');
-- what the relay sets, what is of no use to it
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', acks '1');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "enable.idempotence" 'true');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "plugin.library.paths" 'monitoring');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "group.id" 'g');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', dr_msg_cb 'x');
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "sasl.oauthbearer.token.endpoint.url" 'file:///etc/passwd');
-- credentials belong in user mappings; the message does not show them
CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "sasl.password" 'hush');
SELECT count(*) AS servers FROM pg_foreign_server WHERE srvname LIKE 'relay%';

CREATE SERVER relay_kafka FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1', "linger.ms" '1', "compression.codec" 'lz4',
             "security.protocol" 'plaintext', "partitioner" 'murmur2');
ALTER SERVER relay_kafka OPTIONS (ADD "batch.sizes" '1');
ALTER SERVER relay_kafka OPTIONS (DROP "bootstrap.servers");
ALTER SERVER relay_kafka OPTIONS (SET "linger.ms" '5');
CREATE USER MAPPING FOR relay_user SERVER relay_kafka OPTIONS ("bootstrap.servers" 'elsewhere:1');
CREATE USER MAPPING FOR relay_user SERVER relay_kafka OPTIONS ("sasl.pasword" 'hush');
CREATE USER MAPPING FOR relay_user SERVER relay_kafka
    OPTIONS ("sasl.mechanism" 'PLAIN', "sasl.username" 'u', "sasl.password" 'hush');
-- nothing else of the foreign-data machinery
ALTER FOREIGN DATA WRAPPER eventsrc OPTIONS (x '1');
CREATE FOREIGN TABLE relay_table (a int) SERVER relay_kafka OPTIONS (x '1');

-- who may make servers, and have the server process read files and run programs
SET ROLE relay_admin;
CREATE SERVER relay_mine FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1');
RESET ROLE;
GRANT USAGE ON FOREIGN DATA WRAPPER eventsrc TO relay_admin;
SET ROLE relay_admin;
CREATE SERVER relay_mine FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1');
ALTER SERVER relay_mine OPTIONS (ADD "ssl.ca.location" '/etc/passwd');
ALTER SERVER relay_mine OPTIONS (ADD "sasl.kerberos.kinit.cmd" 'id');
ALTER SERVER relay_mine OPTIONS (ADD "ssl.engine.location" '/tmp/x.so');
CREATE USER MAPPING FOR relay_admin SERVER relay_mine OPTIONS ("ssl.key.location" '/etc/passwd');
RESET ROLE;
GRANT pg_read_server_files TO relay_admin;
SET ROLE relay_admin;
ALTER SERVER relay_mine OPTIONS (ADD "ssl.ca.location" '/etc/passwd');
ALTER SERVER relay_mine OPTIONS (DROP "ssl.ca.location");
-- what stands in the command that librdkafka has a shell run
ALTER SERVER relay_mine OPTIONS (ADD "sasl.kerberos.keytab" '$(id)');
ALTER SERVER relay_mine OPTIONS (ADD "sasl.kerberos.principal" 'x; id');
ALTER SERVER relay_mine OPTIONS (ADD "sasl.kerberos.service.name" 'x; id');
CREATE USER MAPPING FOR relay_admin SERVER relay_mine OPTIONS ("sasl.kerberos.principal" 'x; id');
RESET ROLE;

-- es_create_relay: bad input leaves nothing behind
SELECT es_create_store('relay_store');
SELECT version FROM es_append('Order', '1', 'Placed', store => 'relay_store');
SELECT es_create_relay(NULL, 'relay_kafka');
SELECT es_create_relay('', 'relay_kafka');
SELECT es_create_relay('r', NULL);
SELECT es_create_relay('r', 'nowhere', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', store => 'nowhere');
SELECT es_create_relay('r', 'relay_kafka', NULL, store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', '', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', 'a topic', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', 'täglich', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', '{store}.{aggregate}', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', '{store', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', 'store}', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', '..', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', repeat('x', 250), store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', from_position => -1, store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', from_position => 0, to_position => 0, store => 'relay_store');
-- what is sent: each option is checked
CREATE FUNCTION relay_even(event es_event) RETURNS boolean LANGUAGE sql AS $$ SELECT event.version % 2 = 0 $$;
CREATE FUNCTION relay_slim(event es_event) RETURNS jsonb LANGUAGE sql AS $$ SELECT event.data - 'secret' $$;
CREATE FUNCTION relay_all(event es_event) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT event.data $$;
CREATE FUNCTION relay_refused(options jsonb, topic text DEFAULT 't') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d text;
    h text;
BEGIN
    PERFORM es_create_relay('r', 'relay_kafka', topic, options => options, store => 'relay_store');
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(d, ''), nullif(h, ''));
END $$;
SELECT relay_refused(options) FROM unnest(ARRAY[
    NULL, '[]', '1', '{"envelop": "raw"}', '{"x": 1}',
    '{"envelope": "avro"}', '{"envelope": 1}', '{"envelope": ""}',
    '{"delivery": "at_most_once"}',
    '{"key": "{aggregate}"}', '{"key": "}"}', '{"key": ["{store}"]}',
    '{"aggregate_types": "Order"}', '{"aggregate_types": []}', '{"event_types": ["Placed", 1]}', '{"event_types": {"Placed": "x"}}',
    '{"filter": "relay_none"}', '{"filter": "nowhere.relay_even"}', '{"filter": "relay_slim"}', '{"filter": true}',
    '{"transform": "relay_even"}', '{"transform": "relay_all"}',
    '{"tombstones": "yes"}', '{"upcast": 1}',
    '{"on_error": "ignore"}', '{"dead_letter_topic": "dead"}',
    '{"on_error": "dead_letter", "dead_letter_topic": "a topic"}',
    '{"headers": ["tenant"]}', '{"headers": {"tenant": "{tenant}"}}', '{"headers": {"tenant": 1}}', '{"headers": {"": "x"}}',
    '{"headers": {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6", "g": "7", "h": "8", "i": "9", "j": "10", "k": "11", "l": "12", "m": "13"}}',
    '{"source": "https://shop.example/a b"}', '{"source": "{nothing}"}',
    '{"lanes": 0}', '{"lanes": 17}', '{"lanes": 2.5}', '{"lanes": "2"}', '{"lanes": 1e400}', '{"lane": 2}',
    '{"send_after": "commit"}', '{"send_after": 1}']::jsonb[]) options;
-- headers that the envelope writes itself
SELECT relay_refused(options) FROM unnest(ARRAY[
    '{"headers": {"position": "1"}}', '{"envelope": "raw", "headers": {"tenant": "x", "event-type": "x"}}',
    '{"envelope": "debezium", "headers": {"id": "x"}}', '{"envelope": "cloudevents", "headers": {"content-type": "x"}}',
    '{"envelope": "cloudevents_binary", "headers": {"ce_type": "x"}}',
    '{"envelope": "cloudevents_binary", "headers": {"ce_specversion": "2.0"}}',
    '{"envelope": "cloudevents_binary", "headers": {"cloudEvents:source": "x"}}']::jsonb[]) options;
SELECT relay_refused('{}', topic) FROM unnest(ARRAY['{data}', '{aggregate_id', 'a/b']) topic;
SELECT count(*) AS relays FROM es_relays;
-- whose functions: the owner must be able to call them
REVOKE EXECUTE ON FUNCTION relay_even(es_event) FROM PUBLIC;
GRANT USAGE ON FOREIGN SERVER relay_kafka TO relay_admin;
GRANT USAGE ON SCHEMA relay_store TO relay_admin;
GRANT SELECT ON relay_store.events TO relay_admin;
SET ROLE relay_admin;
SELECT relay_refused('{"filter": "relay_even"}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION relay_even(es_event) TO relay_admin;
BEGIN;
SET LOCAL ROLE relay_admin;
SELECT es_create_relay('r', 'relay_kafka', 'events.{aggregate_type}.{user_id}', options =>
    '{"filter": "relay_even", "transform": "relay_slim", "envelope": "cloudevents", "key": null, "headers": {"tenant": "{store}"},
      "aggregate_types": ["Order"], "on_error": "dead_letter", "dead_letter_topic": "dead.{store}"}', store => 'relay_store');
SELECT topic, delivery, options, state, last_error FROM es_relays;
-- altering: named options change, null takes one away, the rest stays
SELECT es_alter_relay('r', options => '{"envelope": "raw", "transform": null, "delivery": "at_least_once"}');
SELECT topic, delivery, options FROM es_relays;
SELECT es_alter_relay('r', topic => 'elsewhere');
SELECT topic, delivery, options FROM es_relays;
SAVEPOINT s;
SELECT es_alter_relay('r', topic => 'a topic');
ROLLBACK TO s;
SELECT es_alter_relay('r', options => '{"headers": {"position": "1"}}');
ROLLBACK TO s;
SELECT es_alter_relay('r', options => '{"headers": {"ce_type": "x", "key": "x"}}');
SELECT es_alter_relay('r', options => '{"envelope": "cloudevents_binary"}');
ROLLBACK TO s;
SELECT es_alter_relay('r', options => '{"on_error": null}');
ROLLBACK TO s;
SELECT es_alter_relay('r', options => '"raw"');
ROLLBACK TO s;
SELECT es_alter_relay('none');
ROLLBACK TO s;
-- what it calls goes away
RESET ROLE;
REVOKE EXECUTE ON FUNCTION relay_even(es_event) FROM relay_admin;
SELECT state, last_error FROM es_relays;
GRANT EXECUTE ON FUNCTION relay_even(es_event) TO relay_admin;
ALTER FUNCTION relay_even(es_event) RENAME TO relay_odd;
SELECT state, last_error FROM es_relays;
ALTER FUNCTION relay_odd(es_event) RENAME TO relay_even;
SELECT state, last_error FROM es_relays;
-- seeking
SET LOCAL ROLE relay_admin;
SAVEPOINT s;
SELECT es_seek_relay('r');
ROLLBACK TO s;
SELECT es_seek_relay('r', 1, now());
ROLLBACK TO s;
SELECT es_seek_relay('r', -1);
ROLLBACK TO s;
SELECT es_seek_relay('r', es_safe_position()) = es_safe_position() AS at_the_end;
SELECT position = safe_position AS at_the_end, lag_events FROM es_relays;
SELECT es_seek_relay('r', at => '2000-01-01') < es_safe_position() AS before;
SELECT lag_events FROM es_relays;
SELECT es_seek_relay('r', at => 'infinity') = es_safe_position() AS at_the_end;
-- replaying a range: a relay that ends by itself
SAVEPOINT s;
SELECT es_replay_relay('r', 'side', NULL);
ROLLBACK TO s;
SELECT es_replay_relay('r', 'side', 0, 0);
ROLLBACK TO s;
SELECT es_replay_relay('r', NULL, 0);
ROLLBACK TO s;
SELECT es_replay_relay('r', 'side', 0);
SELECT es_replay_relay('r', 'side.{event_type}', 0, 1);
SELECT es_replay_relay('r', 'side', 0, 1, 'mine');
SELECT relay, topic, to_position IS NOT NULL AS ends, delivery, options FROM es_relays ORDER BY relay;
RESET ROLE;
UPDATE eventsrc.relays SET position = to_position WHERE to_position IS NOT NULL;
SELECT relay, state, lag_events FROM es_relays ORDER BY relay;
-- dead letters
INSERT INTO eventsrc.relay_dead_letters (relay, position, event_id, reason)
SELECT r.id, e.global_position, e.event_id, 'too large' FROM eventsrc.relays r, relay_store.events e WHERE r.name = 'r';
SELECT global_position AS dead FROM relay_store.events \gset
SELECT relay, store, reason FROM es_dead_letters;
SET LOCAL ROLE relay_other;
SELECT count(*) AS seen FROM es_dead_letters;
SAVEPOINT s;
SELECT es_retry_dead_letter('r', :dead);
ROLLBACK TO s;
SELECT es_discard_dead_letter('r', :dead);
ROLLBACK TO s;
RESET ROLE;
SET LOCAL ROLE relay_admin;
SAVEPOINT s;
SELECT es_retry_dead_letter('r', NULL);
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT es_retry_dead_letter('r', :dead + 1);
\set VERBOSITY default
ROLLBACK TO s;
SELECT es_retry_dead_letter('r', :dead);
SELECT es_retry_dead_letter('r', :dead);
SELECT relay LIKE 'r retry %' AS retries, topic, to_position = :dead AS ends, options FROM es_relays
WHERE relay NOT IN ('r', 'mine') AND relay NOT LIKE '%replay%';
SELECT es_discard_dead_letter('r', :dead);
SELECT count(*) AS left FROM es_dead_letters;
SELECT es_drop_relay('r');
SELECT count(*) AS retries FROM es_relays WHERE relay LIKE '% retry %';
ROLLBACK;
-- lanes: as many as the relay is made with; another number waits for all of them
BEGIN;
SELECT es_create_relay('r', 'relay_kafka', options => '{"lanes": 3}', store => 'relay_store');
SELECT relay, lanes, options, state, lag_events FROM es_relays;
SELECT relay, lane, state, position, lag_seconds > 0 AS behind, sent, throughput, retries, last_error, pid FROM es_relay_lanes
ORDER BY lane;
SELECT sum(lag_events) FROM es_relay_lanes;
SELECT count(*) AS lines, count(DISTINCT substring(line FROM 'lane="(.)"')) AS lanes
FROM regexp_split_to_table(es_metrics(), E'\n') line WHERE line LIKE 'eventsrc_relay_lane_position{%';
SELECT es_alter_relay('r', options => '{"lanes": 2}');
SELECT lanes, options FROM es_relays;
SELECT es_seek_relay('r', es_safe_position()) = es_safe_position() AS at_the_end;
SELECT count(*) AS lanes, bool_and(position = es_safe_position()) AS at_the_end, sum(lag_events) AS lag_events FROM es_relay_lanes;
SELECT es_pause_relay('r');
SELECT lane, state FROM es_relay_lanes ORDER BY lane;
SELECT es_replay_relay('r', 'side', 0, 1, 'again');
SELECT relay, lanes FROM es_relays ORDER BY relay;
-- the hindmost lane is what counts
UPDATE eventsrc.relay_lanes SET position = 0 WHERE lane = 2;
SELECT position FROM es_relays WHERE relay = 'r';
-- a dead letter is sent once more by one lane
INSERT INTO eventsrc.relay_dead_letters (relay, position, event_id, reason)
SELECT r.id, e.global_position, e.event_id, 'too large' FROM eventsrc.relays r, relay_store.events e WHERE r.name = 'r';
SELECT es_retry_dead_letter('r', position) FROM es_dead_letters;
SELECT relay LIKE 'r retry %' AS retries, lanes, options FROM es_relays WHERE relay NOT IN ('r', 'again');
SELECT es_drop_relay('r'), es_drop_relay('again');
SELECT count(*) AS lanes FROM eventsrc.relay_lanes;
-- what only synchronous standbys have is not sent where there is none
SELECT es_create_relay('r', 'relay_kafka', options => '{"send_after": "replicated"}', store => 'relay_store');
SELECT state, last_error FROM es_relays;
SELECT es_alter_relay('r', options => '{"send_after": "flush"}');
SELECT state, last_error FROM es_relays;
ROLLBACK;
DROP FUNCTION relay_even(es_event);
DROP FUNCTION relay_slim(es_event);
DROP FUNCTION relay_all(es_event);
DROP FUNCTION relay_refused(jsonb, text);
REVOKE ALL ON FOREIGN SERVER relay_kafka FROM relay_admin;
REVOKE ALL ON SCHEMA relay_store FROM relay_admin;
REVOKE ALL ON relay_store.events FROM relay_admin;
-- metrics: Prometheus' text format, labels escaped
BEGIN;
SELECT es_create_relay(E'a "b"\\c\nd', 'relay_kafka', store => 'relay_store');
SELECT es_pause_relay(E'a "b"\\c\nd');
SELECT regexp_replace(line, ' [0-9.e+-]+$', ' N') AS line
FROM regexp_split_to_table(es_metrics(), E'\n') line
WHERE line ~ 'eventsrc_(relay|safe|positions|workers)' AND line !~ 'kind="(database|launcher)"' AND line !~ 'lag_seconds\{';
SELECT bool_and(line ~ '^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z]+="([^"\\]|\\.)*",?)+\})? [-0-9.e+]+)?$') AS well_formed
FROM regexp_split_to_table(es_metrics(), E'\n') line;
ROLLBACK;
SET client_min_messages = warning;
CREATE FOREIGN DATA WRAPPER relay_other;
CREATE SERVER relay_files FOREIGN DATA WRAPPER relay_other;
SET client_min_messages = notice;
SELECT es_create_relay('r', 'relay_files', store => 'relay_store');
BEGIN READ ONLY;
SELECT es_create_relay('r', 'relay_kafka', store => 'relay_store');
ROLLBACK;
\set VERBOSITY terse
DO $$
BEGIN
    PERFORM es_create_relay('r', 'relay_kafka', from_position => 1000000000000, store => 'relay_store');
EXCEPTION WHEN SQLSTATE 'VE005' THEN
    RAISE NOTICE '%', SQLERRM;
END $$;
\set VERBOSITY default
SELECT count(*) AS relays FROM es_relays;

-- privileges: USAGE on the server, SELECT on the events
SET ROLE relay_user;
SELECT es_create_relay('r', 'relay_kafka', store => 'relay_store');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER relay_kafka TO relay_user, relay_other;
SET ROLE relay_user;
SELECT es_create_relay('r', 'relay_kafka', store => 'relay_store');
RESET ROLE;
GRANT USAGE ON SCHEMA relay_store TO relay_user;
SET ROLE relay_user;
SELECT es_create_relay('r', 'relay_kafka', store => 'relay_store');
RESET ROLE;
GRANT SELECT ON relay_store.events TO relay_user;

-- a relay, and what it shows before its worker runs
BEGIN;
SET LOCAL ROLE relay_user;
SELECT es_create_relay('r', 'relay_kafka', '{store}-{aggregate_type}.{event_type}_1', store => 'relay_store');
SELECT es_create_relay('from now', 'relay_kafka', from_position => NULL, store => 'relay_store');
SELECT relay, store, server, broker_type, broker, topic, state, position = es_safe_position() AS now,
       lag_events, lag_seconds > 0 AS behind, sent, retries, last_error, pid, owner
FROM es_relays ORDER BY relay;
-- a name that is taken
SAVEPOINT s;
SELECT es_create_relay('r', 'relay_kafka', store => 'relay_store');
ROLLBACK TO s;
-- a store from which relays send is not dropped
RESET ROLE;
\set SHOW_CONTEXT never
SELECT es_drop_store('relay_store', confirm => 'relay_store');
ROLLBACK TO s;
SELECT es_drop_relay(relay) FROM es_relays WHERE relay = 'from now';
SELECT es_drop_store('relay_store', confirm => 'relay_store');
\set SHOW_CONTEXT errors
ROLLBACK TO s;
SET LOCAL ROLE relay_other;
SELECT eventsrc.relays_of('relay_store'), eventsrc.relays_of('other') IS NULL AS none;
ROLLBACK TO s;
-- pausing and resuming, any number of times
SELECT es_pause_relay('r');
SELECT es_pause_relay('r');
SELECT state FROM es_relays WHERE relay = 'r';
SELECT es_resume_relay('r');
SELECT es_resume_relay('r');
SELECT state FROM es_relays WHERE relay = 'r';
-- only for its owner
SET LOCAL ROLE relay_other;
SELECT count(*) AS seen FROM es_relays;
SAVEPOINT s;
SELECT es_drop_relay('r');
ROLLBACK TO s;
SELECT es_pause_relay('r');
ROLLBACK TO s;
SELECT es_resume_relay('r');
ROLLBACK TO s;
SELECT * FROM eventsrc.relays;
ROLLBACK TO s;
RESET ROLE;
GRANT pg_read_all_stats TO relay_other;
SET LOCAL ROLE relay_other;
SELECT count(*) AS seen FROM es_relays;
RESET ROLE;
-- what row security runs for the relay's owner leaves nothing in the session of who looks
CREATE FUNCTION relay_tamper() RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM set_config('application_name', 'tampered', false); RETURN true; END $$;
ALTER TABLE relay_store.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY relay_tamper ON relay_store.events TO relay_user USING (relay_tamper());
SELECT lag_events, lag_seconds > 0 AS behind FROM es_relays WHERE relay = 'r';
SELECT current_setting('application_name') = 'tampered' AS tampered;
DROP POLICY relay_tamper ON relay_store.events;
ALTER TABLE relay_store.events DISABLE ROW LEVEL SECURITY;
-- what it needs goes away
REVOKE SELECT ON relay_store.events FROM relay_user;
SELECT state, last_error FROM es_relays WHERE relay = 'r';
GRANT SELECT ON relay_store.events TO relay_user;
REVOKE USAGE ON FOREIGN SERVER relay_kafka FROM relay_user;
SELECT state, last_error FROM es_relays WHERE relay = 'r';
GRANT USAGE ON FOREIGN SERVER relay_kafka TO relay_user;
ALTER SERVER relay_kafka RENAME TO relay_kafka2;
SELECT state, broker_type, last_error FROM es_relays WHERE relay = 'r';
ALTER SERVER relay_kafka2 RENAME TO relay_kafka;
ALTER SCHEMA relay_store RENAME TO relay_store2;
SELECT state, lag_events, last_error FROM es_relays WHERE relay = 'r';
ALTER SCHEMA relay_store2 RENAME TO relay_store;
SELECT state, last_error FROM es_relays WHERE relay = 'r';
-- a copy of the database does not send until it is told to
UPDATE eventsrc.relays SET database = 1 WHERE name = 'r';
SELECT state, last_error FROM es_relays WHERE relay = 'r';
SELECT es_resume_relay('r');
UPDATE eventsrc.relays SET system_identifier = 1 WHERE name = 'r';
SELECT state, last_error FROM es_relays WHERE relay = 'r';
SELECT es_resume_relay('r');
SELECT state, last_error FROM es_relays WHERE relay = 'r';
-- dropping
SET LOCAL ROLE relay_user;
SELECT es_drop_relay('r');
SAVEPOINT s;
SELECT es_drop_relay('r');
ROLLBACK TO s;
SELECT es_drop_relay(NULL);
ROLLBACK TO s;
SELECT relay FROM es_relays;
ROLLBACK;

-- credentials are in no view that others can read
SELECT cardinality(umoptions) AS options
FROM pg_user_mappings WHERE srvname = 'relay_kafka' AND usename = 'relay_user';
SET ROLE relay_other;
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'relay_kafka' AND usename = 'relay_user';
RESET ROLE;

-- the plain names of SQLSTATEs
\set VERBOSITY sqlstate
SELECT es_create_relay('r', 'nowhere', store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', '{x}', store => 'relay_store');
SELECT es_create_relay(NULL, 'relay_kafka');
SELECT es_create_relay('r', 'relay_kafka', from_position => -1, store => 'relay_store');
SELECT es_create_relay('r', 'relay_kafka', store => 'nowhere');
SELECT es_drop_relay('nowhere');
SELECT es_pause_relay('nowhere');
SELECT es_resume_relay('');
CREATE SERVER relay_bad FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', nonsense 'x');

\set VERBOSITY default
SET client_min_messages = warning;
SELECT es_drop_store('relay_store', confirm => 'relay_store');
DROP FOREIGN DATA WRAPPER relay_other CASCADE;
DROP SERVER relay_kafka CASCADE;
DROP SERVER relay_mine CASCADE;
REVOKE USAGE ON FOREIGN DATA WRAPPER eventsrc FROM relay_admin;
DROP ROLE relay_admin, relay_user, relay_other;
