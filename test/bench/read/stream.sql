\set n random(0, :streams - 1)
SELECT * FROM es_read_stream('Account', :n::text);
