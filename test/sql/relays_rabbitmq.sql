-- Relays to RabbitMQ, as far as no broker is needed: options, privileges, templates.
SET client_min_messages = warning;
CREATE ROLE rabbit_admin;
SET client_min_messages = notice;

-- CREATE SERVER
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', hartbeat '5');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', nonsense 'x');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', "bootstrap.servers" 'x');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'one,,two');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', port '0');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', port '5672x');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', "window" '32769');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', heartbeat '');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', tls 'perhaps');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', fence '1s');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', declare 'all');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', declare 'exchange');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', declare 'queues');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', queues 'orders');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', declare 'queues', queues '=x');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', queue_type 'lazy');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', tls_verify_peer 'off');
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', tls 'on', tls_key '/k.pem');
DO $$
BEGIN
    EXECUTE format('CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type %L, host %L, exchange %L)',
                   'rabbitmq', 'localhost', repeat('x', 256));
EXCEPTION WHEN fdw_invalid_attribute_value THEN
    RAISE NOTICE '%', SQLERRM;
END $$;
-- credentials belong in user mappings, the rest does not; the messages do not show them
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', password 'hush');
SELECT count(*) AS servers FROM pg_foreign_server WHERE srvname LIKE 'rabbit%';
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc
    OPTIONS (type 'rabbitmq', host 'one, two', port '5673', vhost 'v', exchange 'Größe', exchange_type 'fanout', declare 'queues',
             queues 'orders=es.Order, audit', queue_type 'stream', "window" '100', heartbeat '5', connect_timeout '2',
             tls 'on', tls_verify_hostname 'off', fence 'off');
ALTER SERVER rabbit OPTIONS (DROP host);
ALTER SERVER rabbit OPTIONS (SET type 'kafka');
CREATE USER MAPPING FOR CURRENT_USER SERVER rabbit OPTIONS (host 'elsewhere');
CREATE USER MAPPING FOR CURRENT_USER SERVER rabbit OPTIONS ("user" 'u', passwort 'hush');
CREATE USER MAPPING FOR CURRENT_USER SERVER rabbit OPTIONS ("user" 'u', password 'hush', tls_key_password 'hush');

-- who may have the server process read files
GRANT USAGE ON FOREIGN DATA WRAPPER eventsrc TO rabbit_admin;
SET ROLE rabbit_admin;
CREATE SERVER rabbit_mine FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', tls 'on');
ALTER SERVER rabbit_mine OPTIONS (ADD tls_ca '/etc/passwd');
CREATE USER MAPPING FOR rabbit_admin SERVER rabbit_mine OPTIONS (tls_key '/etc/passwd');
RESET ROLE;

-- es_create_relay: what a topic may be
SELECT es_create_store('rabbit_store');
SELECT es_create_relay('r', 'rabbit', '', store => 'rabbit_store');
SELECT es_create_relay('r', 'rabbit', '/key', store => 'rabbit_store');
SELECT es_create_relay('r', 'rabbit', '{store}/{aggregate}', store => 'rabbit_store');
SELECT es_create_relay('r', 'rabbit', E'a\nkey', store => 'rabbit_store');
DO $$
BEGIN
    PERFORM es_create_relay('r', 'rabbit', 'exchange/' || repeat('x', 256), store => 'rabbit_store');
EXCEPTION WHEN SQLSTATE 'VE009' THEN
    RAISE NOTICE 'too long';
END $$;
-- headers that mean something to the relay or to RabbitMQ
SELECT es_create_relay('r', 'rabbit', options => '{"envelope": "cloudevents", "headers": {"position": "{aggregate_id}"}}', store => 'rabbit_store');
SELECT es_create_relay('r', 'rabbit', options => '{"envelope": "cloudevents", "headers": {"key": "{aggregate_id}"}}', store => 'rabbit_store');
SELECT es_create_relay('r', 'rabbit', options => '{"headers": {"CC": "other"}}', store => 'rabbit_store');
SELECT es_create_relay('r', 'rabbit', options => '{"headers": {"version": "1"}}', store => 'rabbit_store');
BEGIN;
SELECT es_create_relay('r', 'rabbit', options => '{"envelope": "cloudevents", "headers": {"tenant": "t", "event-type": "{event_type}"}}', store => 'rabbit_store');
SELECT es_alter_relay('r', options => '{"envelope": "raw"}');
ROLLBACK;
BEGIN;
SELECT es_create_relay('key', 'rabbit', 'Schlüssel für {aggregate_type} #1', store => 'rabbit_store');
SELECT es_create_relay('both', 'rabbit', '{store}/a/{event_type}', store => 'rabbit_store');
SELECT es_create_relay('fanout', 'rabbit', 'exchange/', store => 'rabbit_store');
SELECT relay, broker_type, topic FROM es_relays ORDER BY relay;
ROLLBACK;
SELECT es_drop_store('rabbit_store', confirm => 'rabbit_store');

DROP SERVER rabbit CASCADE;
DROP SERVER rabbit_mine CASCADE;
REVOKE USAGE ON FOREIGN DATA WRAPPER eventsrc FROM rabbit_admin;
DROP ROLE rabbit_admin;
