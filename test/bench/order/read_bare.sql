WITH page AS (
    INSERT INTO seen SELECT :client_id, global_position FROM (SELECT * FROM bare WHERE global_position > :position ORDER BY global_position LIMIT 1000) p RETURNING position)
SELECT coalesce(max(position), :position) AS position FROM page \gset
\sleep 5 ms
