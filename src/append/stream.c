/*
 * stream.c
 *		Keeps a stream's row in "streams": written when the stream begins and
 *		when it enters a new partition.
 *
 * The row is the system's book-keeping: it is written with no regard to the
 * privileges of who appends.
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "append/target.h"

/*
 * es_stream_enter_partition records that a stream, whose head was found before,
 * gets its next event in the given partition.
 */
void
es_stream_enter_partition(EsStore *store, text *aggregate_type, text *aggregate_id,
						  const EsStreamHead *head, const EsPartition *partition)
{
	EsTarget   *target;
	TupleTableSlot *slot;

	/* the row may come from this very command, when the month turns in it */
	if (head->has_row)
		CommandCounterIncrement();
	target = es_target_open(store->streams);
	slot = table_slot_create(target->rel, &target->estate->es_tupleTable);

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, target->rel->rd_att->natts);
	memset(slot->tts_isnull, false, 4);
	slot->tts_values[0] = PointerGetDatum(aggregate_type);
	slot->tts_values[1] = PointerGetDatum(aggregate_id);
	slot->tts_values[2] = TimestampTzGetDatum(partition->lower);
	slot->tts_values[3] = TimestampTzGetDatum(partition->lower);

	if (!head->has_row)
	{
		ExecStoreVirtualTuple(slot);
		ExecSimpleRelationInsert(target->relinfo, target->estate, slot);
	}
	else
	{
		TupleTableSlot *old = table_slot_create(target->rel, &target->estate->es_tupleTable);
		EPQState	epq;
		ItemPointerData row = head->row;
		bool		isnull;

		if (!table_tuple_fetch_row_version(target->rel, &row, SnapshotSelf, old))
			elog(ERROR, "row of a stream vanished under its lock");
		slot->tts_values[2] = slot_getattr(old, 3, &isnull);
		ExecStoreVirtualTuple(slot);

		EvalPlanQualInit(&epq, target->estate, NULL, NIL, -1 ES_EPQ_NO_RELIDS);
		EvalPlanQualSetSlot(&epq, old);
		ExecSimpleRelationUpdate(target->relinfo, target->estate, &epq, old, slot);
		EvalPlanQualEnd(&epq);
	}
	es_target_close(target);
}
