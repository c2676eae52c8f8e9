/*
 * fold.c
 *		The fold of events into a state, by a built-in reducer or by a user's,
 *		which is called directly, not through a statement an event, or run as a
 *		program (program.c).
 *
 * Memory stays bounded over any number of events: what a step allocates goes
 * when the next but one begins; only the state is carried over.
 */
#include "state/state.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/expandeddatum.h"
#include "utils/memutils.h"

#include "store/texts.h"

struct EsFold
{
	EsAggregate *aggregate;
	EsReducer  *reducer;		/* NULL: the built-in merge */
	text	   *aggregate_type;
	text	   *aggregate_id;
	bool		merging;		/* by a built-in reducer */
	Datum		state;			/* not used while merge is open */
	bool		isnull;			/* only a typed state can be */
	EsMerge    *merge;			/* opened by the first event */
	MemoryContext context;
	MemoryContext step;			/* of the step that runs */
	MemoryContext carried;		/* of the step before: holds the state, or
								 * what merge opened */

	/* the event that the reducer looks at, for the error's context */
	int64		version;
	Datum		event_type;
};

static void set_state(EsFold *fold, Jsonb *state);
static Jsonb *find_restored(TupleTableSlot *slot);
static void merge_event(EsFold *fold, TupleTableSlot *slot);
static void open_merge(EsFold *fold);
static void reduce(EsFold *fold, TupleTableSlot *slot);
static bool run_program(EsFold *fold, TupleTableSlot *slot);
static void call_reducer(EsFold *fold, TupleTableSlot *slot);
static Datum invoke(EsFold *fold, Datum state, TupleTableSlot *slot);
static void exchange_contexts(EsFold *fold);
static void add_context(void *arg);

/*
 * es_fold_begin prepares to fold events into the state start, which must last
 * as long as the fold.  reducer is set up unless it is so already.
 */
EsFold *
es_fold_begin(EsAggregate *aggregate, EsReducer *reducer, text *aggregate_type,
			  text *aggregate_id, Jsonb *start)
{
	MemoryContext context;
	EsFold	   *fold;

	context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc fold",
									ALLOCSET_SMALL_SIZES);
	fold = MemoryContextAllocZero(context, sizeof(EsFold));
	fold->context = context;
	fold->aggregate = aggregate;
	fold->aggregate_type = aggregate_type;
	fold->step = AllocSetContextCreate(context, "eventsrc fold step",
									   ALLOCSET_DEFAULT_SIZES);
	fold->carried = AllocSetContextCreate(context, "eventsrc fold step",
										  ALLOCSET_DEFAULT_SIZES);

	if (OidIsValid(aggregate->reducer))
	{
		es_reducer_check_acl(aggregate->reducer);
		es_reducer_prepare(reducer, aggregate->reducer);
		fold->reducer = reducer;
	}
	fold->merging = fold->reducer == NULL || reducer->patch;
	es_fold_restart(fold, aggregate_id, start);
	return fold;
}

/*
 * es_fold_restart begins anew with another aggregate of the same type.
 */
void
es_fold_restart(EsFold *fold, text *aggregate_id, Jsonb *start)
{
	fold->aggregate_id = aggregate_id;
	fold->version = 0;
	fold->merge = NULL;
	MemoryContextReset(fold->carried);
	if (fold->merging || fold->reducer->state_type == JSONBOID)
	{
		fold->state = JsonbPGetDatum(start);
		fold->isnull = false;
	}
	else
		set_state(fold, start);
}

/*
 * es_fold_event folds one more event.
 */
void
es_fold_event(EsFold *fold, TupleTableSlot *slot)
{
	Jsonb	   *restored;

	CHECK_FOR_INTERRUPTS();

	restored = find_restored(slot);
	if (unlikely(restored != NULL))
		set_state(fold, restored);
	else if (fold->merging)
		merge_event(fold, slot);
	else
		reduce(fold, slot);
}

/*
 * es_fold_state returns the state in the current memory context, or NULL for a
 * typed state that is NULL.  The fold can go on.
 */
