\set i :i + 1
\set s :i % 100
\set v :i / 100
SELECT write_message(gen_random_uuid()::varchar, 'account' || :s || '-' || :run || '_' || :client_id, 'Deposited', :p, NULL, :v - 1);
