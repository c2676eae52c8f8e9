\set n random(0, :streams - 1)
SELECT * FROM bare WHERE aggregate_type = 'Account' AND aggregate_id = :n::text ORDER BY version;
