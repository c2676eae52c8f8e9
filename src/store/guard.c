/*
 * guard.c
 *		Keeps commands from breaking stores.
 *
 * guarded.c reports what would harm a store to es_guard_harm(), which refuses
 * it, for owners and superusers alike, unless eventsrc.allow_unsafe_ddl is on
 * (and says so in the log), or a way of our own leads there: es_drop_store(),
 * DROP EXTENSION eventsrc CASCADE, an upgrade of the extension.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "store/guard.h"
#include "store/store.h"

bool		es_setting_allow_unsafe_ddl = false;

const EsSideTable es_side_tables[] = {
	{"streams", 5},
	{"snapshots", 7},
	{"aggregates", 5},
	{"event_types", 6},
	{"upcasters", 4},
	{"settings", 2},
	{NULL, 0}
};

/* the command that runs, and those around it */
typedef struct Command
{
	Node	   *statement;
	bool		drops_extension;	/* DROP EXTENSION eventsrc CASCADE */
	List	   *logged;			/* OIDs of tables, in TopMemoryContext */
} Command;

static Command command;

/* the schema of the store that es_drop_store() is dropping */
static Oid	dropped_store = InvalidOid;

static ProcessUtility_hook_type previous_utility_hook = NULL;

/*
 * find_function returns the OID of a private function without arguments;
 * InvalidOid, and no error, where there is none.
 */
static Oid
find_function(const char *name)
{
	Oid			schema = get_namespace_oid(ES_PRIVATE_SCHEMA, true);
	oidvector  *none;
	Oid			function;

	if (!OidIsValid(schema))
		return InvalidOid;
	none = buildoidvector(NULL, 0);
	function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
							   PointerGetDatum(none), ObjectIdGetDatum(schema));
	pfree(none);
	return function;
}

/*
 * es_guard_trigger returns the OID of eventsrc.append_trigger(), or InvalidOid.
 */
Oid
es_guard_trigger(void)
{
	return find_function("append_trigger");
}

/*
 * es_guard_needs_trigger tells whether a function is one whose triggers a store
 * cannot do without: it checks appends, or tells all backends what changed in
 * the tables of event types and upcasters.
 */
bool
es_guard_needs_trigger(Oid function)
{
	return OidIsValid(function) &&
		(function == es_guard_trigger() || function == find_function("registry_trigger"));
}

/*
 * has_trigger tells whether a table has a trigger that stores need: of a name,
 * or if that is NULL, the one of events tables.
 */
static bool
has_trigger(Oid relid, const char *name)
{
	Oid			function = es_guard_trigger();
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	if (!OidIsValid(function))
		return false;
	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (name == NULL)
			found = trigger->tgfoid == function;
		else
			found = strcmp(NameStr(trigger->tgname), name) == 0 &&
				es_guard_needs_trigger(trigger->tgfoid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * is_events tells whether a relation is a store's events table.
 */
static bool
is_events(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name != NULL && strcmp(name, "events") == 0 &&
		get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE && has_trigger(relid, NULL);
}

/*
 * es_guarded finds out whether a relation is a store's table, and of which.
 */
bool
es_guarded(Oid relid, EsGuarded *guarded)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	FormData_pg_class class;

	if (!HeapTupleIsValid(tuple))
		return false;
	class = *(Form_pg_class) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);

	guarded->table = relid;
	guarded->ncolumns = ES_NATTS;
	if (class.relkind == RELKIND_PARTITIONED_TABLE && is_events(relid))
	{
		guarded->events = relid;
		return true;
	}
	if (class.relispartition &&
		(class.relkind == RELKIND_RELATION || class.relkind == RELKIND_PARTITIONED_TABLE ||
		 class.relkind == RELKIND_FOREIGN_TABLE))
	{
		ListCell   *cell;

		foreach(cell, get_partition_ancestors(relid))
		{
			guarded->events = lfirst_oid(cell);
			if (is_events(guarded->events))
				return true;
		}
		return false;
	}
	if (class.relkind != RELKIND_RELATION)
		return false;
	for (const EsSideTable *side = es_side_tables; side->name; side++)
	{
		if (strcmp(NameStr(class.relname), side->name) == 0)
		{
			guarded->ncolumns = side->ncolumns;
			guarded->events = get_relname_relid("events", class.relnamespace);
			return OidIsValid(guarded->events) && is_events(guarded->events);
		}
	}
	return false;
}

