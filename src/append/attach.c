/*
 * attach.c
 *		Takes in the events of a table that is attached to events as a
 *		partition: checks that they go on from what their streams have, and
 *		writes the streams' rows.
 *
 * It is done after ALTER TABLE ... ATTACH PARTITION, in its transaction, and
 * under the locks of all streams that the table has events of: an append finds
 * a stream as it was before, or with the events.
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "append/append.h"
#include "store/guard.h"
#include "store/position.h"

/* the hashes of a table's streams */
typedef struct Hashes
{
	uint64	   *values;
	Size		count;
	Size		size;
} Hashes;

static ProcessUtility_hook_type previous_process_utility = NULL;

/*
 * compare_hashes compares two hashes for qsort().
 */
static int
compare_hashes(const void *one, const void *other)
{
	uint64		a = *(const uint64 *) one;
	uint64		b = *(const uint64 *) other;

	return a < b ? -1 : a > b;
}

/*
 * sort_hashes sorts the hashes and leaves one of each.
 */
static void
sort_hashes(Hashes *hashes)
{
	Size		kept = 0;

	qsort(hashes->values, hashes->count, sizeof(uint64), compare_hashes);
	for (Size i = 0; i < hashes->count; i++)
	{
		if (kept == 0 || hashes->values[kept - 1] != hashes->values[i])
			hashes->values[kept++] = hashes->values[i];
	}
	hashes->count = kept;
}

/*
 * add_hash adds one; there is room for twice as many as there are streams.
 */
static void
add_hash(Hashes *hashes, uint64 hash)
{
	if (hashes->count == hashes->size)
	{
		sort_hashes(hashes);
		if (hashes->count > hashes->size / 2)
		{
			hashes->size *= 2;
			hashes->values = repalloc_huge(hashes->values, hashes->size * sizeof(uint64));
		}
	}
	hashes->values[hashes->count++] = hash;
}

/*
 * has_events tells whether a table has rows.
 */
static bool
has_events(Oid table)
{
	Relation	rel = table_open(table, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/*
 * read_streams collects the hashes of the streams that a table has events of.
 */
static void
read_streams(EsStore *store, Oid table, Hashes *hashes)
{
	Relation	rel = table_open(table, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	AttrNumber	type = get_attnum(table, "aggregate_type");
	AttrNumber	id = get_attnum(table, "aggregate_id");
	bool		isnull;

	hashes->count = 0;
	hashes->size = 1024;
	hashes->values = palloc(hashes->size * sizeof(uint64));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		add_hash(hashes, es_stream_hash(store,
										DatumGetTextPP(slot_getattr(slot, type, &isnull)),
										DatumGetTextPP(slot_getattr(slot, id, &isnull))));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	sort_hashes(hashes);
}

/*
 * adopt_events has eventsrc.adopt_events() check the events and write the rows
 * in "streams".
 */
static void
adopt_events(EsStore *store, const EsPartition *partition)
{
	EsGuarded	guarded = {partition->relid, store->events, ES_NATTS};
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[4] = {REGCLASSOID, REGCLASSOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[4];
	Datum		last;
	char	   *wrong;
	bool		isnull;
	MemoryContext old;

	values[0] = ObjectIdGetDatum(store->events);
	values[1] = ObjectIdGetDatum(partition->relid);
	values[2] = TimestampTzGetDatum(partition->lower);
	values[3] = TimestampTzGetDatum(partition->upper);
	SPI_connect();
	if (SPI_execute_with_args("SELECT wrong, last_position FROM eventsrc.adopt_events($1, $2, $3, $4)",
							  4, types, values, NULL, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "eventsrc.adopt_events() failed");
	wrong = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	old = MemoryContextSwitchTo(caller);
	wrong = wrong ? pstrdup(wrong) : NULL;
	MemoryContextSwitchTo(old);
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (!isnull)
		es_position_import(DatumGetInt64(last));
	SPI_finish();
	if (wrong)
		es_guard_harm(&guarded, ES_GUARD_HINT_EVENTS,
					  psprintf("attach table %s, %s",
							   quote_identifier(get_rel_name(partition->relid)), wrong));
}

/*
 * take_in takes in the events of a partition that was just attached.  The lock
 * on it keeps others from writing into it.
 */
static void
take_in(EsStore *store, Oid table)
{
	const EsPartition *partition = NULL;
	EsPartition copy;
	Hashes		hashes;

	for (int i = 0; i < store->npartitions && partition == NULL; i++)
	{
		if (store->partitions[i].relid == table)
			partition = &store->partitions[i];
	}
	if (partition == NULL)
		return;
	copy = *partition;

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a table with events cannot be attached at this isolation level"),
				 errdetail("The transaction's snapshot may be too old to tell how their streams stand."),
				 errhint("Attach it in a READ COMMITTED transaction.")));
	read_streams(store, table, &hashes);
	for (Size i = 0; i < hashes.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		es_stream_lock_hash(hashes.values[i]);
	}
	adopt_events(store, &copy);
	(void) es_position_latest_partition(copy.lower);
	/* what is known of streams is to be looked up again */
	es_known_forget();
	es_append_count++;
	pfree(hashes.values);
}

/*
 * see_attached looks at the tables that ALTER TABLE has attached, if it was an
 * events table's.
 */
static void
see_attached(AlterTableStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);
		EsGuarded	guarded;
		EsStore    *store;
		Oid			parent;
		Oid			table;

		if (cmd->subtype != AT_AttachPartition)
			continue;
		parent = RangeVarGetRelid(statement->relation, NoLock, true);
		table = RangeVarGetRelid(((PartitionCmd *) cmd->def)->name, NoLock, true);
		if (!OidIsValid(table) || !OidIsValid(parent) || !es_guarded(parent, &guarded) ||
			guarded.events != parent)
			continue;
		CommandCounterIncrement();
		if (!has_events(table))
			continue;
		store = es_store_of_relation(parent);
		if (store)
		{
			es_store_refresh(store);
			take_in(store, table);
		}
	}
}

/*
 * process_utility lets ALTER TABLE run and then looks at what it attached.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (previous_process_utility)
		previous_process_utility(pstmt, query, read_only_tree, context, params, environment,
								 dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);

	if (IsA(pstmt->utilityStmt, AlterTableStmt) && !IsBinaryUpgrade &&
		((AlterTableStmt *) pstmt->utilityStmt)->objtype == OBJECT_TABLE)
		see_attached((AlterTableStmt *) pstmt->utilityStmt);
}

/*
 * es_attach_install_hook installs the hook of this file.
 */
void
es_attach_install_hook(void)
{
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
