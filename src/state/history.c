/*
 * history.c
 *		A stream's states step by step: es_history(), es_diff(), es_replay(),
 *		and the state that another reducer would make.
 */
#include "state/state.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(es_history);
PG_FUNCTION_INFO_V1(es_diff);
PG_FUNCTION_INFO_V1(es_replay);
PG_FUNCTION_INFO_V1(es_state_by);
PG_FUNCTION_INFO_V1(es_json_diff_sql);

/* columns of es_history() and es_replay() */
#define HISTORY_COLUMNS	6
#define REPLAY_COLUMNS	8

/* A walk over versions from..to of a stream. */
typedef struct Walk
{
	EsStateQuery query;
	EsAggregate aggregate;
	int64		from;
	bool		replay;
	ReturnSetInfo *result;
	MemoryContext row;			/* of the step that runs */
	MemoryContext before;		/* of the step before: holds its state */
	Jsonb	   *state;			/* before the step, if known */
	Datum		values[REPLAY_COLUMNS];
	bool		nulls[REPLAY_COLUMNS];
	bool		stepping;		/* values are those of a step not finished */
} Walk;

static void begin_walk(FunctionCallInfo fcinfo, Walk *walk, int from_arg, int to_arg,
					   int store_arg);
static void walk_stream(Walk *walk);
static void walk_guarded(Walk *walk);
static void run_walk(void *walk);
static void note_event(Walk *walk, TupleTableSlot *slot);
static Datum copy_column(TupleTableSlot *slot, AttrNumber column, bool byvalue,
						 bool *isnull);
static void put_row(Walk *walk, Jsonb *after);
static void put_failure(Walk *walk, ErrorData *edata);
static Jsonb *state_at(EsStateQuery *query, EsAggregate *aggregate, int64 version);
static int64 version_argument(FunctionCallInfo fcinfo, int argno, const char *name,
							  int64 otherwise);

/*
 * es_history(aggregate_type, aggregate_id, from_version, to_version, store)
 * returns the state after each event, and what the event changed.
 */
Datum
es_history(PG_FUNCTION_ARGS)
{
	Walk		walk = {0};

	begin_walk(fcinfo, &walk, 2, 3, 4);
	walk.query.snapshots = es_snapshots_usable(walk.query.store);
	es_aggregate_load(walk.query.store, walk.query.aggregate_type,
					  walk.query.snapshot, &walk.aggregate);
	walk_stream(&walk);
	return (Datum) 0;
}

/*
 * es_replay(aggregate_type, aggregate_id, reducer, from_version, to_version,
 * initial, store) folds a stream from its first event, by another reducer than
 * the registered one if it is given, and returns each step.  It ends with the
 * event on which the reducer fails.
 */
Datum
es_replay(PG_FUNCTION_ARGS)
{
	Walk		walk = {0};
	Oid			reducer;

	begin_walk(fcinfo, &walk, 3, 4, 6);
	walk.replay = true;
	if (!PG_ARGISNULL(2))
		reducer = PG_GETARG_OID(2);
	else
	{
		es_aggregate_load(walk.query.store, walk.query.aggregate_type,
						  walk.query.snapshot, &walk.aggregate);
		reducer = walk.aggregate.reducer;
	}
	es_aggregate_scratch(walk.query.store, walk.query.aggregate_type,
						 walk.query.snapshot, reducer,
						 PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5),
						 &walk.aggregate);
	walk_guarded(&walk);
	return (Datum) 0;
}

/*
 * es_diff(aggregate_type, aggregate_id, from_version, to_version, store)
 * returns the JSON patch that makes the state at one version that at another;
 * NULL if the aggregate does not exist.
 */
