\set i :i + 1
\set s :i % 100
\set v :i / 100
INSERT INTO bare (aggregate_type, aggregate_id, version, event_type, data)
VALUES ('Account', 'a' || :run || '-' || :client_id || '-' || :s, :v + 1, 'Deposited', :p);
