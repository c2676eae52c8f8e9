\set i :i + 1
SELECT count(e.version) FROM generate_series(1, 20000) v, es_append('Account', 'a' || :run || '-' || :i || '-' || v % 1000, 'Deposited', :p::jsonb) e;
