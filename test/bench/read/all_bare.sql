\set i :i + 1
\set n :i % :pages * 1000
SELECT * FROM bare WHERE global_position > :n ORDER BY global_position LIMIT 1000;
