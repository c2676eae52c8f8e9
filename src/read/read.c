/*
 * read.c
 *		es_read_stream(), es_read_all(), es_stream_version(), es_safe_position().
 *
 * In FROM, the custom scan of plan.c and node.c takes the functions' place.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "read/read.h"
#include "read/scan.h"
#include "store/arguments.h"
#include "store/position.h"
#include "store/store.h"
#include "store/texts.h"

PG_FUNCTION_INFO_V1(es_read_stream);
PG_FUNCTION_INFO_V1(es_read_all);
PG_FUNCTION_INFO_V1(es_stream_version);
PG_FUNCTION_INFO_V1(es_safe_position);

struct EsRead
{
	EsReader	reader;
	NameData	store;
	int64		max_count;
	int64		left;			/* of max_count */
	EsScan	   *scan;			/* NULL: at its end, or not begun */
	Snapshot	snapshot;
	ResourceOwner owner;		/* of the snapshot, if it is ours */

	/* one stream */
	text	   *aggregate_type;
	text	   *aggregate_id;
	int64		low;			/* versions, inclusive */
	int64		high;
	bool		backward;

	/* all events */
	int64		after;
	int64		safe;
	Snapshot	horizon;
	bool		filtered;
	Datum	   *aggregate_types;	/* any, if their number is negative */
	Datum	   *event_types;
	int			naggregate_types;
	int			nevent_types;
};

/*
 * max_count_arg reads an argument that limits a result; NULL means no limit.
 */
static int64
max_count_arg(FunctionCallInfo fcinfo, int argno)
{
	int64		count;

	if (PG_ARGISNULL(argno))
		return PG_INT64_MAX;
	count = PG_GETARG_INT64(argno);
	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("max_count must not be negative"),
				 errdetail("It is %lld.", (long long) count),
				 errhint("Pass NULL for no limit.")));
	return count;
}

/*
 * types_arg reads an array of names to filter by; 0 of them if it is NULL.
 */
static int
types_arg(FunctionCallInfo fcinfo, int argno, const char *name, Datum **types)
{
	ArrayType  *array;
	bool	   *nulls;
	int			count;

	*types = NULL;
	if (PG_ARGISNULL(argno))
		return -1;
	array = PG_GETARG_ARRAYTYPE_P_COPY(argno);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, types, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("%s must not contain NULL", name),
					 errdetail("Element %d is NULL.", i + 1),
					 errhint("Pass NULL instead of an array for no filter.")));
	}
	return count;
}

/*
 * matches tells whether a text column is one of the given names; a negative
 * count means any will do.
 */
static bool
matches(TupleTableSlot *slot, AttrNumber attribute, const Datum *types, int count)
{
	bool		isnull;
	text	   *value;

	if (count < 0)
		return true;
	value = DatumGetTextPP(slot_getattr(slot, attribute, &isnull));
	for (int i = 0; i < count; i++)
	{
		if (es_text_same(DatumGetTextPP(types[i]), value))
			return true;
	}
	return false;
}

/*
 * copy_text copies a text into CurrentMemoryContext: a read can outlive its
 * arguments.
 */
static text *
copy_text(text *value)
{
	text	   *copy = palloc(VARSIZE_ANY(value));

	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

/*
 * begin_stream reads the arguments of es_read_stream().
 */
static EsStore *
begin_stream(EsRead *read, FunctionCallInfo fcinfo, Snapshot snapshot)
{
	EsStore    *store;
	int64		from;

	read->aggregate_type = copy_text(es_text_arg(fcinfo, 0, "aggregate_type", ES_MAX_TYPE));
	read->aggregate_id = copy_text(es_text_arg(fcinfo, 1, "aggregate_id", ES_MAX_ID));
	from = PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2);
	read->max_count = max_count_arg(fcinfo, 3);
	read->backward = PG_ARGISNULL(4) ? false : PG_GETARG_BOOL(4);
	store = es_store_open(es_store_name_arg(fcinfo, 5), AccessShareLock);
	if (!PG_ARGISNULL(2) && from < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("from_version must not be negative"),
				 errdetail("It is %lld.", (long long) from),
				 errhint("Versions count from 1; NULL means from the first, or from the last with backward.")));
	es_store_check_acl(store, ACL_SELECT);

	read->low = read->backward || from < 0 ? 0 : from;
	read->high = read->backward && from >= 0 ? from : PG_INT64_MAX;
	read->snapshot = snapshot;
	return store;
}

/*
 * begin_all reads the arguments of es_read_all(), and takes the safe position
 * and the snapshot.
 *
 * The calling query's snapshot is older than any safe position that can be
 * computed here, so the events are read with a new one.  At REPEATABLE READ
 * the result ends before the first event that the transaction's snapshot does
 * not see: so it is the same whenever the transaction asks, and nothing is
 * skipped by whoever goes on from the last position.
 */
static EsStore *
begin_all(EsRead *read, FunctionCallInfo fcinfo)
{
	EsStore    *store;

	read->after = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	read->max_count = max_count_arg(fcinfo, 1);
	read->naggregate_types = types_arg(fcinfo, 2, "aggregate_types", &read->aggregate_types);
	read->nevent_types = types_arg(fcinfo, 3, "event_types", &read->event_types);
	read->filtered = read->naggregate_types >= 0 || read->nevent_types >= 0;
	store = es_store_open(es_store_name_arg(fcinfo, 4), AccessShareLock);
	if (read->after < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("after_position must not be negative"),
				 errdetail("It is %lld.", (long long) read->after),
				 errhint("Pass 0 to read from the beginning.")));
	es_store_check_acl(store, ACL_SELECT);
	/* in a function that is wrongly labelled PARALLEL SAFE */
	PreventCommandIfParallelMode("es_read_all()");
	read->horizon = IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : NULL;

	/* first the safe position, then the snapshot */
	read->safe = es_position_readable();
	read->owner = CurrentResourceOwner;
	read->snapshot = RegisterSnapshotOnOwner(GetLatestSnapshot(), read->owner);
	/* and last the partitions, some of which may be that new */
	es_store_refresh(store);
	return store;
}

