/*
 * published.c
 *		The safe position on a standby: the primary's, as its worker published
 *		it.
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store/position.h"

/*
 * es_position_published reads, on a standby, the row that the primary's worker
 * writes: WAL replay shows the row only after every event that it covers.
 */
int64
es_position_published(void)
{
	Oid			relid = get_relname_relid("published_position", es_private_schema());
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	int64		position = 0;

	if (!OidIsValid(relid))
		return 0;
	rel = table_open(relid, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, snapshot, 0, NULL);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		position = DatumGetInt64(slot_getattr(slot, 2, &isnull));
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return position;
}
