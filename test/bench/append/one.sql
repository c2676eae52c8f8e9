\set i :i + 1
\set s :i % 100
\set v :i / 100
SELECT version FROM es_append('Account', 'a' || :run || '-' || :client_id || '-' || :s, 'Deposited', :p, :v);
