SELECT * FROM es_read_all(0, 100, store => :store);
