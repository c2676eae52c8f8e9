\set i :i + 1
\set n :i % :pages * 1000
SELECT count(*) FROM es_read_all(:n, 1000);
