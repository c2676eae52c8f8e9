/*
 * fold.c
 *		The fold of events into a state, by the built-in merge or by a user's
 *		reducer, which is called directly, not through a statement an event.
 *
 * Memory stays bounded over any number of events: what a step allocates goes
 * when the next but one begins; only the state is carried over.
 */
#include "state/state.h"

#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

struct EsFold
{
	EsAggregate *aggregate;
	text	   *aggregate_type;
	text	   *aggregate_id;
	Jsonb	   *state;			/* not used while merge is open */
	EsMerge    *merge;			/* built-in; opened by the first event */
	FmgrInfo   *reducer;
	MemoryContext context;
	MemoryContext step;			/* of the step that runs */
	MemoryContext carried;		/* of the step before: holds the state */

	/* the event that the reducer looks at, for the error's context */
	int64		version;
	Datum		event_type;
};

static void call_reducer(EsFold *fold, TupleTableSlot *slot);
static void add_context(void *arg);

/*
 * es_fold_begin prepares to fold events into the state start.  reducer (may be
 * NULL for the built-in merge) is set up unless it is so already; keeping it
 * between calls saves the reducer's own start-up.
 */
EsFold *
es_fold_begin(EsAggregate *aggregate, FmgrInfo *reducer, text *aggregate_type,
			  text *aggregate_id, Jsonb *start)
{
	MemoryContext context;
	EsFold	   *fold;

	context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc fold",
									ALLOCSET_DEFAULT_SIZES);
	fold = MemoryContextAllocZero(context, sizeof(EsFold));
	fold->context = context;
	fold->aggregate = aggregate;
	fold->aggregate_type = aggregate_type;
	fold->aggregate_id = aggregate_id;
	fold->state = start;
	fold->step = AllocSetContextCreate(context, "eventsrc fold step",
									   ALLOCSET_DEFAULT_SIZES);

	if (OidIsValid(aggregate->reducer))
	{
		es_reducer_check_acl(aggregate->reducer);
		if (reducer->fn_oid != aggregate->reducer)
			fmgr_info_cxt(aggregate->reducer, reducer, reducer->fn_mcxt);
		fold->reducer = reducer;
		fold->carried = AllocSetContextCreate(context, "eventsrc fold step",
											  ALLOCSET_DEFAULT_SIZES);
	}
	return fold;
}

/*
 * es_fold_event folds one more event.
 */
void
es_fold_event(EsFold *fold, TupleTableSlot *slot)
{
	MemoryContext caller;
	Datum		data;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();

	if (fold->reducer)
	{
		call_reducer(fold, slot);
		return;
	}

	if (fold->merge == NULL)
	{
		caller = MemoryContextSwitchTo(fold->context);
		fold->merge = es_merge_begin(fold->state);
		MemoryContextSwitchTo(caller);
	}
	data = slot_getattr(slot, ES_ATT_DATA, &isnull);
	if (isnull)
		return;
	caller = MemoryContextSwitchTo(fold->step);
	es_merge_add(fold->merge, data);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(fold->step);
}

/*
 * es_fold_end returns the state in the current memory context, and frees what
 * the fold held.
 */
Jsonb *
es_fold_end(EsFold *fold)
{
	Jsonb	   *state;

	if (fold->merge)
		state = es_merge_end(fold->merge);
	else
		state = DatumGetJsonbPCopy(PointerGetDatum(fold->state));
	MemoryContextDelete(fold->context);
	return state;
}

/*
 * call_reducer has a user's reducer make the next state.
 */
static void
call_reducer(EsFold *fold, TupleTableSlot *slot)
{
	LOCAL_FCINFO(fcinfo, 2);
	PgStat_FunctionCallUsage usage;
	ErrorContextCallback callback;
	MemoryContext caller;
	Datum		result;
	bool		isnull;

	fold->version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
	fold->event_type = slot_getattr(slot, ES_ATT_EVENT_TYPE, &isnull);

	caller = MemoryContextSwitchTo(fold->step);
	InitFunctionCallInfoData(*fcinfo, fold->reducer, 2, DEFAULT_COLLATION_OID,
							 NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(fold->state);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = es_event_datum(slot);
	fcinfo->args[1].isnull = false;

	callback.callback = add_context;
	callback.arg = fold;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);

	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_ES_REDUCER_FAILED),
				 errmsg("reducer returned NULL"),
				 errdetail("A reducer must return the new state for every event; SQL operators give NULL when an operand is NULL."),
				 errhint("Return the state that was passed in for events that change nothing, and wrap values that can be missing in coalesce().")));

	error_context_stack = callback.previous;
	MemoryContextSwitchTo(caller);

	/* the state may be what was passed in, then it stays where it is */
	if (DatumGetPointer(result) == (Pointer) fold->state)
		MemoryContextReset(fold->step);
	else
	{
		MemoryContext before = fold->carried;

		fold->carried = fold->step;
		fold->step = before;
		fold->state = (Jsonb *) DatumGetPointer(result);
		MemoryContextReset(before);
	}
}

/*
 * add_context tells which reducer failed, and on which event.
 */
static void
add_context(void *arg)
{
	EsFold	   *fold = arg;
	struct varlena *event_type = (struct varlena *) DatumGetPointer(fold->event_type);
	bool		plain = !VARATT_IS_EXTERNAL(event_type) &&
		!VARATT_IS_COMPRESSED(event_type);
	const char *identity = fold->aggregate->identity;
	const char *name_end = strrchr(identity, '#');

	/* no catalog is read here: the identity begins with the reducer's name */
	errcontext("reducer %.*s on %s %s at version " INT64_FORMAT ", event type %s",
			   (int) (name_end - identity), identity,
			   text_to_cstring(fold->aggregate_type),
			   text_to_cstring(fold->aggregate_id),
			   fold->version,
			   plain ? text_to_cstring((text *) event_type) : "(long)");
}
