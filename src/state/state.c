/*
 * state.c
 *		es_state(): the state of an aggregate at any version and time.
 *
 * The events are read with the active snapshot, as a plain query would, and
 * folded from the latest snapshot that serves.  Snapshots are left out where
 * row security hides events from the caller: they would tell of those.
 */
#include "state/state.h"

#include "access/xlog.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"

#include "read/rows.h"
#include "store/position.h"

#define TIMESTAMPTZ_LESS	1322	/* operator < of timestamptz */

/* arguments of es_state() and es_explain_state() */
#define ARG_AGGREGATE_TYPE	0
#define ARG_AGGREGATE_ID	1
#define ARG_VERSION			2
#define ARG_AS_OF			3
#define ARG_OCCURRED		4
#define ARG_STORE			5

PG_FUNCTION_INFO_V1(es_state);
PG_FUNCTION_INFO_V1(es_explain_state);
PG_FUNCTION_INFO_V1(es_snapshot_counts);

static void answer_call(FunctionCallInfo fcinfo, EsAggregate *aggregate,
						EsStateAnswer *answer);
static void read_arguments(FunctionCallInfo fcinfo, EsStateQuery *query);
static void fold_recorded(EsStateQuery *query, EsFold *fold,
						  EsStateAnswer *answer);
static void fold_occurred(EsStateQuery *query, EsFold *fold,
						  EsStateAnswer *answer);
static Tuplesortstate *sort_occurred(EsStateQuery *query, TupleDesc *sorted);
static void count_snapshot(EsAggregate *aggregate, EsStateAnswer *answer);
static void check_version(EsStateQuery *query);

/*
 * es_state returns the state of an aggregate, or NULL if there is none.
 */
Datum
es_state(PG_FUNCTION_ARGS)
{
	EsAggregate aggregate;
	EsStateAnswer answer;

	answer_call(fcinfo, &aggregate, &answer);
	if (answer.state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(answer.state);
}

/*
 * es_explain_state returns the state with how it was found: the version that
 * it is of, the snapshot that was used, the events that were folded.
 */
Datum
es_explain_state(PG_FUNCTION_ARGS)
{
	EsAggregate aggregate;
	EsStateAnswer answer;
	TupleDesc	tupdesc;
	Datum		values[5] = {0};
	bool		nulls[5] = {0};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	answer_call(fcinfo, &aggregate, &answer);
	nulls[0] = answer.state == NULL;
	values[0] = PointerGetDatum(answer.state);
	nulls[1] = answer.version == 0;
	values[1] = Int64GetDatum(answer.version);
	nulls[2] = answer.snapshot_version == 0;
	values[2] = Int64GetDatum(answer.snapshot_version);
	values[3] = Int64GetDatum(answer.replayed);
	values[4] = CStringGetTextDatum(aggregate.identity);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}

/*
 * es_snapshot_counts returns how many states began at a snapshot in this
 * database since the server's start, and how many found none where there should
 * be one.
 */
Datum
es_snapshot_counts(PG_FUNCTION_ARGS)
{
	EsDatabase *db = es_database();
	TupleDesc	tupdesc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum((int64) pg_atomic_read_u64(&db->snapshot_hits));
	values[1] = Int64GetDatum((int64) pg_atomic_read_u64(&db->snapshot_misses));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/*
 * es_state_compute answers a query, by the aggregate type's reducer.
 */
void
es_state_compute(EsStateQuery *query, EsAggregate *aggregate,
				 EsStateAnswer *answer)
{
	Jsonb	   *start = aggregate->initial;
	EsFold	   *fold;

	check_stack_depth();
	memset(answer, 0, sizeof(EsStateAnswer));
	if (query->version == 0)
		return;

	if (query->from_version > 0)
	{
		answer->version = query->from_version;
		start = query->from_state;
	}
	else if (query->snapshots && !query->occurred)
		answer->snapshot_version = answer->version =
			es_snapshot_find(query->store, query->aggregate_type,
							 query->aggregate_id, query->version,
							 query->as_of, aggregate->identity,
							 query->snapshot, &start);

	fold = es_fold_begin(aggregate, query->reducer, query->aggregate_type,
						 query->aggregate_id, start);
	if (query->occurred)
		fold_occurred(query, fold, answer);
	else
		fold_recorded(query, fold, answer);

	if (answer->version > 0)
		answer->state = es_fold_end(fold);
	if (query->snapshots && !query->occurred && !query->uncounted)
		count_snapshot(aggregate, answer);
	if (query->to_version && answer->version < query->version)
		check_version(query);
}

/*
 * count_snapshot counts whether a snapshot served, where there should be one.
 */
static void
count_snapshot(EsAggregate *aggregate, EsStateAnswer *answer)
{
	/* a standby counts nothing: its entry is found under a lock */
	if (RecoveryInProgress())
		return;
	if (answer->snapshot_version > 0)
		pg_atomic_fetch_add_u64(&es_database()->snapshot_hits, 1);
	else if (aggregate->snapshot_every > 0 && answer->version >= aggregate->snapshot_every)
		pg_atomic_fetch_add_u64(&es_database()->snapshot_misses, 1);
}

/*
 * answer_call answers a call of es_state() or es_explain_state().
 */
static void
answer_call(FunctionCallInfo fcinfo, EsAggregate *aggregate,
			EsStateAnswer *answer)
{
	EsStateQuery query = {0};

	read_arguments(fcinfo, &query);
	es_store_check_acl(query.store, ACL_SELECT);
	query.snapshots = es_snapshots_usable(query.store);
	query.snapshot = GetActiveSnapshot();
	query.reducer = es_kept_reducer(fcinfo);

	es_aggregate_load(query.store, query.aggregate_type, query.snapshot,
					  aggregate);
	es_state_compute(&query, aggregate, answer);
}

/*
 * read_arguments checks the arguments and opens the store.
 */
static void
read_arguments(FunctionCallInfo fcinfo, EsStateQuery *query)
{
	query->aggregate_type = es_identifier_arg(fcinfo, ARG_AGGREGATE_TYPE,
											  "aggregate_type");
	query->aggregate_id = es_identifier_arg(fcinfo, ARG_AGGREGATE_ID,
											"aggregate_id");

	query->to_version = !PG_ARGISNULL(ARG_VERSION);
	query->version = query->to_version ? PG_GETARG_INT64(ARG_VERSION) :
		PG_INT64_MAX;
	if (query->version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("version must not be negative"),
				 errdetail("version=" INT64_FORMAT, query->version),
				 errhint("Versions count from 1; leave version out for the latest state.")));

	query->as_of = DT_NOEND;
	if (!PG_ARGISNULL(ARG_AS_OF))
		query->as_of = PG_GETARG_TIMESTAMPTZ(ARG_AS_OF);
	query->occurred = !PG_ARGISNULL(ARG_OCCURRED) &&
		PG_GETARG_BOOL(ARG_OCCURRED);

	query->store = es_store_open(es_store_name_arg(fcinfo, ARG_STORE),
								 AccessShareLock);
}

/*
 * es_identifier_arg returns a text argument that must be there.
 */
text *
es_identifier_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno) ||
		VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(argno)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be NULL or empty", name),
				 errhint("Pass the text that the events were appended with.")));
	return PG_GETARG_TEXT_PP(argno);
}

