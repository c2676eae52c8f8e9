/*
 * states.c
 *		es_states(): the states of all aggregates of a type, in one pass.
 *
 * The executor reads, sorted by aggregate: the planner decides between the
 * partitions' indexes and a sort, also by parallel workers, and row security
 * holds.  The rows are folded as they arrive; one state is open at a time.
 */
#include "state/state.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "read/upcast.h"
#include "store/texts.h"

PG_FUNCTION_INFO_V1(es_states);

/* Where the executor sends the events. */
typedef struct StatesReceiver
{
	DestReceiver pub;
	ReturnSetInfo *result;
	EsAggregate aggregate;
	text	   *aggregate_type;
	EsReducer  *reducer;
	EsUpcasters *upcasters;		/* NULL: none */
	EsFold	   *fold;			/* NULL before the first event */
	text	   *aggregate_id;	/* of the state that is open */
	Size		id_size;		/* room for it */
	int64		version;
	MemoryContext context;
	MemoryContext row;
} StatesReceiver;

static char *make_query(EsStore *store, bool as_of, bool occurred, bool merging, bool one);
static void run_query(const char *query, text *aggregate_type, Datum as_of,
					  Datum id, bool parallel, DestReceiver *receiver);
static void start_receiver(DestReceiver *self, int operation, TupleDesc desc);
static bool receive_event(TupleTableSlot *slot, DestReceiver *self);
static void end_receiver(DestReceiver *self);
static void next_aggregate(StatesReceiver *receiver, text *aggregate_id);
static void put_state(StatesReceiver *receiver);

/*
 * es_is_states tells whether a function is es_states(), and nothing else happens
 * when it is called.
 */
bool
es_is_states(Oid function)
{
	FmgrInfo	call;

	fmgr_info(function, &call);
	return call.fn_addr == es_states;
}

/*
 * es_states(aggregate_type, as_of, occurred, store) returns the id, version and
 * state of every aggregate of a type, now or as of a moment.  plan.c adds a
 * fifth argument, the id of the only aggregate that is wanted.
 */
Datum
es_states(PG_FUNCTION_ARGS)
{
	text	   *aggregate_type = es_identifier_arg(fcinfo, 0, "aggregate_type");
	bool		as_of = !PG_ARGISNULL(1);
	bool		occurred = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	EsStore    *store = es_store_open(es_store_name_arg(fcinfo, 3), AccessShareLock);
	StatesReceiver receiver = {0};
	bool		one = PG_NARGS() > 4;
	bool		merging;
	bool		parallel;

	es_store_check_acl(store, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	if (one && PG_ARGISNULL(4))
		return (Datum) 0;

	receiver.pub.receiveSlot = receive_event;
	receiver.pub.rStartup = start_receiver;
	receiver.pub.rShutdown = end_receiver;
	receiver.pub.rDestroy = end_receiver;
	receiver.pub.mydest = DestTuplestore;	/* any but none */
	receiver.result = (ReturnSetInfo *) fcinfo->resultinfo;
	receiver.aggregate_type = aggregate_type;
	receiver.reducer = es_kept_reducer(fcinfo);
	receiver.context = CurrentMemoryContext;
	receiver.row = AllocSetContextCreate(CurrentMemoryContext, "eventsrc states",
										 ALLOCSET_DEFAULT_SIZES);
	es_aggregate_load(store, aggregate_type, GetActiveSnapshot(), &receiver.aggregate);

	receiver.upcasters = es_upcasters_open(store);

	/* upcasters may look at any column, and do anything */
	merging = !OidIsValid(receiver.aggregate.reducer) && receiver.upcasters == NULL;
	parallel = merging ||
		(receiver.upcasters == NULL &&
		 func_parallel(receiver.aggregate.reducer) != PROPARALLEL_UNSAFE);
	run_query(make_query(store, as_of, occurred, merging, one), aggregate_type,
			  as_of ? PG_GETARG_DATUM(1) : (Datum) 0,
			  one ? PG_GETARG_DATUM(4) : (Datum) 0, parallel, &receiver.pub);
	if (receiver.fold)
	{
		put_state(&receiver);
		(void) es_fold_end(receiver.fold);
	}
	if (receiver.upcasters)
		es_upcasters_close(receiver.upcasters);
	return (Datum) 0;
}

/*
 * make_query makes the query for the events, with the columns of es_event.  The
 * built-in merge looks at few of them; the others are not read.
 */
static char *
make_query(EsStore *store, bool as_of, bool occurred, bool merging, bool one)
{
	const char *happened = occurred ?
		"COALESCE(occurred_at, recorded_at)" : "recorded_at";
	TupleDesc	desc = es_event_tupdesc();
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT ");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		AttrNumber	attno = i + 1;

		if (i > 0)
			appendStringInfoString(&query, ", ");
		if (!merging || attno == ES_ATT_AGGREGATE_ID || attno == ES_ATT_VERSION ||
			attno == ES_ATT_EVENT_TYPE || attno == ES_ATT_DATA)
			appendStringInfoString(&query, quote_identifier(NameStr(column->attname)));
		else
			appendStringInfo(&query, "NULL::%s",
							 format_type_extended(column->atttypid, -1, FORMAT_TYPE_FORCE_QUALIFY));
	}
	appendStringInfo(&query, " FROM %s WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
					 quote_qualified_identifier(NameStr(store->name), "events"));
	if (as_of)
		appendStringInfo(&query, " AND %s OPERATOR(pg_catalog.<=) $2", happened);
	if (one)
		appendStringInfoString(&query, " AND aggregate_id OPERATOR(pg_catalog.=) $3");
	appendStringInfo(&query, " ORDER BY aggregate_id, %s%s version",
					 occurred ? happened : "", occurred ? "," : "");
	return query.data;
}

