\set n random(0, 98) * 1000
SELECT * FROM bare WHERE global_position > :n ORDER BY global_position LIMIT 1000;
