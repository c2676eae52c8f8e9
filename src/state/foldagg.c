/*
 * foldagg.c
 *		es_fold(event): the fold as an SQL aggregate, for ad-hoc queries.
 *
 *			SELECT aggregate_id, es_fold(e ORDER BY version)
 *			FROM es.events e WHERE aggregate_type = 'Order' GROUP BY 1;
 *
 * An event is a row of type es_event, or of a store's table events, which then
 * tells the store too.  The state stays open, and windows that ask for it
 * after each row get a copy.
 */
#include "state/state.h"

#include "access/htup_details.h"
#include "catalog/partition.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "read/upcast.h"
#include "store/texts.h"

PG_FUNCTION_INFO_V1(es_fold_step);
PG_FUNCTION_INFO_V1(es_fold_final);

/* What one query keeps for all its groups. */
typedef struct FoldCalls
{
	EsReducer	reducer;
	Oid			type;			/* of the rows that were seen last */
	int32		typmod;
	TupleDesc	desc;			/* a copy */
	NameData	store;			/* empty: the setting eventsrc.store */
	AttrNumber	columns[ES_NATTS];	/* where those of es_event stand */
	Datum	   *values;
	bool	   *nulls;
	TupleTableSlot *slot;
	EsUpcasters *upcasters;		/* of the store, NULL: none */
} FoldCalls;

/* A group's state. */
typedef struct FoldGroup
{
	EsAggregate aggregate;
	text	   *aggregate_type;
	EsFold	   *fold;
} FoldGroup;

static FoldCalls *kept_calls(FunctionCallInfo fcinfo);
static void look_at_type(FoldCalls *calls, MemoryContext context, Oid type, int32 typmod);
static void read_event(FoldCalls *calls, MemoryContext context, HeapTupleHeader row);
static FoldGroup *begin_group(FoldCalls *calls);
static void check_same_type(FoldGroup *group, TupleTableSlot *slot);

/*
 * es_fold_step(state, event) folds one more event.
 */
Datum
es_fold_step(PG_FUNCTION_ARGS)
{
	MemoryContext aggregate;
	MemoryContext caller;
	FoldCalls  *calls;
	FoldGroup  *group = PG_ARGISNULL(0) ? NULL : (FoldGroup *) PG_GETARG_POINTER(0);

	if (!AggCheckCallContext(fcinfo, &aggregate))
		elog(ERROR, "es_fold_step() called in non-aggregate context");
	if (PG_ARGISNULL(1))
	{
		if (group == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(group);
	}

	calls = kept_calls(fcinfo);
	read_event(calls, fcinfo->flinfo->fn_mcxt, PG_GETARG_HEAPTUPLEHEADER(1));
	caller = MemoryContextSwitchTo(aggregate);
	if (group == NULL)
		group = begin_group(calls);
	else
		check_same_type(group, calls->slot);
	es_fold_event(group->fold, calls->upcasters ? es_upcast(calls->upcasters, calls->slot) : calls->slot);
	MemoryContextSwitchTo(caller);
	PG_RETURN_POINTER(group);
}

/*
 * es_fold_final(state) returns the state, and leaves it open.
 */
Datum
es_fold_final(PG_FUNCTION_ARGS)
{
	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "es_fold_final() called in non-aggregate context");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(es_fold_state(((FoldGroup *) PG_GETARG_POINTER(0))->fold));
}

/*
 * kept_calls returns what the query keeps.
 */
static FoldCalls *
kept_calls(FunctionCallInfo fcinfo)
{
	FoldCalls  *calls = fcinfo->flinfo->fn_extra;
	MemoryContext caller;

	if (calls == NULL)
	{
		caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		calls = palloc0(sizeof(FoldCalls));
		calls->reducer.context = fcinfo->flinfo->fn_mcxt;
		calls->slot = MakeSingleTupleTableSlot(es_event_tupdesc(), &TTSOpsVirtual);
		MemoryContextSwitchTo(caller);
		fcinfo->flinfo->fn_extra = calls;
	}
	return calls;
}

/*
 * look_at_type finds the columns of es_event in a row type, and the store.
 */
