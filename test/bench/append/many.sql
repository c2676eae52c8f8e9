\set i :i + 1
SELECT (es_append_events('Account', 'a' || :run || '-' || :i, array_fill('Deposited'::text, ARRAY[100000]), array_fill('{"amount": 10, "note": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}'::jsonb, ARRAY[100000]), 0)).version;
