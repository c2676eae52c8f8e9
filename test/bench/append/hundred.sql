\set i :i + 1
\set s :i % 100
\set v :i / 100 * 100
SELECT version FROM es_append_events('Account', 'a' || :run || '-' || :client_id || '-' || :s, array_fill('Deposited'::text, '{100}'), ARRAY[
:p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p,
:p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p,
:p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p,
:p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p, :p]::jsonb[], :v);
