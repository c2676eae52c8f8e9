SELECT version, event_type, data FROM es.events WHERE aggregate_type = 'Bench' AND aggregate_id = '1000' ORDER BY version;
