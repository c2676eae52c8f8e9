/*
 * bounds.c
 *		Finds out, and remembers for the backend, which positions a partition
 *		can hold, so that a reader in global order opens one or two partitions
 *		and not those of five years.
 *
 * No partition later than the latest that is known to hold events has any that
 * are decided: whoever writes raises the latest before committing.  The bounds
 * of an earlier partition stay as they are, unless somebody writes into it late.
 * That is rare (the clock was set back, the month turned between two appends, an
 * import, a subscriber of logical replication), and counted: see find_bounds().
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store/position.h"
#include "store/store.h"

/*
 * end_position reads the lowest or highest position in an index, 0 if there is
 * none.
 */
static int64
end_position(Relation rel, Relation index, TupleTableSlot *slot, ScanDirection direction)
{
	IndexScanDesc scan = es_index_beginscan(rel, index, SnapshotSelf, 0);
	int64		position = 0;

	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, direction, slot))
	{
		bool		isnull;

		position = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
	}
	index_endscan(scan);
	return position;
}

/*
 * find_bounds reads a partition's first and last position, and tells whether
 * they hold until es_position_late() changes.
 *
 * Say that they are read and a transaction commits an event into the partition
 * later.  When it ends it finds that the partition is not the latest, since that
 * was so before the bounds were read; it changes the count, and only then clears
 * its slot.  A reader whose safe position includes the event computed it later
 * still, and looks at the count after that.
 */
static void
find_bounds(EsPartition *partition)
{
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;

	partition->bounded_at = es_position_late();
	partition->bounded = partition->lower != DT_NOBEGIN &&
		partition->lower < es_position_found_partition(DT_NOBEGIN);
	pg_memory_barrier();

	rel = table_open(partition->relid, AccessShareLock);
	index = index_open(partition->position_index, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	partition->last_position = end_position(rel, index, slot, BackwardScanDirection);
	partition->first_position = partition->last_position == 0 ? 0 :
		end_position(rel, index, slot, ForwardScanDirection);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/*
 * es_store_bounds reads the bounds of all of a store's partitions, notes the
 * latest that holds events, and returns the highest position in any.
 */
int64
es_store_bounds(EsStore *store)
{
	int64		highest = 0;

	/* the latest first, so that it is known to be when the others are read */
	for (int i = store->npartitions - 1; i >= 0; i--)
	{
		EsPartition *partition = &store->partitions[i];

		find_bounds(partition);
		if (partition->last_position > 0)
			(void) es_position_found_partition(partition->lower);
		highest = Max(highest, partition->last_position);
	}
	return highest;
}

/*
 * es_partition_may_hold tells whether a partition may hold events with after <
 * global_position <= upto, of which upto is at or below a safe position that
 * was computed before; and sets the position before which it has none.
 */
bool
es_partition_may_hold(EsStore *store, EsPartition *partition, int64 after, int64 upto,
					  int64 *from)
{
	TimestampTz latest;

	*from = 0;
	/* nobody counts on a standby, nor was such a store ever looked into */
	if (RecoveryInProgress() || !store->plain_read)
		return true;

	pg_memory_barrier();
	latest = es_position_found_partition(DT_NOBEGIN);
	if (partition->lower > latest)
		return false;
	if (partition->lower == latest || partition->lower == DT_NOBEGIN)
		return true;
	if (!partition->bounded || partition->bounded_at != es_position_late())
		find_bounds(partition);
	*from = partition->first_position;
	return partition->last_position > after && partition->first_position <= upto;
}
