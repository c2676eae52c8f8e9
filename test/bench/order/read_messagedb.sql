WITH page AS (
    INSERT INTO seen SELECT :client_id, global_position FROM get_category_messages('order', :position + 1, 1000) RETURNING position)
SELECT coalesce(max(position), :position) AS position FROM page \gset
\sleep 5 ms
