/*
 * scan.c
 *		Scans over a store's events, in stream order or in global order.
 *
 * A scan goes to the partitions' indexes directly.  Partitions are by time,
 * and time does not run backwards within a stream, so a stream is read
 * partition by partition, between the two that its row in "streams" names.  In
 * global order, partitions overlap a little at their border (a position can be
 * taken just before midnight for an event recorded just after), so the scans of
 * all partitions that have something to give are merged.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "read/scan.h"
#include "read/spiscan.h"
#include "read/upcast.h"

/* the scan of one partition */
typedef struct PartScan
{
	EsPartition partition;
	Relation	rel;			/* NULL: not open */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		loaded;			/* slot holds the next row (global order) */
	int64		position;		/* of that row */
} PartScan;

struct EsScan
{
	EsStore    *store;
	Snapshot	snapshot;
	Snapshot	horizon;
	LOCKMODE	lockmode;
	ScanDirection direction;
	ScanKeyData keys[4];
	int			nkeys;
	bool global;

	int			nparts;
	PartScan   *parts;
	int			current;		/* stream order: partition being read */
	PartScan   *last;			/* global order: whose row was returned */

	Tuplestorestate *rows;		/* read by the executor, where row security
								 * applies */
	TupleTableSlot *rows_slot;
	int64		rows_after;		/* global order: the page's last position, ... */
	int64		rows_upto;
	int			rows_read;		/* ... and how many of its rows were returned */
	MemoryContext context;
	EsUpcasters *upcasters;		/* NULL: events as they are stored */
};

/*
 * open_part begins the scan of one partition.
 */
static void
open_part(EsScan *scan, PartScan *part)
{
	part->rel = table_open(part->partition.relid, scan->lockmode);
	part->index = index_open(scan->global ? part->partition.position_index
							 : part->partition.version_index, scan->lockmode);
	part->slot = table_slot_create(part->rel, NULL);

	/* compare as the index does */
	for (int i = 0; i < scan->nkeys; i++)
		scan->keys[i].sk_collation = part->index->rd_indcollation[scan->keys[i].sk_attno - 1];
	part->scan = es_index_beginscan(part->rel, part->index, scan->snapshot, scan->nkeys);
	index_rescan(part->scan, scan->keys, scan->nkeys, NULL, 0);
}

/*
 * close_part ends the scan of one partition; its locks stay, as a query's do,
 * for the transaction's next scan.
 */
static void
close_part(PartScan *part)
{
	if (part->rel == NULL)
		return;
	index_endscan(part->scan);
	ExecDropSingleTupleTableSlot(part->slot);
	index_close(part->index, NoLock);
	table_close(part->rel, NoLock);
	part->rel = NULL;
}

/*
 * new_scan makes a scan over partitions first..last of the store, not begun.
 */
static EsScan *
new_scan(EsStore *store, int first, int last, Snapshot snapshot)
{
	EsScan	   *scan = palloc0(sizeof(EsScan));

	scan->store = store;
	scan->snapshot = snapshot;
	scan->lockmode = AccessShareLock;
	scan->direction = ForwardScanDirection;
	scan->context = CurrentMemoryContext;
	if (last >= first)
	{
		scan->nparts = last - first + 1;
		scan->parts = palloc0(scan->nparts * sizeof(PartScan));
		for (int i = 0; i < scan->nparts; i++)
			scan->parts[i].partition = store->partitions[first + i];
	}
	return scan;
}

/*
 * executor_reads tells whether the executor has to read for the current user,
 * because row security applies.  Scans with SnapshotSelf are our own probes.
 */
static bool
executor_reads(EsStore *store, Snapshot snapshot)
{
	if (snapshot == SnapshotSelf)
		return false;
	return !store->plain_read ||
		check_enable_rls(store->events, InvalidOid, false) == RLS_ENABLED;
}

/*
 * es_stream_extent finds the partitions (indexes into store->partitions) that
 * hold a stream's events, as the snapshot sees its row in "streams"; false if
 * it has none.  row, if not NULL, receives the row's place for an update.
 */
