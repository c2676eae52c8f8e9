SELECT count(*), max(v) FROM (SELECT aggregate_id, max(version) AS v, jsonb_object_agg(k, d ORDER BY version) AS state
                              FROM es.events, jsonb_each(data) AS each (k, d) WHERE aggregate_type = 'Many' GROUP BY aggregate_id) s WHERE state IS NOT NULL;
