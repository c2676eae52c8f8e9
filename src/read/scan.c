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
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "read/rows.h"
#include "read/scan.h"
#include "read/spiscan.h"
#include "store/position.h"
#include "read/upcast.h"

/* the scan of one partition */
typedef struct PartScan
{
	EsPartition partition;
	Relation	rel;			/* NULL: not open */
	Relation	index;
	IndexScanDesc scan;
	EsRows	   *rows;
	TupleTableSlot *slot;
	bool		begun;			/* global order: it was opened, ... */
	int64		from;			/* ... which need not be before this position */
	int64		position;		/* global order: of the slot's row, if others
								 * are not at their end either */
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
	bool		latest_only;	/* stream order: parts is a first guess */
	int64		first_version;	/* stream order, forward: with it nothing
								 * earlier is wanted */
	PartScan   *last;			/* global order: whose row was returned */
	int			nopen;			/* global order: partitions not at their end */

	Tuplestorestate *rows;		/* read by the executor, where row security
								 * applies */
	TupleTableSlot *rows_slot;
	int64		rows_after;		/* global order: the page's last position, ... */
	int64		rows_upto;
	int			rows_read;		/* ... and how many of its rows were returned */
	MemoryContext context;
	EsUpcasters *upcasters;		/* NULL: events as they are stored */
};

static int64 find_visible_bound(EsStore *store, int64 after, int64 upto,
								Snapshot snapshot, Snapshot horizon);

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
		es_compare_as(&scan->keys[i], part->index);
	part->scan = es_index_beginscan(part->rel, part->index, scan->snapshot, scan->nkeys);
	index_rescan(part->scan, scan->keys, scan->nkeys, NULL, 0);
	part->rows = es_rows_begin(part->rel, part->scan, part->slot);
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
	es_rows_end(part->rows);
	index_endscan(part->scan);
	ExecDropSingleTupleTableSlot(part->slot);
	index_close(part->index, NoLock);
	table_close(part->rel, NoLock);
	part->rel = NULL;
}

/*
 * set_parts sets the partitions, first..last of the store, that a scan reads.
 */
static void
set_parts(EsScan *scan, int first, int last)
{
	if (scan->parts)
		pfree(scan->parts);
	scan->nparts = Max(last - first + 1, 0);
	scan->parts = NULL;
	if (scan->nparts > 0)
		scan->parts = palloc0(scan->nparts * sizeof(PartScan));
	for (int i = 0; i < scan->nparts; i++)
		scan->parts[i].partition = scan->store->partitions[first + i];
	scan->current = ScanDirectionIsForward(scan->direction) ? 0 : scan->nparts - 1;
}

/*
 * new_scan makes a scan over partitions first..last of the store, not begun.
 */
