-- What readers saw, of eventsrc and of the bare table; message-db's readers have such a table in its own database.
CREATE EXTENSION eventsrc;
SELECT es_create_store();
\ir ../reference/bare.sql
\ir seen.sql