/*
 * es_guard_command_sets_type tells whether the present command is an ALTER
 * TABLE that gives a column a type, perhaps the one that it has: USING can
 * change its values.
 */
bool
es_guard_command_sets_type(const char *column)
{
	ListCell   *cell;

	if (command.statement == NULL || !IsA(command.statement, AlterTableStmt))
		return false;
	foreach(cell, ((AlterTableStmt *) command.statement)->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype == AT_AlterColumnType && strcmp(cmd->name, column) == 0)
			return true;
	}
	return false;
}

/*
 * es_guard_command_drops_tables tells whether the present command drops whole
 * tables, of which triggers and indexes are but parts.
 */
bool
es_guard_command_drops_tables(void)
{
	if (command.statement == NULL)
		return false;
	if (IsA(command.statement, DropOwnedStmt))
		return true;
	return IsA(command.statement, DropStmt) &&
		(((DropStmt *) command.statement)->removeType == OBJECT_TABLE ||
		 ((DropStmt *) command.statement)->removeType == OBJECT_SCHEMA);
}

/*
 * in_own_script tells whether the extension's own script is running.
 */
static bool
in_own_script(void)
{
	return creating_extension &&
		CurrentExtensionObject == get_extension_oid("eventsrc", true);
}

/*
 * log_harm writes into the log that the setting let a command through, once a
 * command and table.
 */
static void
log_harm(const EsGuarded *guarded, const char *tag, const char *store, const char *what)
{
	MemoryContext old;

	if (list_member_oid(command.logged, guarded->table))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	command.logged = lappend_oid(command.logged, guarded->table);
	MemoryContextSwitchTo(old);
	ereport(LOG,
			(errmsg("eventsrc.allow_unsafe_ddl lets role \"%s\" (session user \"%s\") run %s on store \"%s\"",
					GetUserNameFromId(GetUserId(), false),
					GetUserNameFromId(GetSessionUserId(), false), tag, store),
			 errdetail("It is to %s.", what)));
}

/*
 * write_hint composes the hint of a refusal.
 */
static const char *
write_hint(EsGuardHint hint, const EsGuarded *guarded, const char *store)
{
	const char *quoted = quote_literal_cstr(store);

	switch (hint)
	{
		case ES_GUARD_HINT_DROP:
			return psprintf("To drop the store with all its events: SELECT es_drop_store(%s, confirm => %s). "
							"Otherwise a superuser can set eventsrc.allow_unsafe_ddl, which is logged.",
							quoted, quoted);
		case ES_GUARD_HINT_ATTACH:
			return psprintf("Make it with CREATE TABLE ... (LIKE %s INCLUDING ALL) USING append_only and unique indexes on "
							"(aggregate_type, aggregate_id, version) and (global_position), then attach it.",
							quote_qualified_identifier(store, "events"));
		case ES_GUARD_HINT_EVENTS:
			return "Attach tables with events oldest first, each with what follows the events of the partitions before it. "
				"A superuser who means it can set eventsrc.allow_unsafe_ddl, which is logged.";
		case ES_GUARD_HINT_ENABLE:
			return psprintf("Use ALTER TABLE %s ENABLE ALWAYS TRIGGER for this trigger.",
							quote_qualified_identifier(store, guarded->ncolumns == ES_NATTS ?
													   "events" : get_rel_name(guarded->table)));
		case ES_GUARD_HINT_NONE:
			break;
	}
	return "A superuser who means it can set eventsrc.allow_unsafe_ddl, which is logged.";
}

/*
 * es_guard_harm raises the error of a command that would harm a store, unless
 * it may; "what" completes the sentence "It would ...".
 */
void
es_guard_harm(const EsGuarded *guarded, EsGuardHint hint, const char *what)
{
	Oid			schema = get_rel_namespace(guarded->events);
	char	   *store = get_namespace_name(schema);
	const char *tag;

	if (command.drops_extension || in_own_script() ||
		(OidIsValid(dropped_store) && schema == dropped_store))
		return;

	tag = command.statement ? CreateCommandName(command.statement) : "the command";
	if (store == NULL)
		store = pstrdup("?");
	if (es_setting_allow_unsafe_ddl)
	{
		log_harm(guarded, tag, store, what);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_ES_GUARDED),
			 errmsg("%s would break store \"%s\"", tag, store),
			 errdetail("It would %s.", what),
			 errhint("%s", write_hint(hint, guarded, store))));
}

