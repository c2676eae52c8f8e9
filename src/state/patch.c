/*
 * patch.c
 *		es_merge_patch(): the reducer that applies events' data as merge
 *		patches (RFC 7396).
 *
 * A fold recognizes it and does not call it, but keeps the state open.
 */
#include "state/state.h"

#include "access/htup_details.h"
#include "executor/executor.h"

PG_FUNCTION_INFO_V1(es_merge_patch);

/*
 * es_merge_patch(state, event) returns the state with the event's data applied
 * as a merge patch.
 */
Datum
es_merge_patch(PG_FUNCTION_ARGS)
{
	EsMerge    *merge;
	Datum		data;
	bool		isnull;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(1))
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	data = GetAttributeByNum(PG_GETARG_HEAPTUPLEHEADER(1), ES_ATT_DATA, &isnull);
	if (isnull)
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));

	merge = es_merge_begin(PG_GETARG_JSONB_P(0));
	es_merge_patch_add(merge, data);
	PG_RETURN_JSONB_P(es_merge_state(merge));
}
