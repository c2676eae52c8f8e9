/*
 * read.c
 *		es_read_stream(), es_read_all(), es_stream_version(), es_safe_position().
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "read/scan.h"
#include "store/arguments.h"
#include "store/position.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(es_read_stream);
PG_FUNCTION_INFO_V1(es_read_all);
PG_FUNCTION_INFO_V1(es_stream_version);
PG_FUNCTION_INFO_V1(es_safe_position);

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
 * es_read_stream(aggregate_type, aggregate_id, from_version, max_count,
 * backward, store) returns one stream's events in the order of their versions,
 * as the calling query's snapshot sees them.  from_version NULL: from the
 * first (backward: from the last).
 */
Datum
es_read_stream(PG_FUNCTION_ARGS)
{
	text	   *type = es_text_arg(fcinfo, 0, "aggregate_type", ES_MAX_TYPE);
	text	   *id = es_text_arg(fcinfo, 1, "aggregate_id", ES_MAX_ID);
	int64		from = PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2);
	int64		left = max_count_arg(fcinfo, 3);
	bool		backward = PG_ARGISNULL(4) ? false : PG_GETARG_BOOL(4);
	EsStore    *store = es_store_open(es_store_name_arg(fcinfo, 5), AccessShareLock);
	EsScan	   *scan;
	TupleTableSlot *slot;

	if (!PG_ARGISNULL(2) && from < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("from_version must not be negative"),
				 errdetail("It is %lld.", (long long) from),
				 errhint("Versions count from 1; NULL means from the first, or from the last with backward.")));
	es_store_check_acl(store, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);

	scan = es_scan_stream(store, type, id,
						  backward || from < 0 ? 0 : from,
						  backward && from >= 0 ? from : PG_INT64_MAX,
						  backward, GetActiveSnapshot());
	es_scan_upcast(scan);
	while (left-- > 0 && (slot = es_scan_next(scan)) != NULL)
		put_event((ReturnSetInfo *) fcinfo->resultinfo, slot);
	es_scan_end(scan);
	return (Datum) 0;
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
	array = PG_GETARG_ARRAYTYPE_P(argno);
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
		text	   *type = DatumGetTextPP(types[i]);

		if (VARSIZE_ANY_EXHDR(type) == VARSIZE_ANY_EXHDR(value) &&
			memcmp(VARDATA_ANY(type), VARDATA_ANY(value), VARSIZE_ANY_EXHDR(type)) == 0)
			return true;
	}
	return false;
}

/*
 * es_read_all(after_position, max_count, aggregate_types, event_types, store)
 * returns events in global order, never past the safe position.
 *
 * The calling query's snapshot is older than any safe position that can be
 * computed here, so the events are read with a new one.  At REPEATABLE READ
 * the result ends before the first event that the transaction's snapshot does
 * not see: so it is the same whenever the transaction asks, and nothing is
 * skipped by whoever goes on from the last position.
 */
Datum
es_read_all(PG_FUNCTION_ARGS)
{
	int64		after = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int64		left = max_count_arg(fcinfo, 1);
	Datum	   *aggregate_types;
	Datum	   *event_types;
	int			naggregate_types = types_arg(fcinfo, 2, "aggregate_types", &aggregate_types);
	int			nevent_types = types_arg(fcinfo, 3, "event_types", &event_types);
	EsStore    *store = es_store_open(es_store_name_arg(fcinfo, 4), AccessShareLock);
	Snapshot	horizon = IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : NULL;
	Snapshot	snapshot;
	int64		safe;
	EsScan	   *scan;
	TupleTableSlot *slot;

	if (after < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("after_position must not be negative"),
				 errdetail("It is %lld.", (long long) after),
				 errhint("Pass 0 to read from the beginning.")));
	es_store_check_acl(store, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);

	/* first the safe position, then the snapshot */
	safe = es_position_safe();
	snapshot = RegisterSnapshot(GetLatestSnapshot());

	scan = es_scan_all(store, after, safe, snapshot, horizon);
	es_scan_upcast(scan);
	while (left > 0 && (slot = es_scan_next(scan)) != NULL)
	{
		if (!matches(slot, ES_ATT_AGGREGATE_TYPE, aggregate_types, naggregate_types) ||
			!matches(slot, ES_ATT_EVENT_TYPE, event_types, nevent_types))
			continue;
		put_event((ReturnSetInfo *) fcinfo->resultinfo, slot);
		left--;
	}
	es_scan_end(scan);
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
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
 * es_safe_position() returns the position up to which everything is decided.
 */
Datum
es_safe_position(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(es_position_safe());
}
