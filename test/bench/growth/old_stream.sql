\set m random(0, 58)
\set s random(0, 99)
SELECT * FROM es_read_stream('Read', 'm' || :m || '-' || :s, store => :store);
