\set n random(0, 98) * 1000
SELECT * FROM es_read_all(:n, 1000);
