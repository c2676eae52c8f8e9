/*
 * extent.c
 *		Finds the partitions that hold a stream's events, and compares what a
 *		stream is found by.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "read/scan.h"
#include "store/texts.h"

static Datum equal_texts(PG_FUNCTION_ARGS);

/*
 * es_stream_extent finds the partitions (indexes into store->partitions) that
 * hold a stream's events, as the snapshot sees its row in "streams"; false if
 * it has none.  row, if not NULL, receives the row's place for an update; lost,
 * if not NULL, whether the partition of the last events is not there.
 */
bool
es_stream_extent(EsStore *store, text *aggregate_type, text *aggregate_id,
				 Snapshot snapshot, int *first, int *last, ItemPointer row, bool *lost)
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
		if (lost)
			*lost = (*last < 0 || store->partitions[*last].upper <= high);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return found;
}

/*
 * es_compare_as has a condition on a column of an index compare as the index
 * does.  Every row of a stream is compared with its type and id, so texts go by
 * a function that looks up no collation where it is "C".
 */
void
es_compare_as(ScanKey key, Relation index)
{
	key->sk_collation = index->rd_indcollation[key->sk_attno - 1];
	if (key->sk_func.fn_oid == F_TEXTEQ)
		key->sk_func.fn_addr = key->sk_collation == C_COLLATION_OID ? equal_texts : texteq;
}

/*
 * equal_texts is texteq() for the collation "C".
 */
static Datum
equal_texts(PG_FUNCTION_ARGS)
{
	struct varlena *one = (struct varlena *) PG_GETARG_POINTER(0);
	struct varlena *other = (struct varlena *) PG_GETARG_POINTER(1);

	if ((VARATT_IS_EXTENDED(one) && !VARATT_IS_SHORT(one)) ||
		(VARATT_IS_EXTENDED(other) && !VARATT_IS_SHORT(other)))
		return texteq(fcinfo);
	PG_RETURN_BOOL(es_text_same(one, other));
}