/*
 * run_query sends a query's rows to the receiver, as the active snapshot sees
 * them.  While parallel workers run, nothing may be done that is unsafe beside
 * them: without them if the reducer does not say that it is safe.
 */
static void
run_query(const char *query, text *aggregate_type, Datum as_of, Datum id,
		  bool parallel, DestReceiver *receiver)
{
	SPIExecuteOptions options = {0};
	ParamListInfo params = makeParamList(3);
	int			nestlevel = NewGUCNestLevel();

	params->params[0].value = PointerGetDatum(aggregate_type);
	params->params[0].isnull = false;
	params->params[0].pflags = PARAM_FLAG_CONST;
	params->params[0].ptype = TEXTOID;
	params->params[1].value = as_of;
	params->params[1].isnull = as_of == (Datum) 0;
	params->params[1].pflags = PARAM_FLAG_CONST;
	params->params[1].ptype = TIMESTAMPTZOID;
	params->params[2].value = id;
	params->params[2].isnull = id == (Datum) 0;
	params->params[2].pflags = PARAM_FLAG_CONST;
	params->params[2].ptype = TEXTOID;
	options.params = params;
	options.read_only = true;
	options.dest = receiver;

	if (!parallel)
		(void) set_config_option("max_parallel_workers_per_gather", "0",
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_extended(query, &options) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query);
	SPI_finish();
	AtEOXact_GUC(true, nestlevel);
}

/*
 * start_receiver has nothing to prepare.
 */
static void
start_receiver(DestReceiver *self, int operation, TupleDesc desc)
{
}

/*
 * receive_event folds an event into its aggregate's state.
 */
static bool
receive_event(TupleTableSlot *slot, DestReceiver *self)
{
	StatesReceiver *receiver = (StatesReceiver *) self;
	MemoryContext caller = MemoryContextSwitchTo(receiver->context);
	bool		isnull;
	text	   *id = DatumGetTextPP(slot_getattr(slot, ES_ATT_AGGREGATE_ID, &isnull));
	int64		version;

	if (receiver->fold == NULL || !es_text_same(id, receiver->aggregate_id))
		next_aggregate(receiver, id);

	version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
	receiver->version = Max(receiver->version, version);
	es_fold_event(receiver->fold, receiver->upcasters ? es_upcast(receiver->upcasters, slot) : slot);
	MemoryContextSwitchTo(caller);
	return true;
}

/*
 * end_receiver has nothing to clean up.
 */
static void
end_receiver(DestReceiver *self)
{
}

/*
 * next_aggregate returns the state that is open, and opens the next.
 */
static void
next_aggregate(StatesReceiver *receiver, text *aggregate_id)
{
	Size		size = VARSIZE_ANY_EXHDR(aggregate_id) + VARHDRSZ;

	if (receiver->fold)
		put_state(receiver);

	if (size > receiver->id_size)
	{
		receiver->id_size = size * 2;
		receiver->aggregate_id = palloc(receiver->id_size);
	}
	SET_VARSIZE(receiver->aggregate_id, size);
	memcpy(VARDATA(receiver->aggregate_id), VARDATA_ANY(aggregate_id), size - VARHDRSZ);
	receiver->version = 0;

	if (receiver->fold == NULL)
		receiver->fold = es_fold_begin(&receiver->aggregate, receiver->reducer,
									   receiver->aggregate_type, receiver->aggregate_id,
									   receiver->aggregate.initial);
	else
		es_fold_restart(receiver->fold, receiver->aggregate_id,
						receiver->aggregate.initial);
}

/*
 * put_state returns the state that is open.
 */
static void
put_state(StatesReceiver *receiver)
{
	MemoryContext caller = MemoryContextSwitchTo(receiver->row);
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	values[0] = PointerGetDatum(receiver->aggregate_id);
	values[1] = Int64GetDatum(receiver->version);
	values[2] = JsonbPGetDatum(es_fold_state(receiver->fold));
	tuplestore_putvalues(receiver->result->setResult, receiver->result->setDesc,
						 values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(receiver->row);
}