bool
es_stream_extent(EsStore *store, text *aggregate_type, text *aggregate_id,
				 Snapshot snapshot, int *first, int *last, ItemPointer row)
{
	Relation	rel = table_open(store->streams, AccessShareLock);
	Relation	index = index_open(store->streams_index, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan;
	ScanKeyData keys[2];
	bool		found;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, TEXTOID,
						   index->rd_indcollation[0], F_TEXTEQ, PointerGetDatum(aggregate_type));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, TEXTOID,
						   index->rd_indcollation[1], F_TEXTEQ, PointerGetDatum(aggregate_id));
	scan = es_index_beginscan(rel, index, snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
	{
		bool		isnull;
		TimestampTz low = DatumGetTimestampTz(slot_getattr(slot, 3, &isnull));
		TimestampTz high = DatumGetTimestampTz(slot_getattr(slot, 4, &isnull));

		if (row)
			*row = slot->tts_tid;
		/* a partition that was detached since leaves a bound without one */
		*first = 0;
		while (*first < store->npartitions && store->partitions[*first].upper <= low)
			(*first)++;
		*last = store->npartitions - 1;
		while (*last >= 0 && store->partitions[*last].lower > high)
			(*last)--;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return found;
}

/*
 * set_stream_keys makes the scan keys of one stream's versions.
 */
static void
set_stream_keys(EsScan *scan, text *aggregate_type, text *aggregate_id,
				int64 from_version, int64 to_version)
{
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(aggregate_type));
	ScanKeyInit(&scan->keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(aggregate_id));
	scan->nkeys = 2;
	if (from_version > 1)
		ScanKeyInit(&scan->keys[scan->nkeys++], 3, BTGreaterEqualStrategyNumber, F_INT8GE,
					Int64GetDatum(from_version));
	if (to_version < PG_INT64_MAX)
		ScanKeyInit(&scan->keys[scan->nkeys++], 3, BTLessEqualStrategyNumber, F_INT8LE,
					Int64GetDatum(to_version));
}

/*
 * es_scan_stream reads one stream's versions from..to (both inclusive), up or
 * down, as the snapshot sees them.
 */
EsScan *
es_scan_stream(EsStore *store, text *aggregate_type, text *aggregate_id,
			   int64 from_version, int64 to_version, bool backward,
			   Snapshot snapshot)
{
	EsScan	   *scan;
	int			first = 0;
	int			last = -1;

	if (executor_reads(store, snapshot))
	{
		scan = new_scan(store, 0, -1, snapshot);
		scan->rows = es_spi_stream(store, aggregate_type, aggregate_id,
								   from_version, to_version, backward, snapshot);
		scan->rows_slot = MakeSingleTupleTableSlot(es_event_tupdesc(), &TTSOpsMinimalTuple);
		return scan;
	}

	if (from_version <= to_version)
		(void) es_stream_extent(store, aggregate_type, aggregate_id, snapshot,
								&first, &last, NULL);
	scan = new_scan(store, first, last, snapshot);
	scan->direction = backward ? BackwardScanDirection : ForwardScanDirection;
	scan->current = backward ? scan->nparts - 1 : 0;
	set_stream_keys(scan, aggregate_type, aggregate_id, from_version, to_version);
	return scan;
}

/*
 * es_scan_stream_in reads the versions of a stream that one partition holds,
 * from the last down to from_version; for the append's probe.
 */
EsScan *
es_scan_stream_in(EsStore *store, int partition, text *aggregate_type, text *aggregate_id,
				  int64 from_version, Snapshot snapshot)
{
	EsScan	   *scan = new_scan(store, partition, partition, snapshot);

	/* the lock that the insert will want */
	scan->lockmode = RowExclusiveLock;
	scan->direction = BackwardScanDirection;
	set_stream_keys(scan, aggregate_type, aggregate_id, from_version, PG_INT64_MAX);
	return scan;
}