Datum
es_diff(PG_FUNCTION_ARGS)
{
	EsStateQuery query = {0};
	EsAggregate aggregate;
	Jsonb	   *from;
	Jsonb	   *to;
	int64		from_version;
	int64		to_version;

	query.aggregate_type = es_identifier_arg(fcinfo, 0, "aggregate_type");
	query.aggregate_id = es_identifier_arg(fcinfo, 1, "aggregate_id");
	from_version = version_argument(fcinfo, 2, "from_version", 0);
	to_version = version_argument(fcinfo, 3, "to_version", PG_INT64_MAX);
	query.store = es_store_open(es_store_name_arg(fcinfo, 4), AccessShareLock);
	es_store_check_acl(query.store, ACL_SELECT);
	query.as_of = DT_NOEND;
	query.snapshots = es_snapshots_usable(query.store);
	query.snapshot = GetActiveSnapshot();
	query.reducer = es_kept_reducer(fcinfo);
	es_aggregate_load(query.store, query.aggregate_type, query.snapshot, &aggregate);

	to = state_at(&query, &aggregate, to_version);
	from = state_at(&query, &aggregate, from_version);
	if (from == NULL || to == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(es_json_diff(from, to));
}

/*
 * es_state_by(aggregate_type, aggregate_id, version, replace, reducer, initial,
 * store) returns the state at a version (0: the initial one), if replace by
 * another reducer than the registered one and without snapshots.
 */
Datum
es_state_by(PG_FUNCTION_ARGS)
{
	EsStateQuery query = {0};
	EsAggregate aggregate;
	Jsonb	   *state;
	bool		replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);

	query.aggregate_type = es_identifier_arg(fcinfo, 0, "aggregate_type");
	query.aggregate_id = es_identifier_arg(fcinfo, 1, "aggregate_id");
	query.store = es_store_open(es_store_name_arg(fcinfo, 6), AccessShareLock);
	es_store_check_acl(query.store, ACL_SELECT);
	query.as_of = DT_NOEND;
	query.snapshots = !replace && es_snapshots_usable(query.store);
	query.snapshot = GetActiveSnapshot();
	query.reducer = es_kept_reducer(fcinfo);
	if (replace)
		es_aggregate_scratch(query.store, query.aggregate_type, query.snapshot,
							 PG_ARGISNULL(4) ? InvalidOid : PG_GETARG_OID(4),
							 PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5), &aggregate);
	else
		es_aggregate_load(query.store, query.aggregate_type, query.snapshot, &aggregate);

	state = state_at(&query, &aggregate,
					 version_argument(fcinfo, 2, "version", PG_INT64_MAX));
	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(state);
}

/*
 * es_json_diff_sql(from, to) returns the JSON patch that makes one value the
 * other.
 */
Datum
es_json_diff_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(es_json_diff(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1)));
}

/*
 * begin_walk reads what the functions have in common of arguments, and prepares
 * their result.
 */
static void
begin_walk(FunctionCallInfo fcinfo, Walk *walk, int from_arg, int to_arg,
		   int store_arg)
{
	EsStateQuery *query = &walk->query;

	query->aggregate_type = es_identifier_arg(fcinfo, 0, "aggregate_type");
	query->aggregate_id = es_identifier_arg(fcinfo, 1, "aggregate_id");
	walk->from = Max(version_argument(fcinfo, from_arg, "from_version", 1), 1);
	query->version = version_argument(fcinfo, to_arg, "to_version", PG_INT64_MAX);
	query->store = es_store_open(es_store_name_arg(fcinfo, store_arg), AccessShareLock);
	es_store_check_acl(query->store, ACL_SELECT);
	query->as_of = DT_NOEND;
	query->snapshot = GetActiveSnapshot();
	query->reducer = es_kept_reducer(fcinfo);

	InitMaterializedSRF(fcinfo, 0);
	walk->result = (ReturnSetInfo *) fcinfo->resultinfo;
	walk->row = AllocSetContextCreate(CurrentMemoryContext, "eventsrc history",
									  ALLOCSET_DEFAULT_SIZES);
	walk->before = AllocSetContextCreate(CurrentMemoryContext, "eventsrc history",
										 ALLOCSET_DEFAULT_SIZES);
}

/*
 * walk_stream folds the events one by one and returns a row for each from
 * walk->from on.
 */
