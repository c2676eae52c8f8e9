-- many short streams of one type, their events mixed as they come in
SET eventsrc.store = 'bench_state';
SELECT es_create_aggregate('Many', snapshot_every => 0);
INSERT INTO bench_state.events (aggregate_type, aggregate_id, event_type, data)
SELECT 'Many', (i % :streams)::text, 'Changed',
       jsonb_build_object('status', 'state ' || i % 5, 'total', i * 1.25, 'field' || i % 8, 'value ' || i)
FROM generate_series(1, :events) i;
VACUUM ANALYZE bench_state.events;
