-- 1-stores.sql: the extension, and one store for each bounded context.
\echo '== Two bounded contexts, two stores'
\echo '-- An event store is a schema with ordinary tables. Documents and translations get one each.'
CREATE EXTENSION eventsrc;
SELECT es_create_store('document');
SELECT es_create_store('translation');
SELECT store, events::regclass, owner::regrole FROM eventsrc.stores ORDER BY store;
