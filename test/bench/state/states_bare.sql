SELECT count(*), max(v) FROM (SELECT aggregate_id, max(version) AS v, bench_merge(data ORDER BY version) AS state
                              FROM es.events WHERE aggregate_type = 'Many' GROUP BY aggregate_id) s WHERE state IS NOT NULL;