/*
 * es_kept_reducer returns where the calls of one query keep the reducer, so that
 * it is set up once, not once a row.
 */
EsReducer *
es_kept_reducer(FunctionCallInfo fcinfo)
{
	EsReducer  *reducer = fcinfo->flinfo->fn_extra;

	if (reducer == NULL)
	{
		reducer = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
										 sizeof(EsReducer));
		reducer->context = fcinfo->flinfo->fn_mcxt;
		fcinfo->flinfo->fn_extra = reducer;
	}
	return reducer;
}

/*
 * es_snapshots_usable tells whether snapshots may serve the current user: not
 * where row security hides events, of which they would tell.
 */
bool
es_snapshots_usable(EsStore *store)
{
	return check_enable_rls(store->events, InvalidOid, true) != RLS_ENABLED;
}

/*
 * fold_recorded folds the events in the order of their versions, up to the
 * query's version and moment.
 */
static void
fold_recorded(EsStateQuery *query, EsFold *fold, EsStateAnswer *answer)
{
	EsScan	   *scan;
	TupleTableSlot *slot;
	bool		isnull;

	scan = es_scan_stream(query->store, query->aggregate_type,
						  query->aggregate_id, answer->version + 1,
						  query->version, false, query->snapshot);
	es_scan_upcast(scan);
	while ((slot = es_scan_next(scan)) != NULL)
	{
		/* at once what every event is asked for */
		es_rows_deform(slot);

		/* recorded_at never runs backwards within a stream */
		if (query->as_of != DT_NOEND &&
			DatumGetTimestampTz(slot_getattr(slot, ES_ATT_RECORDED_AT,
											 &isnull)) > query->as_of)
			break;

		answer->version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION,
													 &isnull));
		if (answer->version == query->version)
			answer->recorded_at =
				DatumGetTimestampTz(slot_getattr(slot, ES_ATT_RECORDED_AT,
												 &isnull));
		es_fold_event(fold, slot);
		answer->replayed++;
	}
	es_scan_end(scan);
}

/*
 * fold_occurred folds the events in the order in which they happened, which
 * can differ from the order in which they were recorded.
 */