static EsScan *
new_scan(EsStore *store, int first, int last, ScanDirection direction, Snapshot snapshot)
{
	EsScan	   *scan = palloc0(sizeof(EsScan));

	scan->store = store;
	scan->snapshot = snapshot;
	scan->lockmode = AccessShareLock;
	scan->direction = direction;
	scan->context = CurrentMemoryContext;
	set_parts(scan, first, last);
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
 * latest_partition finds the partition (an index into the store's) behind which
 * no event can lie; -1 if we do not know.  Whoever appends tells where before
 * the event can be seen, and es_store_open looks at what was there before.
 */
static int
latest_partition(EsStore *store)
{
	TimestampTz latest;

	if (RecoveryInProgress())
		return -1;
	latest = es_position_latest_partition(DT_NOBEGIN);
	for (int i = store->npartitions - 1; i >= 0; i--)
	{
		if (store->partitions[i].lower <= latest)
			return i;
	}
	return -1;
}

/*
 * es_scan_stream reads one stream's versions from..to (both inclusive), up or
 * down, as the snapshot sees them.
 *
 * The store's latest partition is tried first, which for most streams that are
 * read spares the look into "streams": downwards the first rows come from
 * there, and upwards all do if the first version that is wanted is there, as
 * time does not run backwards within a stream.
 */
EsScan *
es_scan_stream(EsStore *store, text *aggregate_type, text *aggregate_id,
			   int64 from_version, int64 to_version, bool backward,
			   Snapshot snapshot)
{
	ScanDirection direction = backward ? BackwardScanDirection : ForwardScanDirection;
	EsScan	   *scan;
	int			first = 0;
	int			last = -1;
	int			latest = -1;

	if (executor_reads(store, snapshot))
	{
		scan = new_scan(store, 0, -1, direction, snapshot);
		scan->rows = es_spi_stream(store, aggregate_type, aggregate_id,
								   from_version, to_version, backward, snapshot);
		scan->rows_slot = MakeSingleTupleTableSlot(es_event_tupdesc(), &TTSOpsMinimalTuple);
		return scan;
	}

	if (from_version <= to_version)
	{
		latest = latest_partition(store);
		if (latest >= 0)
			first = last = latest;
		else
			(void) es_stream_extent(store, aggregate_type, aggregate_id, snapshot,
									&first, &last, NULL, NULL);
	}
	scan = new_scan(store, first, last, direction, snapshot);
	scan->latest_only = (latest >= 0);
	scan->first_version = Max(from_version, 1);
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
	EsScan	   *scan = new_scan(store, partition, partition, BackwardScanDirection, snapshot);

	/* the lock that the insert will want */
	scan->lockmode = RowExclusiveLock;
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
			upto = find_visible_bound(store, after, upto, snapshot, horizon);
		scan = new_scan(store, 0, -1, ForwardScanDirection, snapshot);
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
	EsScan	   *scan = new_scan(store, 0, after < upto ? store->npartitions - 1 : -1,
								ForwardScanDirection, snapshot);
	int			nparts = scan->nparts;

	scan->nparts = 0;
	for (int i = 0; i < nparts; i++)
	{
		PartScan   *part = &scan->parts[scan->nparts];

		if (es_partition_may_hold(store, &store->partitions[i], after, upto, &part->from))
		{
			part->partition = store->partitions[i];
			scan->nparts++;
		}
	}
	scan->nopen = scan->nparts;
	scan->global = true;
	scan->horizon = horizon;
	ScanKeyInit(&scan->keys[0], 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
	ScanKeyInit(&scan->keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(upto));
	scan->nkeys = 2;
	return scan;
}

/*
 * position_of reads the global position of a partition's present row.
 */
static int64
position_of(PartScan *part)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(part->slot, ES_ATT_GLOBAL_POSITION, &isnull));
}

/*
 * find_visible_bound finds the last position up to which horizon sees everything
 * that the snapshot sees.
 */
static int64
find_visible_bound(EsStore *store, int64 after, int64 upto, Snapshot snapshot, Snapshot horizon)
{
	EsScan	   *scan = es_scan_all_direct(store, after, upto, snapshot, horizon);
	int64		bound = after;

	while (es_scan_next(scan))
		bound = position_of(scan->last);
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
	if (!es_rows_next(part->rows, ForwardScanDirection))
	{
		close_part(part);
		scan->nopen--;
	}
	else if (scan->nopen > 1)
		part->position = position_of(part);
}

/*
 * lowest_part finds the partition whose row has the lowest position.
 */
static PartScan *
lowest_part(EsScan *scan)
{
	PartScan   *lowest = NULL;

	for (PartScan *part = scan->parts; part < scan->parts + scan->nparts; part++)
	{
		if (part->rel && (lowest == NULL || part->position < lowest->position))
			lowest = part;
	}
	return lowest;
}

/*
 * next_unbegun returns the partition that has to be opened next, because it may
 * hold a position up to the given one; NULL if there is none.
 */
static PartScan *
next_unbegun(EsScan *scan, int64 position)
{
	PartScan   *next = NULL;

	for (int i = 0; i < scan->nparts; i++)
	{
		PartScan   *part = &scan->parts[i];

		if (!part->begun && part->from <= position && (next == NULL || part->from < next->from))
			next = part;
	}
	return next;
}

/*
 * next_global returns the row with the lowest position of all partitions.  A
 * partition is opened when its turn comes.
 */
static TupleTableSlot *
next_global(EsScan *scan)
{
	PartScan   *lowest;
	PartScan   *unbegun;

	if (scan->last && scan->last->rel)
		load_part(scan, scan->last);

	if (scan->nopen == 1 && scan->last && scan->last->rel)
		lowest = scan->last;
	else
	{
		lowest = lowest_part(scan);
		while ((unbegun = next_unbegun(scan, lowest ? lowest->position : PG_INT64_MAX)) != NULL)
		{
			open_part(scan, unbegun);
			unbegun->begun = true;
			load_part(scan, unbegun);
			lowest = lowest_part(scan);
		}
	}
	if (lowest && scan->horizon &&
		!table_tuple_satisfies_snapshot(lowest->rel, lowest->slot, scan->horizon))
	{
		/* the caller's snapshot ends here: what follows is for a later one */
		for (int i = 0; i < scan->nparts; i++)
		{
			scan->parts[i].begun = true;
			close_part(&scan->parts[i]);
		}
		scan->nopen = 0;
		lowest = NULL;
	}
	scan->last = lowest;
	return lowest ? lowest->slot : NULL;
}

/*
 * look_further sets the partitions to read after the latest one has been tried.
 * Downwards its rows were returned, so it is not read once more.
 */
static void
look_further(EsScan *scan)
{
	TimestampTz latest = scan->parts[0].partition.lower;
	int			first = 0;
	int			last = -1;

	scan->latest_only = false;
	(void) es_stream_extent(scan->store, DatumGetTextPP(scan->keys[0].sk_argument),
							DatumGetTextPP(scan->keys[1].sk_argument), scan->snapshot,
							&first, &last, NULL, NULL);
	if (ScanDirectionIsBackward(scan->direction))
	{
		while (last >= first && scan->store->partitions[last].lower >= latest)
			last--;
	}
	set_parts(scan, first, last);
}

/*
 * begin_in_latest reads the first row in the latest partition, upwards: true if
 * it is the one that the scan has to begin with.
 */
static bool
begin_in_latest(EsScan *scan)
{
	PartScan   *part = &scan->parts[0];
	bool		isnull;

	open_part(scan, part);
	if (es_rows_next(part->rows, scan->direction) &&
		DatumGetInt64(slot_getattr(part->slot, ES_ATT_VERSION, &isnull)) == scan->first_version)
	{
		scan->latest_only = false;
		return true;
	}
	close_part(part);
	look_further(scan);
	return false;
}

/*
 * next_in_stream returns the stream's next row, partition by partition.
 */
static TupleTableSlot *
next_in_stream(EsScan *scan)
{
	if (scan->latest_only && ScanDirectionIsForward(scan->direction) && begin_in_latest(scan))
		return scan->parts[0].slot;
	while (scan->current >= 0 && scan->current < scan->nparts)
	{
		PartScan   *part = &scan->parts[scan->current];

		if (part->rel == NULL)
			open_part(scan, part);
		if (es_rows_next(part->rows, scan->direction))
			return part->slot;
		close_part(part);
		scan->current += ScanDirectionIsForward(scan->direction) ? 1 : -1;
		if (scan->latest_only)
			look_further(scan);
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
