-- 5-kafka.sql: a relay to Kafka.  The broker is the test cluster that librdkafka has built in; with a real
-- one the server has OPTIONS (type 'kafka', "bootstrap.servers" 'host:9092') and nothing else changes.
-- Needs kcat, which reads the messages back as any other application would.
\echo '== To Kafka'
\echo '-- A broker is a foreign server, a relay sends a store''s events to it. Here the broker is the small'
\echo '-- test cluster of librdkafka; give "bootstrap.servers" instead, and it is yours.'
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "test.mock.num.brokers" '1');
SELECT es_create_relay('translations', 'kafka', topic => '{store}.{aggregate_type}', store => 'translation');
\set echo :ECHO
\set ECHO none
-- a relay starts within moments, and has sent such a small store within moments
DO $$
BEGIN
    FOR i IN 1 .. 600 LOOP
        IF EXISTS (SELECT FROM es_relays
                   WHERE relay = 'translations' AND state = 'running' AND sent >= 4 AND lag_events = 0) THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.1);
    END LOOP;
    RAISE EXCEPTION 'the relay did not send: %', (SELECT r FROM es_relays r WHERE relay = 'translations');
END
$$;
SELECT broker FROM es_relays WHERE relay = 'translations' \gset
\setenv BROKER :broker
\set ECHO :echo
SELECT relay, topic, state, sent, lag_events, last_error FROM es_relays;

\echo '-- What another application reads there (kcat -C -t translation.Translation): key and value ...'
\! kcat -C -q -e -b "$BROKER" -t translation.Translation -o beginning -f ' %k  %s\n'
\echo '-- ... and the headers of the last message:'
\! kcat -C -q -e -b "$BROKER" -t translation.Translation -o -1 -f '%h\n' | tr ',' '\n' | sed 's/^/ /; s/=/: /'
