\set i :i + 1
\set think random(0, 20000)
\set dice random(1, 5)
BEGIN;
SELECT write_message(gen_random_uuid()::varchar, 'order-' || :run || '_' || :client_id || '_' || :i % 100, 'Placed', :p);
\sleep :think us
\if :dice = 1
ROLLBACK;
\else
COMMIT;
\endif
