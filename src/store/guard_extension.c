/*
 * guard_extension.c
 *		DROP EXTENSION eventsrc: says what would be lost, and leaves nothing
 *		half there.
 *
 * By itself DROP EXTENSION ... CASCADE takes the partitions with all events,
 * whose access method is the extension's, and leaves the tables around them.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "store/guard.h"

/*
 * ask returns the single text that a query gives, in the caller's memory.
 */
static char *
ask(const char *query)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *answer = NULL;
	int			result;

	SPI_connect();
	result = SPI_execute(query, false, 1);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	if (SPI_processed > 0)
		answer = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (answer)
		answer = MemoryContextStrdup(context, answer);
	SPI_finish();
	return answer;
}

/*
 * es_guard_drops_eventsrc tells whether a command is a DROP EXTENSION eventsrc of
 * somebody who may.
 */
bool
es_guard_drops_eventsrc(Node *statement)
{
	ListCell   *cell;

	if (!IsA(statement, DropStmt) || IsBinaryUpgrade || RecoveryInProgress() ||
		((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, ((DropStmt *) statement)->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "eventsrc") == 0)
		{
			Oid			extension = get_extension_oid("eventsrc", true);

			return OidIsValid(extension) && es_extension_ownercheck(extension, GetUserId());
		}
	}
	return false;
}

/*
 * list_tables lists all tables of all stores.
 */
static List *
list_tables(void)
{
	List	   *tables = NIL;
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	Oid			function = es_guard_trigger();
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		EsGuarded	guarded;

		if (trigger->tgfoid != function || !es_guarded(trigger->tgrelid, &guarded) ||
			guarded.events != trigger->tgrelid)
			continue;
		tables = list_append_unique_oid(tables, guarded.events);
		for (const EsSideTable *side = es_side_tables; side->name; side++)
		{
			Oid			relid = get_relname_relid(side->name, get_rel_namespace(guarded.events));

			if (OidIsValid(relid))
				tables = list_append_unique_oid(tables, relid);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tables;
}

/*
 * drop_remains drops what DROP EXTENSION CASCADE leaves of stores: tables
 * without their events.  Schemas go along where nothing else is in them.
 */
static void
drop_remains(List *tables, List *schemas)
{
	ObjectAddresses *addresses = new_object_addresses();
	ObjectAddress address;
	ListCell   *cell;

	foreach(cell, tables)
	{
		ObjectAddressSet(address, RelationRelationId, lfirst_oid(cell));
		if (get_rel_name(lfirst_oid(cell)) != NULL)
			add_exact_object_address(&address, addresses);
	}
	performMultipleDeletions(addresses, DROP_CASCADE, 0);
	free_object_addresses(addresses);
	CommandCounterIncrement();

	foreach(cell, schemas)
	{
		char	   *holds_more = ask(psprintf("SELECT 'yes' FROM pg_catalog.pg_depend "
											  "WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass "
											  "AND refobjid OPERATOR(pg_catalog.=) '%u'::pg_catalog.oid",
											  lfirst_oid(cell)));

		ObjectAddressSet(address, NamespaceRelationId, lfirst_oid(cell));
		if (holds_more == NULL && get_namespace_name(lfirst_oid(cell)) != NULL)
			performDeletion(&address, DROP_RESTRICT, 0);
	}
}

/*
 * refuse_extension_drop raises the error of a DROP EXTENSION eventsrc that did
 * not say CASCADE; "loss" lists what would be lost.
 */
static void
refuse_extension_drop(const char *loss)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop extension eventsrc because stores or append_only tables exist"),
			 errdetail("All of their rows would be lost: %s.", loss),
			 errhint("Drop stores with es_drop_store(), give other tables an access method that stays (ALTER TABLE ... SET ACCESS METHOD heap), "
					 "or lose them all with DROP EXTENSION eventsrc CASCADE.")));
}

/*
 * es_guard_before_extension_drop notes what DROP EXTENSION eventsrc will take
 * away, and refuses it if that is anything and the command does not say
 * CASCADE.
 */
void
es_guard_before_extension_drop(DropStmt *statement, EsLoss *loss)
{
	ListCell   *cell;

	loss->what = ask("SELECT eventsrc.loss()");
	if (loss->what && statement->behavior != DROP_CASCADE)
		refuse_extension_drop(loss->what);
	loss->tables = list_tables();
	loss->schemas = NIL;
	foreach(cell, loss->tables)
		loss->schemas = list_append_unique_oid(loss->schemas, get_rel_namespace(lfirst_oid(cell)));
}

/*
 * es_guard_after_extension_drop completes the loss, and says what it was.
 */
void
es_guard_after_extension_drop(EsLoss *loss)
{
	drop_remains(loss->tables, loss->schemas);
	ereport(WARNING,
			(errmsg("the extension eventsrc is dropped with all stores and append_only tables"),
			 errdetail("With them go all of their rows: %s.", loss->what)));
}
