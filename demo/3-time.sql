-- 3-time.sql: reading streams, states and the chain of causes.
\echo '== The stream of the document'
SELECT version, event_type, user_id, data FROM es_read_stream('Document', 'contract-7', store => 'document');

\echo '== Its state now, and when somebody looked at the clock'
\echo '-- Without a reducer of your own, a state is the shallow merge of the events'' data.'
SELECT es_state('Document', 'contract-7', store => 'document');
SELECT es_state('Document', 'contract-7', as_of => :'before_the_cancellation', store => 'document');
SELECT es_state('Translation', 'job-42', store => 'translation') AS now,
       es_state('Translation', 'job-42', as_of => :'before_the_cancellation', store => 'translation') AS then;

\echo '== What followed from what: the chain of job-42 across both stores'
WITH RECURSIVE happened AS (
    SELECT 'document' AS store, * FROM document.events
    UNION ALL
    SELECT 'translation', * FROM translation.events
), chain AS (
    SELECT happened.*, 0 AS depth, ARRAY[global_position] AS path
    FROM happened WHERE correlation_id = 'job-42' AND causation_id IS NULL
    UNION ALL
    SELECT effect.*, depth + 1, path || effect.global_position
    FROM chain JOIN happened effect ON effect.causation_id = chain.event_id
)
SELECT global_position AS position, repeat('    ', depth) || event_type AS event, store, version, user_id
FROM chain ORDER BY path;
