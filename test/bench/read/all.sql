\set i :i + 1
\set n :i % :pages * 1000
SELECT * FROM es_read_all(:n, 1000);
