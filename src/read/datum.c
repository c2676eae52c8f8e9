/*
 * datum.c
 *		Events as values of the type es_event.
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "executor/tuptable.h"

#include "read/scan.h"

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
