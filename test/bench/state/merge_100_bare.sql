SELECT bench_merge(data ORDER BY version) FROM es.events WHERE aggregate_type = 'Bench' AND aggregate_id = '100';
