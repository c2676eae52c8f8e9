/*
 * partition.c
 *		Makes the monthly partitions of events tables: ahead of time by the
 *		database's worker, and on demand for an append that finds none.
 *
 * An append asks the worker, which makes the partition in a transaction of its
 * own; were it made in the append's transaction, the lock on events would be
 * held until that ends, and two appenders could deadlock.  Only where no
 * worker answers does the append make it itself.
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "pgstat.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "store/position.h"
#include "store/store.h"

/* how long an append waits for the worker, ms */
#define PARTITION_TIMEOUT	10000

/* months that are made when an import needs one: the next rows need the next */
#define MONTHS_AT_ONCE		12

/*
 * es_partition_bound reads bound i of a range-partitioned table; without is what stands
 * for a missing or infinite one.
 */
TimestampTz
es_partition_bound(PartitionBoundInfo bounds, int i, TimestampTz without)
{
	if (i < 0 || i >= bounds->ndatums)
		return without;
	if (bounds->kind && bounds->kind[i][0] == PARTITION_RANGE_DATUM_MINVALUE)
		return DT_NOBEGIN;
	if (bounds->kind && bounds->kind[i][0] == PARTITION_RANGE_DATUM_MAXVALUE)
		return DT_NOEND;
	return DatumGetTimestampTz(bounds->datums[i][0]);
}

PG_FUNCTION_INFO_V1(es_has_partition);

/*
 * es_has_partition(regclass, timestamptz) tells whether an events table has a
 * partition for a moment.
 */
Datum
es_has_partition(PG_FUNCTION_ARGS)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(1);
	Relation	events = table_open(PG_GETARG_OID(0), AccessShareLock);
	bool		found = false;

	if (events->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		PartitionDesc desc = RelationGetPartitionDesc(events, true);
		PartitionBoundInfo bounds = desc->boundinfo;

		for (int i = 0; desc->nparts > 0 && !found && i < bounds->nindexes; i++)
			found = bounds->indexes[i] >= 0 &&
				at >= es_partition_bound(bounds, i - 1, DT_NOBEGIN) &&
				at < es_partition_bound(bounds, i, DT_NOEND);
	}
	table_close(events, AccessShareLock);
	PG_RETURN_BOOL(found);
}

/*
 * add_partitions makes, as the store's owner, the partitions from the month of
 * a moment on that are missing.
 */
static void
add_partitions(Oid events, Oid owner, TimestampTz from, int ahead)
{
	Oid			types[3] = {REGCLASSOID, TIMESTAMPTZOID, INT4OID};
	Datum		values[3];
	Oid			user;
	int			context;
	int			result;

	values[0] = ObjectIdGetDatum(events);
	values[1] = TimestampTzGetDatum(from);
	values[2] = Int32GetDatum(ahead);

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	result = SPI_execute_with_args("SELECT eventsrc.add_partitions($1, $2, $3)",
								   3, types, values, NULL, false, 1);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(result));
	SPI_finish();
	SetUserIdAndSecContext(user, context);
}

/*
 * ask_month adds the month of a moment to what the worker is about to be asked
 * for, as an import of old events needs; one at a time.  False if another
 * backend is asking for one.
 */
static bool
ask_month(EsDatabase *db, Oid events, TimestampTz at)
{
	uint32		other = 0;

	/* a session that was terminated as it waited leaves its claim behind */
	if (!pg_atomic_compare_exchange_u32(&db->month_claimed, &other, (uint32) MyProcPid) &&
		(BackendPidGetProc((int) other) != NULL ||
		 !pg_atomic_compare_exchange_u32(&db->month_claimed, &other, (uint32) MyProcPid)))
		return false;
	pg_atomic_write_u64(&db->month, (uint64) at);
	pg_write_barrier();
	pg_atomic_write_u64(&db->month_events, events);
	return true;
}

/*
 * forget_month takes a request back that the worker did not get to.
 */
static void
forget_month(EsDatabase *db)
{
	pg_atomic_write_u64(&db->month_events, 0);
	pg_memory_barrier();
	pg_atomic_write_u32(&db->month_claimed, 0);
}

/*
 * ask_worker has the database's worker make what is missing and waits for it;
 * false if no worker answers in time.
 */
