SELECT es_safe_position() AS position \gset
SELECT es_wait(:position, '10s');
\sleep 100 ms
