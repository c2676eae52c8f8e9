\set i :i + 1
INSERT INTO bare (aggregate_type, aggregate_id, version, event_type, data)
SELECT 'Account', 'a' || :run || '-' || :i, v, 'Deposited', :p::jsonb FROM generate_series(1, 100000) v;