/*
 * guard_concurrent_detach looks at ALTER TABLE ... DETACH PARTITION
 * CONCURRENTLY before it begins: its first transaction, which no hook sees,
 * would leave the partition half detached.
 */
static void
guard_concurrent_detach(AlterTableStmt *statement)
{
	ListCell   *cell;
	EsGuarded	guarded;
	Oid			relid;

	foreach(cell, statement->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype != AT_DetachPartition || !((PartitionCmd *) cmd->def)->concurrent)
			continue;
		relid = RangeVarGetRelid(statement->relation, NoLock, true);
		/* for others the command has an error of its own */
		if (OidIsValid(relid) && es_class_ownercheck(relid, GetUserId()) &&
			es_guarded(relid, &guarded))
			es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
						  psprintf("detach partition %s",
								   quote_identifier(((PartitionCmd *) cmd->def)->name->relname)));
	}
}

/*
 * guard_replaced_trigger looks at CREATE OR REPLACE TRIGGER before it begins:
 * what hooks see afterwards is another trigger.
 */
static void
guard_replaced_trigger(CreateTrigStmt *statement)
{
	Oid			relid = statement->replace ? RangeVarGetRelid(statement->relation, NoLock, true) : InvalidOid;
	EsGuarded	guarded;

	if (OidIsValid(relid) && es_class_ownercheck(relid, GetUserId()) &&
		es_guarded(relid, &guarded) && has_trigger(relid, statement->trigname))
		es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
					  psprintf("replace trigger %s on table %s",
							   quote_identifier(statement->trigname), get_rel_name(relid)));
}

/*
 * run_guarded runs a command, after a look at what the hook on objects comes
 * too late for.
 */
static void
run_guarded(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Node	   *statement = pstmt->utilityStmt;
	EsLoss		loss = {NULL};

	if (IsA(statement, AlterTableStmt) && !IsBinaryUpgrade)
		guard_concurrent_detach((AlterTableStmt *) statement);
	else if (IsA(statement, CreateTrigStmt) && !IsBinaryUpgrade)
		guard_replaced_trigger((CreateTrigStmt *) statement);
	else if (es_guard_drops_eventsrc(statement))
	{
		es_guard_before_extension_drop((DropStmt *) statement, &loss);
		command.drops_extension = true;
	}

	if (previous_utility_hook)
		previous_utility_hook(pstmt, query, read_only_tree, context, params, environment,
							  dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);

	if (loss.what)
		es_guard_after_extension_drop(&loss);
}

/*
 * leave_command goes back to the command around the one that ends.
 */
static void
leave_command(const Command *outer)
{
	list_free(command.logged);
	command = *outer;
}

/*
 * process_utility keeps in mind which command runs.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Command		outer = command;

	command.statement = pstmt->utilityStmt;
	command.drops_extension = false;
	command.logged = NIL;
	PG_TRY();
	{
		run_guarded(pstmt, query, read_only_tree, context, params, environment, dest, completion);
	}
	PG_CATCH();
	{
		leave_command(&outer);
		PG_RE_THROW();
	}
	PG_END_TRY();
	leave_command(&outer);
}

PG_FUNCTION_INFO_V1(es_drop_store_tables);

/*
 * es_drop_store_tables(name) drops a store's tables and schema for
 * es_drop_store(), which checked that nothing else is in it.
 */
Datum
es_drop_store_tables(PG_FUNCTION_ARGS)
{
	char	   *store = NameStr(*PG_GETARG_NAME(0));
	Oid			outer = dropped_store;
	Oid			schema = get_namespace_oid(store, false);
	StringInfoData tables;

	initStringInfo(&tables);
	appendStringInfo(&tables, "DROP TABLE %s", quote_qualified_identifier(store, "events"));
	for (const EsSideTable *side = es_side_tables; side->name; side++)
		appendStringInfo(&tables, ", %s", quote_qualified_identifier(store, side->name));

	SPI_connect();
	dropped_store = schema;
	PG_TRY();
	{
		if (SPI_execute(tables.data, false, 0) < 0 ||
			SPI_execute(psprintf("DROP SCHEMA %s", quote_identifier(store)), false, 0) < 0)
			elog(ERROR, "SPI_execute failed");
	}
	PG_FINALLY();
	{
		dropped_store = outer;
	}
	PG_END_TRY();
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_guard_install_hooks installs the guards' hooks.
 */
void
es_guard_install_hooks(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	es_guarded_install_hook();
}