Jsonb *
es_fold_state(EsFold *fold)
{
	if (fold->merge)
		return es_merge_state(fold->merge);
	if (!fold->merging && fold->reducer->state_type != JSONBOID)
		return es_typed_to_jsonb(fold->reducer, fold->state, fold->isnull);
	return DatumGetJsonbPCopy(fold->state);
}

/*
 * es_fold_end returns the state in the current memory context, and frees what
 * the fold held.
 */
Jsonb *
es_fold_end(EsFold *fold)
{
	Jsonb	   *state = es_fold_state(fold);

	MemoryContextDelete(fold->context);
	return state;
}

/*
 * set_state makes a given state the present one.
 */
static void
set_state(EsFold *fold, Jsonb *state)
{
	MemoryContext caller = MemoryContextSwitchTo(fold->step);

	fold->merge = NULL;
	if (fold->merging || fold->reducer->state_type == JSONBOID)
	{
		fold->state = PointerGetDatum(DatumGetJsonbPCopy(JsonbPGetDatum(state)));
		fold->isnull = false;
	}
	else
		fold->state = es_typed_from_jsonb(fold->reducer, state, &fold->isnull);
	MemoryContextSwitchTo(caller);
	exchange_contexts(fold);
}

/*
 * find_restored returns the state that an event of es_undo() brings back, or
 * NULL for any other event.
 */
static Jsonb *
find_restored(TupleTableSlot *slot)
{
	bool		isnull;
	struct varlena *type;
	Jsonb	   *data;
	JsonbValue *state;

	type = (struct varlena *) DatumGetPointer(slot_getattr(slot, ES_ATT_EVENT_TYPE, &isnull));
	if (isnull || VARATT_IS_EXTERNAL(type) || VARATT_IS_COMPRESSED(type) ||
		!es_text_is(type, ES_RESTORED_TYPE))
		return NULL;

	data = DatumGetJsonbP(slot_getattr(slot, ES_ATT_DATA, &isnull));
	if (isnull || !JB_ROOT_IS_OBJECT(data) ||
		getKeyJsonValueFromContainer(&data->root, "restored_version",
									 strlen("restored_version"), NULL) == NULL)
		return NULL;
	state = getKeyJsonValueFromContainer(&data->root, "state", strlen("state"), NULL);
	return state ? JsonbValueToJsonb(state) : NULL;
}

/*
 * merge_event has a built-in reducer fold an event.
 */
static void
merge_event(EsFold *fold, TupleTableSlot *slot)
{
	MemoryContext caller;
	Datum		data;
	bool		isnull;

	if (fold->merge == NULL)
		open_merge(fold);
	data = slot_getattr(slot, ES_ATT_DATA, &isnull);
	if (isnull)
		return;
	caller = MemoryContextSwitchTo(fold->step);
	if (fold->reducer)
		es_merge_patch_add(fold->merge, data);
	else
		es_merge_add(fold->merge, data);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(fold->step);
}

/*
 * open_merge opens the state.  What a state before it left in carried is dropped
 * with the next one that is not added to.
 */
static void
open_merge(EsFold *fold)
{
	MemoryContext caller = MemoryContextSwitchTo(fold->carried);

	fold->merge = es_merge_begin(DatumGetJsonbP(fold->state));
	MemoryContextSwitchTo(caller);
}

/*
 * reduce has a user's reducer make the next state.
 */
static void
reduce(EsFold *fold, TupleTableSlot *slot)
{
	ErrorContextCallback callback;
	MemoryContext caller;
	bool		isnull;

	fold->version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
	fold->event_type = slot_getattr(slot, ES_ATT_EVENT_TYPE, &isnull);

	callback.callback = add_context;
	callback.arg = fold;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	caller = MemoryContextSwitchTo(fold->step);

	if (!es_program_usable(fold->reducer) || !run_program(fold, slot))
	{
		call_reducer(fold, slot);
		es_program_learn(fold->reducer);
	}

	MemoryContextSwitchTo(caller);
	error_context_stack = callback.previous;
}

/*
 * run_program has the reducer's program make the next state; false if it
 * cannot.
 */
