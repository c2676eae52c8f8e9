/*
 * stream.c
 *		Keeps a stream's row in "streams": written when the stream begins, when
 *		it enters a new partition, and when it is closed.
 *
 * The row is the system's book-keeping: it is written with no regard to the
 * privileges of who appends.
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "append/target.h"
#include "read/scan.h"

/* attribute numbers of streams */
#define ATT_AGGREGATE_TYPE	1
#define ATT_AGGREGATE_ID	2
#define ATT_FIRST_PARTITION	3
#define ATT_LAST_PARTITION	4
#define ATT_CLOSED			5

/*
 * insert_row writes the row of a new stream.
 */
static void
insert_row(EsTarget *target, text *aggregate_type, text *aggregate_id,
		   TimestampTz first_partition, TimestampTz last_partition)
{
	TupleTableSlot *slot = es_target_slots(target, 1)[0];

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, target->rel->rd_att->natts);
	memset(slot->tts_isnull, false, ATT_CLOSED);
	slot->tts_values[ATT_AGGREGATE_TYPE - 1] = PointerGetDatum(aggregate_type);
	slot->tts_values[ATT_AGGREGATE_ID - 1] = PointerGetDatum(aggregate_id);
	slot->tts_values[ATT_FIRST_PARTITION - 1] = TimestampTzGetDatum(first_partition);
	slot->tts_values[ATT_LAST_PARTITION - 1] = TimestampTzGetDatum(last_partition);
	slot->tts_values[ATT_CLOSED - 1] = BoolGetDatum(false);
	ExecStoreVirtualTuple(slot);
	ExecSimpleRelationInsert(target->relinfo, target->estate, slot);
}

/*
 * update_row sets one column of a stream's row.
 */
static void
update_row(EsTarget *target, ItemPointerData row, AttrNumber attribute, Datum value)
{
	TupleTableSlot *slot = es_target_slots(target, 1)[0];
	TupleTableSlot *old = table_slot_create(target->rel, &target->estate->es_tupleTable);
	int			natts = target->rel->rd_att->natts;
	EPQState	epq;

	if (!table_tuple_fetch_row_version(target->rel, &row, SnapshotSelf, old))
		elog(ERROR, "row of a stream vanished under its lock");
	slot_getallattrs(old);

	ExecClearTuple(slot);
	memcpy(slot->tts_values, old->tts_values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, old->tts_isnull, natts * sizeof(bool));
	slot->tts_values[attribute - 1] = value;
	slot->tts_isnull[attribute - 1] = false;
	ExecStoreVirtualTuple(slot);

	EvalPlanQualInit(&epq, target->estate, NULL, NIL, -1 ES_EPQ_NO_RELIDS);
	EvalPlanQualSetSlot(&epq, old);
	ExecSimpleRelationUpdate(target->relinfo, target->estate, &epq, old, slot);
	EvalPlanQualEnd(&epq);
}

/*
 * es_stream_enter_partition records that a stream, whose head was found before,
 * gets its next event in the given partition.
 */
void
es_stream_enter_partition(EsStore *store, text *aggregate_type, text *aggregate_id,
						  const EsStreamHead *head, const EsPartition *partition)
{
	EsTarget   *target;

	/* the row may come from this very command, when the month turns in it */
	if (head->has_row)
		CommandCounterIncrement();
	target = es_target_open(store, store->streams);
	if (head->has_row)
		update_row(target, head->row, ATT_LAST_PARTITION, TimestampTzGetDatum(partition->lower));
	else
		insert_row(target, aggregate_type, aggregate_id, partition->lower, partition->lower);
	es_target_close(target);
}

/*
 * es_stream_record does so for a stream that an import brought through several
 * partitions; begins is true if it had no events before.
 */
void
es_stream_record(EsStore *store, text *aggregate_type, text *aggregate_id, bool begins,
				 TimestampTz first_partition, TimestampTz last_partition)
{
	EsTarget   *target;
	ItemPointerData row;
	int			first;
	int			last;
	bool		found = !begins &&
		es_stream_extent(store, aggregate_type, aggregate_id, SnapshotSelf, &first, &last, &row, NULL);

	/* the row may come from this very command */
	if (found)
		CommandCounterIncrement();
	target = es_target_open(store, store->streams);
	if (found)
		update_row(target, row, ATT_LAST_PARTITION, TimestampTzGetDatum(last_partition));
	else
		insert_row(target, aggregate_type, aggregate_id, first_partition, last_partition);
	es_target_close(target);
}

/*
 * es_stream_is_closed tells whether a stream is marked closed, by whomever.
 */
bool
es_stream_is_closed(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	Relation	rel = table_open(store->streams, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData row;
	int			first;
	int			last;
	bool		isnull;
	bool		closed = false;

	if (es_stream_extent(store, aggregate_type, aggregate_id, SnapshotSelf, &first, &last, &row, NULL) &&
		table_tuple_fetch_row_version(rel, &row, SnapshotSelf, slot))
		closed = DatumGetBool(slot_getattr(slot, ATT_CLOSED, &isnull)) && !isnull;
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return closed;
}

/*
 * es_stream_close marks a stream closed; the caller holds its lock, and appends
 * the event that closes it.
 */
void
es_stream_close(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	EsTarget   *target;
	ItemPointerData row;
	int			first;
	int			last;

	if (!es_stream_extent(store, aggregate_type, aggregate_id, SnapshotSelf, &first, &last, &row, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_ES_STORE_DAMAGED),
				 errmsg("store \"%s\" is not as eventsrc made it", NameStr(store->name)),
				 errdetail("Table \"streams\" has no row for stream %s %s, which has events.",
						   text_to_cstring(aggregate_type), text_to_cstring(aggregate_id)),
				 errhint("Undo the change, or restore the store from a dump.")));

	/* the row may come from this very command */
	CommandCounterIncrement();
	target = es_target_open(store, store->streams);
	update_row(target, row, ATT_CLOSED, BoolGetDatum(true));
	es_target_close(target);
}