static void
look_at_type(FoldCalls *calls, MemoryContext context, Oid type, int32 typmod)
{
	TupleDesc	event = es_event_tupdesc();
	TupleDesc	desc = lookup_rowtype_tupdesc(type, typmod);
	Oid			table = type == es_event_type() ? InvalidOid : get_typ_typrelid(type);
	EsStore    *store = NULL;
	MemoryContext caller = MemoryContextSwitchTo(context);

	calls->type = InvalidOid;
	calls->desc = CreateTupleDescCopy(desc);
	calls->values = palloc(sizeof(Datum) * desc->natts);
	calls->nulls = palloc(sizeof(bool) * desc->natts);
	ReleaseTupleDesc(desc);
	desc = calls->desc;
	MemoryContextSwitchTo(caller);

	if (OidIsValid(table))
	{
		if (get_rel_relispartition(table))
			table = llast_oid(get_partition_ancestors(table));
		store = es_store_of_relation(table);
	}
	if (type != es_event_type() && store == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("es_fold() folds events, not rows of type %s", format_type_be(type)),
				 errhint("Pass rows of a store's table events or of type es_event, as in: SELECT es_fold(e ORDER BY version) FROM es_read_stream('Order', '1') e.")));
	calls->store = store ? store->name : (NameData)
	{
		""
	};

	for (int i = 0; i < ES_NATTS; i++)
	{
		calls->columns[i] = 0;
		for (int j = 0; j < desc->natts; j++)
		{
			Form_pg_attribute column = TupleDescAttr(desc, j);

			if (!column->attisdropped &&
				strcmp(NameStr(column->attname), NameStr(TupleDescAttr(event, i)->attname)) == 0)
				calls->columns[i] = j + 1;
		}
	}
	caller = MemoryContextSwitchTo(context);
	calls->upcasters = es_upcasters_open(es_store_open(store ? NameStr(store->name) : NULL, AccessShareLock));
	MemoryContextSwitchTo(caller);
	calls->type = type;
	calls->typmod = typmod;
}

/*
 * read_event puts a row's columns into the slot, in the order of es_event.
 */
static void
read_event(FoldCalls *calls, MemoryContext context, HeapTupleHeader row)
{
	HeapTupleData tuple;
	TupleTableSlot *slot = calls->slot;

	if (calls->type != HeapTupleHeaderGetTypeId(row) ||
		calls->typmod != HeapTupleHeaderGetTypMod(row))
		look_at_type(calls, context, HeapTupleHeaderGetTypeId(row),
					 HeapTupleHeaderGetTypMod(row));

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, calls->desc, calls->values, calls->nulls);

	ExecClearTuple(slot);
	for (int i = 0; i < ES_NATTS; i++)
	{
		AttrNumber	column = calls->columns[i];

		slot->tts_isnull[i] = column == 0 || calls->nulls[column - 1];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : calls->values[column - 1];
	}
	ExecStoreVirtualTuple(slot);
	if (slot->tts_isnull[ES_ATT_AGGREGATE_TYPE - 1] || slot->tts_isnull[ES_ATT_AGGREGATE_ID - 1] ||
		slot->tts_isnull[ES_ATT_VERSION - 1] || slot->tts_isnull[ES_ATT_EVENT_TYPE - 1])
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("es_fold() was given an event without aggregate_type, aggregate_id, version or event_type"),
				 errhint("Pass whole rows of a store's table events or of type es_event.")));
}

/*
 * begin_group begins the fold of a group with the event in the slot.
 */
static FoldGroup *
begin_group(FoldCalls *calls)
{
	FoldGroup  *group = palloc0(sizeof(FoldGroup));
	EsStore    *store = es_store_open(NameStr(calls->store)[0] ? NameStr(calls->store) : NULL,
									  AccessShareLock);
	Datum	   *values = calls->slot->tts_values;

	group->aggregate_type = DatumGetTextPCopy(values[ES_ATT_AGGREGATE_TYPE - 1]);
	es_aggregate_load(store, group->aggregate_type, GetActiveSnapshot(), &group->aggregate);
	group->fold = es_fold_begin(&group->aggregate, &calls->reducer, group->aggregate_type,
								DatumGetTextPCopy(values[ES_ATT_AGGREGATE_ID - 1]),
								group->aggregate.initial);
	return group;
}

/*
 * check_same_type raises ERRCODE_ES_INVALID_ARGUMENT for an event of another
 * aggregate type than its group's: that has another reducer.
 */
static void
check_same_type(FoldGroup *group, TupleTableSlot *slot)
{
	text	   *type = DatumGetTextPP(slot->tts_values[ES_ATT_AGGREGATE_TYPE - 1]);

	if (!es_text_same(type, group->aggregate_type))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("es_fold() was given events of several aggregate types"),
				 errdetail("A group has events of %s and of %s.",
						   text_to_cstring(group->aggregate_type), text_to_cstring(type)),
				 errhint("Add aggregate_type (and aggregate_id) to GROUP BY or PARTITION BY.")));
}
