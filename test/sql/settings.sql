-- The eventsrc.* settings: defaults, who may set them, and misspelt ones.
SELECT name, setting, context, vartype FROM pg_settings WHERE name LIKE 'eventsrc.%' ORDER BY name COLLATE "C";
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
