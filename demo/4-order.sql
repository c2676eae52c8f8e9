-- 4-order.sql: a reducer of one's own, and snapshots.
\echo '== A busy order, and a reducer of our own'
\echo '-- A reducer is any function (state jsonb, event es_event) RETURNS jsonb.'
SELECT es_create_store();
CREATE FUNCTION order_reducer(state jsonb, event es_event) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN jsonb_build_object(
    'lines', coalesce((state->>'lines')::int, 0) + 1,
    'total', coalesce((state->>'total')::numeric, 0)
             + ((event).data->>'quantity')::int * ((event).data->>'price')::numeric);
SELECT es_create_aggregate('Order', 'order_reducer(jsonb, es_event)');

\echo '-- 130 events; at every 100th a snapshot of the state is taken.'
SELECT count(*), max(version)
FROM generate_series(1, 130) n,
     es_append('Order', '4711', 'LineAdded',
               jsonb_build_object('item', 'A-' || n, 'quantity', 1 + n % 3, 'price', 9.90));
SELECT aggregate_id, version, state FROM es.snapshots;

\echo '-- The state now starts from it and replays 30 events instead of 130; at version 99 there was none yet.'
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', '4711');
SELECT state, version, snapshot_version, events_replayed FROM es_explain_state('Order', '4711', version => 99);