/*
 * begin_scan begins the scan, or begins it once more.
 */
static void
begin_scan(EsRead *read, EsStore *store)
{
	read->left = read->max_count;
	if (read->reader == ES_READS_ALL)
		read->scan = es_scan_all(store, read->after, read->safe, read->snapshot, read->horizon);
	else
		read->scan = es_scan_stream(store, read->aggregate_type, read->aggregate_id,
									read->low, read->high, read->backward, read->snapshot);
	es_scan_upcast(read->scan);
}

/*
 * es_read_begin checks the function's arguments and begins to read.
 */
EsRead *
es_read_begin(EsReader reader, FunctionCallInfo fcinfo, Snapshot snapshot)
{
	EsRead	   *read = palloc0(sizeof(EsRead));
	EsStore    *store;

	read->reader = reader;
	store = reader == ES_READS_ALL ? begin_all(read, fcinfo)
		: begin_stream(read, fcinfo, snapshot);
	read->store = store->name;
	begin_scan(read, store);
	return read;
}

/*
 * end_scan ends the scan, if it has not ended.
 */
static void
end_scan(EsRead *read)
{
	if (read->scan)
		es_scan_end(read->scan);
	read->scan = NULL;
}

/*
 * es_read_next returns the next event, or NULL at the end.
 */
TupleTableSlot *
es_read_next(EsRead *read)
{
	TupleTableSlot *slot;

	if (read->scan == NULL)
		return NULL;
	while (read->left > 0 && (slot = es_scan_next(read->scan)) != NULL)
	{
		if (read->filtered &&
			(!matches(slot, ES_ATT_AGGREGATE_TYPE, read->aggregate_types, read->naggregate_types) ||
			 !matches(slot, ES_ATT_EVENT_TYPE, read->event_types, read->nevent_types)))
			continue;
		read->left--;
		return slot;
	}
	end_scan(read);
	return NULL;
}

/*
 * es_read_restart reads the same events from the beginning: the position up to
 * which it goes, and the snapshot, stay.
 */
void
es_read_restart(EsRead *read)
{
	end_scan(read);
	begin_scan(read, es_store_open(NameStr(read->store), AccessShareLock));
}

/*
 * es_read_end ends a read, at its end or before.
 */
void
es_read_end(EsRead *read)
{
	end_scan(read);
	if (read->owner)
		UnregisterSnapshotFromOwner(read->snapshot, read->owner);
	read->owner = NULL;
}

/*
 * put_event adds a scan's row to a function's result.
 */
static void
put_event(ReturnSetInfo *result, TupleTableSlot *slot)
{
	/* as it lies on the page, unless the table was given more columns */
	if (slot->tts_tupleDescriptor->natts == ES_NATTS)
	{
		tuplestore_puttupleslot(result->setResult, slot);
		return;
	}
	slot_getsomeattrs(slot, ES_NATTS);
	tuplestore_putvalues(result->setResult, result->setDesc,
						 slot->tts_values, slot->tts_isnull);
}

/*
 * return_events gives all events of a read as a function's result.
 */
static Datum
return_events(EsReader reader, FunctionCallInfo fcinfo)
{
	EsRead	   *read = es_read_begin(reader, fcinfo, GetActiveSnapshot());
	TupleTableSlot *slot;

	InitMaterializedSRF(fcinfo, 0);
	while ((slot = es_read_next(read)) != NULL)
		put_event((ReturnSetInfo *) fcinfo->resultinfo, slot);
	es_read_end(read);
	return (Datum) 0;
}

/*
 * es_read_stream(aggregate_type, aggregate_id, from_version, max_count,
 * backward, store) returns one stream's events in the order of their versions,
 * as the calling query's snapshot sees them.  from_version NULL: from the
 * first (backward: from the last).
 */
Datum
es_read_stream(PG_FUNCTION_ARGS)
{
	return return_events(ES_READS_STREAM, fcinfo);
}

/*
 * es_read_all(after_position, max_count, aggregate_types, event_types, store)
 * returns events in global order, never past the safe position.
 */
Datum
es_read_all(PG_FUNCTION_ARGS)
{
	return return_events(ES_READS_ALL, fcinfo);
}

/*
 * es_stream_version(aggregate_type, aggregate_id, store) returns a stream's
 * last version as the calling query sees it; NULL if it has no events.
 */
Datum
es_stream_version(PG_FUNCTION_ARGS)
{
	text	   *type = es_text_arg(fcinfo, 0, "aggregate_type", ES_MAX_TYPE);
	text	   *id = es_text_arg(fcinfo, 1, "aggregate_id", ES_MAX_ID);
	EsStore    *store = es_store_open(es_store_name_arg(fcinfo, 2), AccessShareLock);
	EsScan	   *scan;
	TupleTableSlot *slot;
	int64		version = 0;
	bool		isnull;

	es_store_check_acl(store, ACL_SELECT);
	scan = es_scan_stream(store, type, id, 0, PG_INT64_MAX, true, GetActiveSnapshot());
	slot = es_scan_next(scan);
	if (slot)
		version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
	es_scan_end(scan);
	if (version == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(version);
}

/*
 * es_safe_position() returns the position up to which everything is decided,
 * and durable if the setting eventsrc.read_durable asks for that.
 */
Datum
es_safe_position(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(es_position_readable());
}
