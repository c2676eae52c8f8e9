-- The store es with the events that are drained, and the store live, which is appended to while relays run.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_store('live');
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" 'unknown');
CREATE SERVER rabbitmq FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '1', declare 'queues',
    queues 'relay, bare', "window" '1000');

-- What Debezium Server reads: the same tables, only the columns that it sends, and only inserts.  Its slot is there before
-- the events, so that copies of it find them all in the log.
CREATE PUBLICATION debezium FOR TABLE es.events (event_id, aggregate_type, aggregate_id, event_type, data),
    live.events (event_id, aggregate_type, aggregate_id, event_type, data)
    WITH (publish = 'insert', publish_via_partition_root = true);
SELECT pg_create_logical_replication_slot('stored', 'pgoutput');

-- fill appends events with 200 bytes of data, a hundred a stream, a thousand a transaction, numbered so that a reader can
-- tell them apart.
CREATE PROCEDURE fill(streams int) LANGUAGE plpgsql AS $$
BEGIN
    FOR stream IN 0 .. streams - 1 BY 10 LOOP
        PERFORM es_append_events('Order', s::text, array_fill('Placed'::text, ARRAY[100]),
            ARRAY(SELECT jsonb_build_object('n', s * 100 + i, 'x', repeat('x', 180)) FROM generate_series(0, 99) i))
        FROM generate_series(stream, least(stream + 9, streams - 1)) s;
        COMMIT;
    END LOOP;
END $$;
SET synchronous_commit = off;
CALL fill(:events / 100);
CHECKPOINT;

-- relay_rate waits until a relay has sent so many events, and returns how many it sent a second from its first
-- confirmation on.
CREATE FUNCTION relay_rate(name name, events bigint) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    now     record;
    called  timestamptz := clock_timestamp();
    begun   timestamptz;
    first   bigint;
BEGIN
    LOOP
        SELECT sum(sent) AS sent, min(state) AS state, min(last_error) AS error INTO now FROM es_relays WHERE relay = name;
        IF begun IS NULL AND now.sent > 0 THEN
            begun := clock_timestamp();
            first := now.sent;
        END IF;
        EXIT WHEN now.sent >= events;
        IF now.state = 'stopped' OR clock_timestamp() > called + interval '10 minutes' THEN
            RAISE 'the relay % has sent only % events: % %', name, now.sent, now.state, now.error;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    IF first >= events THEN     -- too few to tell
        begun := called;
        first := 0;
    END IF;
    RETURN (events - first) / extract(epoch FROM clock_timestamp() - begun);
END $$;
