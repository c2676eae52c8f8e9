\set i :i + 1
\set think random(0, 20000)
\set dice random(1, 5)
BEGIN;
SELECT version FROM es_append('Order', 'o' || :run || '-' || :client_id || '-' || :i % 100, 'Placed', :p);
\sleep :think us
\if :dice = 1
ROLLBACK;
\else
COMMIT;
\endif