static void
walk_stream(Walk *walk)
{
	EsStateQuery *query = &walk->query;
	Jsonb	   *start = walk->aggregate.initial;
	int64		folded = 0;
	EsFold	   *fold;
	EsScan	   *scan;
	TupleTableSlot *slot;

	if (query->snapshots && walk->from > 1)
		folded = es_snapshot_find(query->store, query->aggregate_type,
								  query->aggregate_id, walk->from - 1, DT_NOEND,
								  walk->aggregate.identity, query->snapshot, &start);
	fold = es_fold_begin(&walk->aggregate, query->reducer, query->aggregate_type,
						 query->aggregate_id, start);
	scan = es_scan_stream(query->store, query->aggregate_type, query->aggregate_id,
						  folded + 1, query->version, false, query->snapshot);
	es_scan_upcast(scan);
	while ((slot = es_scan_next(scan)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(walk->row);
		bool		shown;

		note_event(walk, slot);
		shown = DatumGetInt64(walk->values[0]) >= walk->from;
		if (shown && walk->state == NULL)
		{
			MemoryContextSwitchTo(walk->before);
			walk->state = es_fold_state(fold);
		}

		/* the fold allocates nothing outside its own contexts */
		walk->stepping = true;
		es_fold_event(fold, slot);
		walk->stepping = false;

		MemoryContextSwitchTo(walk->row);
		if (shown)
			put_row(walk, es_fold_state(fold));
		else
			MemoryContextReset(walk->row);
		MemoryContextSwitchTo(caller);
	}
	es_scan_end(scan);
	(void) es_fold_end(fold);
}

/*
 * walk_guarded walks in a subtransaction, so that the steps before an error are
 * returned, and the error as a row.
 */
static void
walk_guarded(Walk *walk)
{
	ErrorData  *error = es_run_guarded(run_walk, walk);

	if (error == NULL)
		return;
	/* only the reducer's mistakes are steps */
	if (!walk->stepping || es_error_stops(error))
		ReThrowError(error);
	put_failure(walk, error);
}

/*
 * run_walk is walk_stream for es_run_guarded().
 */
static void
run_walk(void *walk)
{
	walk_stream(walk);
}

/*
 * note_event copies what is returned of an event, so that it outlasts an error.
 */
static void
note_event(Walk *walk, TupleTableSlot *slot)
{
	memset(walk->nulls, 0, sizeof(walk->nulls));
	walk->values[0] = copy_column(slot, ES_ATT_VERSION, true, &walk->nulls[0]);
	walk->values[1] = copy_column(slot, ES_ATT_RECORDED_AT, true, &walk->nulls[1]);
	walk->values[2] = copy_column(slot, ES_ATT_EVENT_TYPE, false, &walk->nulls[2]);
	walk->values[3] = copy_column(slot, walk->replay ? ES_ATT_DATA : ES_ATT_USER_ID,
								  false, &walk->nulls[3]);
}

/*
 * copy_column copies a column's value into the current memory context.
 */
static Datum
copy_column(TupleTableSlot *slot, AttrNumber column, bool byvalue, bool *isnull)
{
	Datum		value = slot_getattr(slot, column, isnull);

	if (*isnull || byvalue)
		return value;
	return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/*
 * put_row returns a finished step; the state after it is the next one's before.
 */
static void
put_row(Walk *walk, Jsonb *after)
{
	MemoryContext before = walk->before;
	Datum		changes = JsonbPGetDatum(es_json_diff(walk->state, after));

	if (walk->replay)
	{
		walk->values[4] = JsonbPGetDatum(walk->state);
		walk->values[5] = JsonbPGetDatum(after);
		walk->values[6] = changes;
		walk->nulls[7] = true;
	}
	else
	{
		walk->values[4] = JsonbPGetDatum(after);
		walk->values[5] = changes;
	}
	tuplestore_putvalues(walk->result->setResult, walk->result->setDesc,
						 walk->values, walk->nulls);

	walk->state = after;
	walk->before = walk->row;
	walk->row = before;
	MemoryContextReset(walk->row);
}

/*
 * put_failure returns the step at which the reducer failed.
 */
static void
put_failure(Walk *walk, ErrorData *edata)
{
	walk->nulls[4] = walk->state == NULL;
	walk->values[4] = PointerGetDatum(walk->state);
	walk->nulls[5] = true;
	walk->nulls[6] = true;
	walk->values[7] = CStringGetTextDatum(psprintf("%s: %s",
												   unpack_sql_state(edata->sqlerrcode),
												   edata->message ? edata->message : ""));
	tuplestore_putvalues(walk->result->setResult, walk->result->setDesc,
						 walk->values, walk->nulls);
}

/*
 * state_at returns the state at a version: the initial one at 0, NULL if the
 * aggregate does not exist.
 */
static Jsonb *
state_at(EsStateQuery *query, EsAggregate *aggregate, int64 version)
{
	EsStateAnswer answer;

	if (version == 0)
		return aggregate->initial;
	query->version = version;
	query->to_version = version != PG_INT64_MAX;
	es_state_compute(query, aggregate, &answer);
	return answer.state;
}

/*
 * version_argument reads a version that may be NULL.
 */
static int64
version_argument(FunctionCallInfo fcinfo, int argno, const char *name,
				 int64 otherwise)
{
	int64		version;

	if (PG_ARGISNULL(argno))
		return otherwise;
	version = PG_GETARG_INT64(argno);
	if (version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be negative", name),
				 errdetail("%s=" INT64_FORMAT, name, version),
				 errhint("Versions count from 1; 0 is the initial state.")));
	return version;
}
