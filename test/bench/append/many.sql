\set i :i + 1
SELECT version FROM es_append_events('Account', 'a' || :run || '-' || :i, array_fill('Deposited'::text, '{100000}'), array_fill(:p::jsonb, '{100000}'), 0);
