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