/*
 * es_scan_all reads events with after < global_position <= upto, ascending, and
 * ends before the first that horizon (if not NULL) does not see.
 */
EsScan *
es_scan_all(EsStore *store, int64 after, int64 upto, Snapshot snapshot, Snapshot horizon)
{
	EsScan	   *scan;

	if (executor_reads(store, snapshot))
	{
		if (horizon)
			upto = es_visible_bound(store, after, upto, snapshot, horizon);
		scan = new_scan(store, 0, -1, snapshot);
		scan->global = true;
		scan->rows_after = after;
		scan->rows_upto = upto;
		scan->rows = es_spi_all(store, after, upto, snapshot);
		scan->rows_slot = MakeSingleTupleTableSlot(es_event_tupdesc(), &TTSOpsMinimalTuple);
		return scan;
	}
	return es_scan_all_direct(store, after, upto, snapshot, horizon);
}

/*
 * es_scan_all_direct is es_scan_all without row security, for our own needs.
 */
EsScan *
es_scan_all_direct(EsStore *store, int64 after, int64 upto, Snapshot snapshot, Snapshot horizon)
{
	EsScan	   *scan = new_scan(store, 0, after < upto ? store->npartitions - 1 : -1, snapshot);

	scan->global = true;
	scan->horizon = horizon;
	ScanKeyInit(&scan->keys[0], 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
	ScanKeyInit(&scan->keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(upto));
	scan->nkeys = 2;
	scan->current = -1;			/* partitions are opened at the first row */
	return scan;
}

/*
 * es_visible_bound finds the last position up to which horizon sees everything
 * that the snapshot sees.
 */
int64
es_visible_bound(EsStore *store, int64 after, int64 upto, Snapshot snapshot, Snapshot horizon)
{
	EsScan	   *scan = es_scan_all_direct(store, after, upto, snapshot, horizon);
	int64		bound = after;

	while (es_scan_next(scan))
		bound = scan->last->position;
	es_scan_end(scan);
	return bound;
}

/*
 * load_part fetches a partition's next row in global order; closes the
 * partition at its end.
 */
static void
load_part(EsScan *scan, PartScan *part)
{
	bool		isnull;

	part->loaded = index_getnext_slot(part->scan, ForwardScanDirection, part->slot);
	if (part->loaded)
		part->position = DatumGetInt64(slot_getattr(part->slot, ES_ATT_GLOBAL_POSITION, &isnull));
	else
		close_part(part);
}

/*
 * next_global returns the row with the lowest position of all partitions.
 */
static TupleTableSlot *
next_global(EsScan *scan)
{
	PartScan   *lowest = NULL;

	if (scan->current < 0)
	{
		scan->current = 0;
		for (int i = 0; i < scan->nparts; i++)
		{
			open_part(scan, &scan->parts[i]);
			load_part(scan, &scan->parts[i]);
		}
	}
	else if (scan->last && scan->last->rel)
		load_part(scan, scan->last);

	for (int i = 0; i < scan->nparts; i++)
	{
		PartScan   *part = &scan->parts[i];

		if (part->rel && part->loaded && (lowest == NULL || part->position < lowest->position))
			lowest = part;
	}
	if (lowest && scan->horizon &&
		!table_tuple_satisfies_snapshot(lowest->rel, lowest->slot, scan->horizon))
	{
		/* the caller's snapshot ends here: what follows is for a later one */
		for (int i = 0; i < scan->nparts; i++)
			close_part(&scan->parts[i]);
		lowest = NULL;
	}
	scan->last = lowest;
	return lowest ? lowest->slot : NULL;
}

/*
 * next_in_stream returns the stream's next row, partition by partition.
 */
static TupleTableSlot *
next_in_stream(EsScan *scan)
{
	while (scan->current >= 0 && scan->current < scan->nparts)
	{
		PartScan   *part = &scan->parts[scan->current];

		if (part->rel == NULL)
			open_part(scan, part);
		if (index_getnext_slot(part->scan, scan->direction, part->slot))
			return part->slot;
		close_part(part);
		scan->current += ScanDirectionIsForward(scan->direction) ? 1 : -1;
	}
	return NULL;
}

/*
 * next_row returns the next of the rows that the executor read; in global
 * order it reads page after page.
 */
static TupleTableSlot *
next_row(EsScan *scan)
{
	bool		isnull;

	if (!tuplestore_gettupleslot(scan->rows, true, false, scan->rows_slot))
	{
		MemoryContext old;

		if (!scan->global ||scan->rows_read < es_spi_page)
			return NULL;
		tuplestore_end(scan->rows);
		old = MemoryContextSwitchTo(scan->context);
		scan->rows = es_spi_all(scan->store, scan->rows_after, scan->rows_upto, scan->snapshot);
		MemoryContextSwitchTo(old);
		scan->rows_read = 0;
		if (!tuplestore_gettupleslot(scan->rows, true, false, scan->rows_slot))
			return NULL;
	}
	scan->rows_read++;
	if (scan->global)
		scan->rows_after = DatumGetInt64(slot_getattr(scan->rows_slot, ES_ATT_GLOBAL_POSITION, &isnull));
	return scan->rows_slot;
}

/*
 * es_scan_upcast has the scan return events as the store's upcasters make them.
 */
void
es_scan_upcast(EsScan *scan)
{
	scan->upcasters = es_upcasters_open(scan->store);
}

/*
 * es_scan_next returns the next event, or NULL at the end.
 */
TupleTableSlot *
es_scan_next(EsScan *scan)
{
	TupleTableSlot *slot;

	CHECK_FOR_INTERRUPTS();
	if (scan->rows)
		slot = next_row(scan);
	else
		slot = scan->global ? next_global(scan) : next_in_stream(scan);
	return slot && scan->upcasters ? es_upcast(scan->upcasters, slot) : slot;
}

/*
 * es_scan_visible tells whether another snapshot sees the row that a scan of a
 * stream returned last.
 */
bool
es_scan_visible(EsScan *scan, TupleTableSlot *slot, Snapshot snapshot)
{
	return table_tuple_satisfies_snapshot(scan->parts[scan->current].rel, slot, snapshot);
}

/*
 * es_scan_end ends a scan, at its end or before.
 */
void
es_scan_end(EsScan *scan)
{
	for (int i = 0; i < scan->nparts; i++)
		close_part(&scan->parts[i]);
	if (scan->upcasters)
		es_upcasters_close(scan->upcasters);
	if (scan->rows)
	{
		ExecDropSingleTupleTableSlot(scan->rows_slot);
		tuplestore_end(scan->rows);
	}
	if (scan->parts)
		pfree(scan->parts);
	pfree(scan);
}

/*
 * es_event_datum makes a datum of the composite type es_event of a slot's row,
 * detoasted, in CurrentMemoryContext.
 */
Datum
es_event_datum(TupleTableSlot *slot)
{
	TupleDesc	desc = es_event_tupdesc();
	HeapTuple	tuple;
	Datum		result;
	bool		free_it;

	if (slot->tts_tupleDescriptor->natts == ES_NATTS)
	{
		tuple = ExecFetchSlotHeapTuple(slot, false, &free_it);
		/* an older row, from before a column was added, has fewer */
		if (HeapTupleHeaderGetNatts(tuple->t_data) == ES_NATTS)
		{
			result = heap_copy_tuple_as_datum(tuple, desc);
			if (free_it)
				heap_freetuple(tuple);
			return result;
		}
		if (free_it)
			heap_freetuple(tuple);
	}
	slot_getsomeattrs(slot, ES_NATTS);
	tuple = heap_form_tuple(desc, slot->tts_values, slot->tts_isnull);
	result = heap_copy_tuple_as_datum(tuple, desc);
	heap_freetuple(tuple);
	return result;
}
