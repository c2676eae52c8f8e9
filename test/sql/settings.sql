-- The eventsrc.* settings: defaults, who may set them, and misspelt ones.
SELECT name, setting, context, vartype FROM pg_settings
WHERE name IN ('eventsrc.store', 'eventsrc.user_id', 'eventsrc.correlation_id', 'eventsrc.causation_id',
               'eventsrc.traceparent', 'eventsrc.max_databases')
ORDER BY name COLLATE "C";
SELECT name AS unexplained FROM pg_settings WHERE name LIKE 'eventsrc.%' AND coalesce(short_desc, '') = '';
-- a name that eventsrc does not know is a mistake, not a placeholder
SET eventsrc.stor = 'x';
-- what sizes shared memory cannot change in a running server
SET eventsrc.max_databases = 1;
-- context holds for the transaction
BEGIN;
SET LOCAL eventsrc.user_id = 'user_789';
SHOW eventsrc.user_id;
ROLLBACK;
SHOW eventsrc.user_id;
