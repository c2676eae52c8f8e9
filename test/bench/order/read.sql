WITH page AS (
    INSERT INTO seen SELECT :client_id, global_position FROM es_read_all(:position, 1000) RETURNING position)
SELECT coalesce(max(position), :position) AS position FROM page \gset
\sleep 5 ms
