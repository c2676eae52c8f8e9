SELECT version, event_type, data FROM es.events WHERE aggregate_type = 'Bench' AND aggregate_id = '100' ORDER BY version;
