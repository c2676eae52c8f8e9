\set i :i + 1
\set s :i % 100
SELECT version FROM es_append('Account', 'a' || :run || '-' || :s, 'Deposited', '{"amount": 10, "note": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}', store => :store);
