/*
 * hooks.c
 *		Commands that the workers must know of.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE and CREATE DATABASE
 * with the database as template need it without connections: our workers leave
 * first and come back if it is still there afterwards.  CREATE and DROP
 * EXTENSION eventsrc, by whatever way, are told to the workers at commit.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "append/append.h"
#include "store/position.h"
#include "worker/slots.h"
#include "worker/worker.h"

static ProcessUtility_hook_type previous_utility_hook = NULL;
static object_access_hook_type previous_access_hook = NULL;

/* what the end of the current transaction is to do */
static Oid	held_database = InvalidOid;
static Oid	dropped_database = InvalidOid;
static bool database_created = false;
static bool extension_changed = false;
static bool wake_wanted = false;

static void process_utility(PlannedStmt *pstmt, const char *queryString,
							bool readOnlyTree, ProcessUtilityContext context,
							ParamListInfo params, QueryEnvironment *queryEnv,
							DestReceiver *dest, QueryCompletion *qc);
static Oid	database_needed_alone(Node *statement);
static void object_access(ObjectAccessType access, Oid classId, Oid objectId,
						  int subId, void *arg);
static bool created_is_eventsrc(Oid extension);
static void xact_callback(XactEvent event, void *arg);
static void release_callback(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
							 void *arg);

/*
 * es_worker_install_hooks installs the hooks of this file in the postmaster.
 */
void
es_worker_install_hooks(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	previous_access_hook = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(xact_callback, NULL);
	RegisterResourceReleaseCallback(release_callback, NULL);
}

/*
 * es_worker_wake_at_commit wakes this database's worker, or has it started,
 * when the current transaction commits.
 */
void
es_worker_wake_at_commit(void)
{
	wake_wanted = true;
}

/*
 * process_utility makes our workers leave a database that a command needs
 * alone.  The commands refuse to run in a transaction block, so the hold, which
 * ends with the transaction, is short.
 */
static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	Oid			dboid = InvalidOid;

	if (context == PROCESS_UTILITY_TOPLEVEL && IsTransactionState() &&
		!IsInTransactionBlock(true) && !RecoveryInProgress() &&
		!OidIsValid(held_database))
		dboid = database_needed_alone(statement);

	if (OidIsValid(dboid))
	{
		held_database = dboid;
		es_workers_hold(dboid);
	}

	if (previous_utility_hook)
		previous_utility_hook(pstmt, queryString, readOnlyTree, context, params,
							  queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params,
								queryEnv, dest, qc);

	if (IsA(statement, DropdbStmt))
		dropped_database = dboid;
	else if (IsA(statement, CreatedbStmt))
		database_created = true;
}

/*
 * database_needed_alone returns the database that a command needs without
 * connections and that the user may do such a thing to, else InvalidOid; the
 * command itself raises its errors.
 */
static Oid
database_needed_alone(Node *statement)
{
	const char *name = NULL;
	ListCell   *cell;
	Oid			dboid;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) statement)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) statement)->subname;
			break;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) statement)->options)
			{
				if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) statement)->dbname;
			}
			break;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) statement)->options)
			{
				DefElem    *option = lfirst_node(DefElem, cell);

				if (strcmp(option->defname, "template") == 0 && option->arg)
					name = defGetString(option);
			}
			break;
		default:
			break;
	}

	if (name == NULL)
		return InvalidOid;
	dboid = get_database_oid(name, true);
	if (!OidIsValid(dboid) || dboid == MyDatabaseId ||
		!es_database_ownercheck(dboid, GetUserId()))
		return InvalidOid;
	return dboid;
}

/*
 * object_access notices that the extension is made or dropped, also by DROP
 * OWNED or by a cascade.
 */
static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, classId, objectId, subId, arg);

	if (classId != ExtensionRelationId)
		return;
	if (access == OAT_DROP)
	{
		char	   *name = get_extension_name(objectId);

		if (name && strcmp(name, "eventsrc") == 0)
			extension_changed = true;
	}
	else if (access == OAT_POST_CREATE && created_is_eventsrc(objectId))
		extension_changed = true;
}

/*
 * created_is_eventsrc tells whether an extension that is just being made, and
 * that no snapshot shows yet, is this one.
 */
static bool
created_is_eventsrc(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	bool		is_eventsrc = false;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		is_eventsrc = strcmp(NameStr(((Form_pg_extension) GETSTRUCT(tuple))->extname),
							 "eventsrc") == 0;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return is_eventsrc;
}

/*
 * xact_callback keeps what cannot be told at COMMIT PREPARED out of two-phase
 * commit.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && extension_changed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has created or dropped the extension eventsrc")));
	if (event == XACT_EVENT_PREPARE)
		wake_wanted = false;
}

/*
 * release_callback tells the workers what the transaction did, and ends its
 * hold.  XACT_EVENT_COMMIT would be too early: a worker that looks at once must
 * have the invalidations of its caches, which are sent between that and the
 * release of the locks.
 */
static void
release_callback(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel)
		return;

	if (isCommit)
	{
		if (extension_changed)
			es_workers_extension_changed(MyDatabaseId);
		else if (wake_wanted)
			es_worker_wake(MyDatabaseId);
		if (OidIsValid(dropped_database))
		{
			es_position_forget_database(dropped_database);
			es_heads_forget_database(dropped_database);
		}
		if (database_created)
			es_workers_wake_launcher();
	}
	if (OidIsValid(held_database))
		es_workers_unhold(held_database);

	held_database = InvalidOid;
	dropped_database = InvalidOid;
	database_created = false;
	extension_changed = false;
	wake_wanted = false;
}
