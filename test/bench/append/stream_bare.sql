\set n random(1, 1000)
SELECT * FROM bare WHERE aggregate_type = 'Read' AND aggregate_id = :n::text ORDER BY version;
