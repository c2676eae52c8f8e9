\set i :i + 1
\set think random(0, 20000)
\set dice random(1, 5)
BEGIN;
INSERT INTO bare (aggregate_type, aggregate_id, version, event_type, data)
VALUES ('Order', 'o' || :run || '-' || :client_id || '-' || :i % 100, :i, 'Placed', :p);
\sleep :think us
\if :dice = 1
ROLLBACK;
\else
COMMIT;
\endif