static bool
ask_worker(EsDatabase *db)
{
	TimestampTz start = GetCurrentTimestamp();
	uint64		asked;

	if (pg_atomic_read_u32(&db->worker) == 0)
		return false;

	asked = pg_atomic_add_fetch_u64(&db->maintenance_asked, 1);
	pg_atomic_fetch_add_u64(&db->moves, 1);
	ConditionVariableBroadcast(&db->moved);

	ConditionVariablePrepareToSleep(&db->maintained);
	while (pg_atomic_read_u64(&db->maintenance_done) < asked)
	{
		long		left = PARTITION_TIMEOUT -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());

		if (left <= 0 || pg_atomic_read_u32(&db->worker) == 0)
			break;
		(void) ConditionVariableTimedSleep(&db->maintained, left, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return pg_atomic_read_u64(&db->maintenance_done) >= asked;
}

/*
 * ask_for has the worker make the partition of a moment.  An error while it
 * waits must not leave the request behind.
 */
static bool
ask_for(Oid events, TimestampTz at)
{
	EsDatabase *db = es_database();
	bool		asked = at < GetCurrentTimestamp() && ask_month(db, events, at);
	volatile bool answered = false;

	PG_TRY();
	{
		answered = ask_worker(db);
	}
	PG_FINALLY();
	{
		if (asked)
			forget_month(db);
	}
	PG_END_TRY();
	return answered;
}

/*
 * es_store_partition returns the store's partition for a moment, made now if
 * it is missing.  Invalidates pointers to the store's other partitions.
 */
EsPartition *
es_store_partition(EsStore *store, TimestampTz at)
{
	const char *name = pstrdup(NameStr(store->name));
	int			i = es_store_find_partition(store, at);

	if (i >= 0)
		return &store->partitions[i];

	if (ask_for(store->events, at))
	{
		AcceptInvalidationMessages();
		store = es_store_open(name, AccessShareLock);
		i = es_store_find_partition(store, at);
	}
	if (i < 0)
	{
		add_partitions(store->events, store->owner, at, 0);
		CommandCounterIncrement();
		store = es_store_open(name, AccessShareLock);
		i = es_store_find_partition(store, at);
	}
	if (i < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NO_PARTITION),
				 errmsg("store \"%s\" has no partition for %s",
						name, timestamptz_to_str(at)),
				 errhint("Look into the server's log for why the eventsrc worker of this database could not make it.")));
	return &store->partitions[i];
}

/*
 * list_stores reads the events tables of this database and their owners, into
 * the given context.
 */
static List *
list_stores(MemoryContext context, List **owners)
{
	List	   *events = NIL;
	int			result;

	*owners = NIL;
	SPI_connect();
	result = SPI_execute("SELECT events, owner FROM eventsrc.stores", true, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;
		MemoryContext old = MemoryContextSwitchTo(context);

		events = lappend_oid(events,
							 DatumGetObjectId(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull)));
		*owners = lappend_oid(*owners,
							  DatumGetObjectId(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return events;
}

/*
 * maintain_store makes one store's partitions in a transaction; an error is
 * logged and forgotten.
 */
static void
maintain_store(Oid events, Oid owner, TimestampTz from, int ahead)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		/* the store may be gone by now */
		if (get_rel_name(events) != NULL)
			add_partitions(events, owner, from, ahead);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		/* a request to leave is not the store's trouble */
		if (ProcDiePending)
			PG_RE_THROW();
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

/*
 * es_partitions_maintain makes the partitions that all stores of this database
 * need now and for the months ahead (eventsrc.partitions_ahead), and the month
 * that an import asked for; the worker's part.  Uses transactions of its own, one a store, so that one store's
 * trouble, which is logged, is not the others'.
 */
void
es_partitions_maintain(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "eventsrc partition maintenance",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	List	   *events;
	List	   *owners;
	ListCell   *lc1;
	ListCell   *lc2;
	EsDatabase *db;
	Oid			month_events;
	TimestampTz month;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	events = list_stores(context, &owners);
	db = es_database();
	month_events = (Oid) pg_atomic_read_u64(&db->month_events);
	pg_read_barrier();
	month = (TimestampTz) pg_atomic_read_u64(&db->month);
	PopActiveSnapshot();
	CommitTransactionCommand();

	old = MemoryContextSwitchTo(context);
	forboth(lc1, events, lc2, owners)
	{
		CHECK_FOR_INTERRUPTS();
		if (lfirst_oid(lc1) == month_events)
			maintain_store(lfirst_oid(lc1), lfirst_oid(lc2), month, MONTHS_AT_ONCE - 1);
		maintain_store(lfirst_oid(lc1), lfirst_oid(lc2), GetCurrentTimestamp(),
					   es_setting_partitions_ahead);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