static bool
run_program(EsFold *fold, TupleTableSlot *slot)
{
	LOCAL_FCINFO(fcinfo, 2);
	PgStat_FunctionCallUsage usage;
	EsProgram  *program = fold->reducer->program;
	int			nparts;

	/* for those who count calls, it is one */
	InitFunctionCallInfoData(*fcinfo, &fold->reducer->call, 2, DEFAULT_COLLATION_OID, NULL, NULL);
	pgstat_init_function_usage(fcinfo, &usage);
	if (!es_program_run(program, slot, fold->merge, fold->state))
	{
		MemoryContextReset(fold->step);
		return false;
	}
	pgstat_end_function_usage(&usage, true);
	nparts = es_program_parts(program);
	if (nparts < 0 || (nparts > 0 && fold->merge == NULL && !es_program_opens(program)))
	{
		/* it may lie in the event, or in the state before */
		fold->state = JsonbPGetDatum(DatumGetJsonbPCopy(es_program_write(program)));
		fold->merge = NULL;
		exchange_contexts(fold);
		return true;
	}
	if (nparts > 0 && fold->merge == NULL)
		open_merge(fold);
	if (nparts > 0)
		es_program_add(program, fold->merge);
	MemoryContextReset(fold->step);
	return true;
}

/*
 * call_reducer calls a user's reducer, in the memory context of the step.
 */
static void
call_reducer(EsFold *fold, TupleTableSlot *slot)
{
	Datum		state = fold->merge ? JsonbPGetDatum(es_merge_state(fold->merge)) : fold->state;
	Datum		result = invoke(fold, state, slot);

	/* the state may be what was passed in, then it stays where it is */
	if (!fold->isnull && DatumGetPointer(result) == DatumGetPointer(state))
		MemoryContextReset(fold->step);
	else
	{
		fold->state = result;
		fold->isnull = false;
		fold->merge = NULL;
		exchange_contexts(fold);
	}
}

/*
 * invoke calls the reducer with the present state and an event.
 */
static Datum
invoke(EsFold *fold, Datum state, TupleTableSlot *slot)
{
	LOCAL_FCINFO(fcinfo, 2);
	PgStat_FunctionCallUsage usage;
	Datum		result = (Datum) 0;

	InitFunctionCallInfoData(*fcinfo, &fold->reducer->call, 2,
							 DEFAULT_COLLATION_OID, NULL, NULL);
	fcinfo->args[0].value = state;
	fcinfo->args[0].isnull = fold->isnull;
	fcinfo->args[1].value = es_event_datum(slot);
	fcinfo->args[1].isnull = false;

	if (fold->isnull && fold->reducer->call.fn_strict)
		fcinfo->isnull = true;
	else
	{
		pgstat_init_function_usage(fcinfo, &usage);
		result = FunctionCallInvoke(fcinfo);
		pgstat_end_function_usage(&usage, true);
	}

	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_ES_REDUCER_FAILED),
				 errmsg("reducer returned NULL"),
				 errdetail("A reducer must return the new state for every event; SQL operators give NULL when an operand is NULL."),
				 errhint("Return the state that was passed in for events that change nothing, and wrap values that can be missing in coalesce().")));

	/* a state that stays open would belong to whom it is passed to next */
	if (VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(result)))
	{
		ExpandedObjectHeader *expanded = DatumGetEOHP(result);
		Size		size = EOH_get_flat_size(expanded);
		void	   *flat = palloc(size);

		EOH_flatten_into(expanded, flat, size);
		result = PointerGetDatum(flat);
	}
	return result;
}

/*
 * exchange_contexts keeps what the step allocated, and forgets what the step
 * before did.
 */
static void
exchange_contexts(EsFold *fold)
{
	MemoryContext before = fold->carried;

	fold->carried = fold->step;
	fold->step = before;
	MemoryContextReset(before);
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
	const char *where = fold->reducer->program ? es_program_where(fold->reducer->program) : NULL;

	if (where)
		errcontext("%s", where);

	/* no catalog is read here: the identity begins with the reducer's name */
	errcontext("reducer %.*s on %s %s at version " INT64_FORMAT ", event type %s",
			   (int) (name_end - identity), identity,
			   text_to_cstring(fold->aggregate_type),
			   text_to_cstring(fold->aggregate_id),
			   fold->version,
			   plain ? text_to_cstring((text *) event_type) : "(long)");
}
