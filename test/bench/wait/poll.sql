SELECT es_safe_position() AS position \gset
SELECT es_wait(0, '10s');
\sleep 100 ms
