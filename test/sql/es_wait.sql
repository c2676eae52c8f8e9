-- es_wait(): what it returns, and when; what it refuses.  Who wakes it is in the isolation tests.
\set SHOW_CONTEXT never
SELECT es_create_store('regress_wait');
SET eventsrc.store = 'regress_wait';

-- there is more already: it does not sleep
SELECT es_safe_position() AS start \gset
SELECT version FROM es_append('Order', '1', 'Placed');
SET statement_timeout = '10s';
SELECT es_wait(:start, '1 day') > :start AS more;
SELECT es_wait(:start) = es_safe_position() AS safe;
SELECT es_wait(:start, '1 day', 'regress_wait') > :start AS more;
-- also where the event is another store's
SELECT es_create_store('regress_wait2');
SELECT es_wait(:start, '1 day', 'regress_wait2') > :start AS more;
RESET statement_timeout;

-- nothing comes: the safe position as it is
SELECT es_safe_position() AS safe \gset
SELECT es_wait(:safe, '0') - :safe AS moved;
SELECT clock_timestamp() AS before \gset
SELECT es_wait(:safe, '20ms') - :safe AS moved;
SELECT clock_timestamp() - :'before' >= '20ms' AS slept;
SELECT es_wait(:safe + 1000000, '1ms') - :safe AS moved;
SELECT es_wait(9223372036854775807, '1ms') - :safe AS moved;

-- whoever read less than a full page goes on from what es_wait() returned
SELECT count(*), max(global_position) <= :safe AS below FROM es_read_all(:start);
SELECT count(*) FROM es_read_all(:safe);

-- it keeps no lock on the store while it sleeps
BEGIN;
SELECT es_wait(:safe, '1ms') - :safe AS moved;
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'regress_wait.events'::regclass;
COMMIT;

-- read-only, and at every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT es_wait(:start, '1 day') > :start AS more;
SELECT es_wait(:safe, '1ms') - :safe AS moved;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT es_wait(:safe, '1ms') - :safe AS moved;
COMMIT;

-- interruptible
SET statement_timeout = '20ms';
SELECT es_wait(:safe, '1 day');
SELECT es_wait(:safe, '1000 years');
DO $$
BEGIN
    PERFORM es_wait(es_safe_position(), '1 day');
EXCEPTION WHEN query_canceled THEN
    RAISE NOTICE 'canceled, and waits again: %', es_wait(es_safe_position(), '0') = es_safe_position();
END $$;
RESET statement_timeout;

-- a transaction would wait for itself
BEGIN;
SELECT version FROM es_append('Order', '1', 'Paid');
SELECT es_wait(:safe, '1 day');
ROLLBACK;

-- bad input
SELECT es_wait(NULL);
SELECT es_wait(-1);
SELECT es_wait(0, NULL);
SELECT es_wait(0, '-1ms');
SELECT es_wait(0, '-1 month');
SELECT es_wait(0, store => 'nowhere');

-- USAGE on the store's schema is what it needs
CREATE ROLE regress_waiter;
SET ROLE regress_waiter;
SELECT es_wait(0);
RESET ROLE;
GRANT USAGE ON SCHEMA regress_wait TO regress_waiter;
SET ROLE regress_waiter;
SELECT es_wait(0) > 0 AS more;
RESET ROLE;

SELECT es_drop_store('regress_wait2', 'regress_wait2');
SELECT es_drop_store('regress_wait', 'regress_wait');
DROP ROLE regress_waiter;
