-- 2-story.sql: a document is submitted for translation, withdrawn, revised and submitted again.
\echo '== Ana uploads a document'
\echo '-- The session says on whose behalf it acts. Version 0 is expected: the stream must not exist yet.'
SET eventsrc.user_id = 'ana';
SELECT * FROM es_append('Document', 'contract-7', 'DocumentUploaded',
                        '{"title": "Lease contract", "revision": 1, "pages": 12, "locked": false}',
                        expected_version => 0, store => 'document');

\echo '== She submits it for translation'
\echo '-- One transaction, two stores: the document is locked and the translation requested, or neither.'
\echo '-- The correlation goes into both events; es_caused_by() says that the second follows from the first.'
BEGIN;
SELECT es_set_context(correlation_id => 'job-42');
SELECT * FROM es_append('Document', 'contract-7', 'DocumentLocked', '{"locked": true}',
                        expected_version => 1, store => 'document');
SELECT es_caused_by(e) FROM es_read_stream('Document', 'contract-7', 2, store => 'document') e;
SELECT * FROM es_append('Translation', 'job-42', 'TranslationRequested',
                        '{"document": "contract-7", "revision": 1, "to": "pt", "status": "requested"}',
                        expected_version => 0, store => 'translation');
COMMIT;

\echo '== Ben submits it too: he still looks at version 1'
\echo '-- The store refuses. This is what his application gets; it would read again and tell him.'
\set ON_ERROR_STOP off
BEGIN;
SELECT es_set_context(user_id => 'ben', correlation_id => 'job-43');
SELECT * FROM es_append('Document', 'contract-7', 'DocumentLocked', '{"locked": true}',
                        expected_version => 1, store => 'document');
\echo 'SQLSTATE:' :LAST_ERROR_SQLSTATE
ROLLBACK;
\set ON_ERROR_STOP on

\set echo :ECHO
\set ECHO none
SELECT clock_timestamp() AS before_the_cancellation \gset
\echo '-- Somebody looks at the clock: it is' :before_the_cancellation
\set ECHO :echo

\echo '== Ana cancels, which unlocks the document'
BEGIN;
SELECT es_set_context(correlation_id => 'job-42');
SELECT * FROM es_append('Translation', 'job-42', 'TranslationCancelled', '{"status": "cancelled"}',
                        expected_version => 1, store => 'translation');
SELECT es_caused_by(e) FROM es_read_stream('Translation', 'job-42', 2, store => 'translation') e;
SELECT * FROM es_append('Document', 'contract-7', 'DocumentUnlocked', '{"locked": false}',
                        expected_version => 2, store => 'document');
COMMIT;

\echo '== She uploads another revision and submits again'
\echo '-- A plain INSERT is an append too: version, position and ids are filled in, conflicts are found.'
INSERT INTO document.events (aggregate_type, aggregate_id, event_type, data)
VALUES ('Document', 'contract-7', 'RevisionUploaded', '{"revision": 2, "pages": 14}')
RETURNING version, global_position, event_id;
BEGIN;
SELECT es_set_context(correlation_id => 'job-42');
SELECT * FROM es_append('Document', 'contract-7', 'DocumentLocked', '{"locked": true}',
                        expected_version => 4, store => 'document');
SELECT es_caused_by(e) FROM es_read_stream('Document', 'contract-7', 5, store => 'document') e;
SELECT * FROM es_append('Translation', 'job-42', 'TranslationRequested', '{"revision": 2, "status": "requested"}',
                        expected_version => 2, store => 'translation');
COMMIT;

\echo '== Tomás, a translator, accepts'
BEGIN;
SELECT es_set_context(user_id => 'tomas');
SELECT es_caused_by(e) FROM es_read_stream('Translation', 'job-42', 3, store => 'translation') e;
SELECT * FROM es_append('Translation', 'job-42', 'TranslationAccepted',
                        '{"status": "accepted", "translator": "tomas"}',
                        expected_version => 3, store => 'translation');
COMMIT;

\echo '== What happened cannot be unmade'
\echo '-- Not by the owner, not by a superuser: the table type refuses.'
\set ON_ERROR_STOP off
UPDATE document.events SET data = '{}';
\echo 'SQLSTATE:' :LAST_ERROR_SQLSTATE
\set ON_ERROR_STOP on
