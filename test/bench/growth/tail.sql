SELECT * FROM es_read_all(:after, 100, store => :store);
