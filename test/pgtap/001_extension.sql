-- What the extension makes is named, placed and explained as promised.
BEGIN;
SELECT plan(6);

CREATE VIEW members AS
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'eventsrc' AND d.deptype = 'e';

SELECT has_schema('eventsrc', 'private objects have a schema of their own');
SELECT has_type('es_event', 'es_event is the row type of events');
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname <> 'eventsrc' AND p.proname NOT LIKE 'es\_%' AND p.proname NOT IN ('append_only_handler')
    $$, 'public functions are es_*');
SELECT is_empty($$
    SELECT p.proname FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname <> 'eventsrc' GROUP BY 1 HAVING count(*) > 1
    $$, 'no public function is overloaded');
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
    WHERE obj_description(p.oid, 'pg_proc') IS NULL
    $$, 'every function has a comment');
SELECT is_empty($$
    SELECT c.oid::regclass FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
    WHERE c.relkind IN ('r', 'v', 'S') AND obj_description(c.oid, 'pg_class') IS NULL
    $$, 'every table, view and sequence has a comment');

SELECT * FROM finish();
ROLLBACK;
