CREATE EXTENSION eventsrc;
SELECT es_create_store();
