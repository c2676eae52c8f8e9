\set n random(1, 1000)
SELECT * FROM es_read_stream('Read', :n::text);
