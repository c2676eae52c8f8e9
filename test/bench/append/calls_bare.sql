\set i :i + 1
INSERT INTO bare (aggregate_type, aggregate_id, version, event_type, data)
SELECT 'Account', 'a' || :run || '-' || :i || '-' || v % 1000, v, 'Deposited', :p::jsonb FROM generate_series(1, 20000) v;
