\set s random(0, 99)
SELECT * FROM es_read_stream('Read', 'm59-' || :s, store => :store);