static void
fold_occurred(EsStateQuery *query, EsFold *fold, EsStateAnswer *answer)
{
	TupleDesc	sorted;
	Tuplesortstate *sort = sort_occurred(query, &sorted);
	TupleTableSlot *from = MakeSingleTupleTableSlot(sorted, &TTSOpsMinimalTuple);
	TupleTableSlot *event = MakeSingleTupleTableSlot(es_event_tupdesc(),
													 &TTSOpsVirtual);

	while (tuplesort_gettupleslot(sort, true, false, from, NULL))
	{
		int64		version;

		slot_getallattrs(from);
		ExecClearTuple(event);
		memcpy(event->tts_values, from->tts_values, sizeof(Datum) * ES_NATTS);
		memcpy(event->tts_isnull, from->tts_isnull, sizeof(bool) * ES_NATTS);
		ExecStoreVirtualTuple(event);

		es_fold_event(fold, event);
		answer->replayed++;
		version = DatumGetInt64(event->tts_values[ES_ATT_VERSION - 1]);
		answer->version = Max(answer->version, version);
	}
	ExecDropSingleTupleTableSlot(event);
	ExecDropSingleTupleTableSlot(from);
	tuplesort_end(sort);
}

/*
 * sort_occurred sorts the events of the query by the time at which they
 * happened, then by version.  The sort spills to disk beyond work_mem.
 */
static Tuplesortstate *
sort_occurred(EsStateQuery *query, TupleDesc *sorted)
{
	TupleDesc	event = es_event_tupdesc();
	AttrNumber	columns[2] = {ES_NATTS + 1, ES_ATT_VERSION};
	Oid			operators[2] = {TIMESTAMPTZ_LESS, Int8LessOperator};
	Oid			collations[2] = {InvalidOid, InvalidOid};
	bool		nulls_first[2] = {false, false};
	Tuplesortstate *sort;
	TupleTableSlot *slot;
	TupleTableSlot *row;
	EsScan	   *scan;

	*sorted = CreateTemplateTupleDesc(ES_NATTS + 1);
	for (int i = 1; i <= ES_NATTS; i++)
		TupleDescCopyEntry(*sorted, i, event, i);
	TupleDescInitEntry(*sorted, ES_NATTS + 1, "happened_at", TIMESTAMPTZOID,
					   -1, 0);

	sort = tuplesort_begin_heap(*sorted, 2, columns, operators, collations,
								nulls_first, work_mem, NULL,
								TUPLESORT_NONE);
	row = MakeSingleTupleTableSlot(*sorted, &TTSOpsVirtual);
	scan = es_scan_stream(query->store, query->aggregate_type,
						  query->aggregate_id, 1, query->version, false,
						  query->snapshot);
	es_scan_upcast(scan);
	while ((slot = es_scan_next(scan)) != NULL)
	{
		Datum		happened_at;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		happened_at = slot_getattr(slot, ES_ATT_OCCURRED_AT, &isnull);
		if (isnull)
			happened_at = slot_getattr(slot, ES_ATT_RECORDED_AT, &isnull);
		if (DatumGetTimestampTz(happened_at) > query->as_of)
			continue;

		slot_getallattrs(slot);
		ExecClearTuple(row);
		memcpy(row->tts_values, slot->tts_values, sizeof(Datum) * ES_NATTS);
		memcpy(row->tts_isnull, slot->tts_isnull, sizeof(bool) * ES_NATTS);
		row->tts_values[ES_NATTS] = happened_at;
		row->tts_isnull[ES_NATTS] = false;
		ExecStoreVirtualTuple(row);
		tuplesort_puttupleslot(sort, row);
	}
	es_scan_end(scan);
	ExecDropSingleTupleTableSlot(row);
	tuplesort_performsort(sort);
	return sort;
}

/*
 * check_version raises ERRCODE_ES_NO_SUCH_VERSION if the stream ends before
 * the version that was asked for.  (It goes on if as_of cut it short, if row
 * security hides that very version, or if there is no stream at all.)
 */
static void
check_version(EsStateQuery *query)
{
	int64		last;

	if (es_nearest_version(query, query->version, false) > 0)
		return;
	last = es_nearest_version(query, PG_INT64_MAX, true);
	if (last == 0)
		return;

	ereport(ERROR,
			(errcode(ERRCODE_ES_NO_SUCH_VERSION),
			 errmsg("%s %s has no version " INT64_FORMAT,
					text_to_cstring(query->aggregate_type),
					text_to_cstring(query->aggregate_id), query->version),
			 errdetail("asked=" INT64_FORMAT " last=" INT64_FORMAT,
					   query->version, last),
			 errhint("Ask for a version from 1 to " INT64_FORMAT ", or leave version out for the latest state.",
					 last)));
}

/*
 * es_nearest_version returns the first version of the stream at or after (if
 * backward: at or before) a version, or 0.
 */
int64
es_nearest_version(EsStateQuery *query, int64 from_version, bool backward)
{
	EsScan	   *scan;
	TupleTableSlot *slot;
	int64		version = 0;
	bool		isnull;

	scan = es_scan_stream(query->store, query->aggregate_type,
						  query->aggregate_id,
						  backward ? 1 : from_version,
						  backward ? from_version : PG_INT64_MAX,
						  backward, query->snapshot);
	slot = es_scan_next(scan);
	if (slot)
		version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
	es_scan_end(scan);
	return version;
}
