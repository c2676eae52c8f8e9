-- As many events of 300 bytes as the others get, over 1,000 streams in turn, each appended by itself, a commit every 1,000.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_aggregate('Account', snapshot_every => 0);
