/*
 * append.c
 *		es_append() and es_append_events().
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "store/arguments.h"

PG_FUNCTION_INFO_V1(es_append);
PG_FUNCTION_INFO_V1(es_append_events);

/*
 * es_check_writable raises 25006 where nothing can be appended.
 */
void
es_check_writable(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s on a standby", function),
				 errdetail("The server is in recovery and accepts no writes."),
				 errhint("Connect to the primary, for example with target_session_attrs=read-write.")));
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", function),
				 errhint("Begin the transaction with READ WRITE.")));
	PreventCommandIfParallelMode(function);
}

/*
 * es_expected_version checks an expected version that was given.
 */
int64
es_expected_version(int64 expected, const char *where)
{
	if (expected < ES_EXPECT_EXISTS)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("expected_version %lld%s is not valid", (long long) expected, where),
				 errhint("Pass NULL (any), 0 (the stream must not exist), a version, or -1 (the stream must exist).")));
	return expected;
}

/*
 * expected_version_arg reads the argument expected_version.
 */
static int64
expected_version_arg(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return ES_EXPECT_ANY;
	return es_expected_version(PG_GETARG_INT64(argno), "");
}

/*
 * es_check_data refuses JSON null as an event's data.
 */
void
es_check_data(Datum data, const char *where)
{
	Jsonb	   *jsonb = DatumGetJsonbP(data);
	JsonbValue	value;

	if (JB_ROOT_IS_SCALAR(jsonb) && JsonbExtractScalar(&jsonb->root, &value) &&
		value.type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("data must not be JSON null%s", where),
				 errhint("Pass an object; {} is one without content.")));
}

/*
 * es_schema_version checks a schema version that was given; 0 stands for none,
 * which is decided when the event is written.
 */
int32
es_schema_version(bool given, int32 version)
{
	if (!given)
		return 0;
	if (version < 1)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("schema version %d is not valid", version),
				 errhint("Schema versions count from 1; NULL is the last that is registered, or 1.")));
	return version;
}

/*
 * es_append_by_executor tells whether only the executor can append to a store
 * as the current user: see es_insert_by_executor().
 */
bool
es_append_by_executor(EsStore *store)
{
	return !store->plain_append ||
		check_enable_rls(store->events, InvalidOid, false) == RLS_ENABLED;
}

/*
 * es_append_run appends to one stream and sets the result.
 */
void
es_append_run(EsAppend *append)
{
	TimestampTz now;
	EsStreamHead head;
	uint64		hash;

	if (es_append_by_executor(append->store))
	{
		es_insert_by_executor(append);
		return;
	}

	es_store_check_acl(append->store, ACL_INSERT);
	hash = es_stream_lock(append->store, append->aggregate_type, append->aggregate_id);
	now = GetCurrentTimestamp();
	es_stream_head(append->store, append->aggregate_type, append->aggregate_id,
				   hash, append->expected, now, &head);
	if (!es_arbitrate(append, &head))
		return;
	es_insert_direct(append, &head, now);
	es_stream_remember(hash, append->version);
}

/*
 * es_append_row makes the row (version, global_position).
 */
Datum
es_append_row(int64 version, int64 position)
{
	static TupleDesc desc = NULL;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc	made = CreateTemplateTupleDesc(2);

		TupleDescInitEntry(made, 1, "version", INT8OID, -1, 0);
		TupleDescInitEntry(made, 2, "global_position", INT8OID, -1, 0);
		desc = BlessTupleDesc(made);
		MemoryContextSwitchTo(old);
	}
	values[0] = Int64GetDatum(version);
	values[1] = Int64GetDatum(position);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * es_append_result makes the row of an append's result.
 */
Datum
es_append_result(const EsAppend *append)
{
	return es_append_row(append->version, append->position);
}

/*
 * es_append(aggregate_type, aggregate_id, event_type, data, expected_version,
 * metadata, event_id, occurred_at, schema_version, store) appends one event and
 * returns its version and global position.
 *
 * Errors: VE001 conflict, VE002 unknown store, VE004 bad argument, 25006 on a
 * standby or in a read-only transaction, 40001 at REPEATABLE READ and above,
 * 42501 without INSERT on events.
 */
Datum
es_append(PG_FUNCTION_ARGS)
{
	EsAppend	append = {0};
	EsNewEvent	event;

	es_check_writable("es_append()");
	append.aggregate_type = es_text_arg(fcinfo, 0, "aggregate_type", ES_MAX_TYPE);
	append.aggregate_id = es_text_arg(fcinfo, 1, "aggregate_id", ES_MAX_ID);
	event.event_type = es_text_arg(fcinfo, 2, "event_type", ES_MAX_TYPE);
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("data must not be NULL"),
				 errhint("Leave the argument out, or pass {}, for an event without content.")));
	event.data = PG_GETARG_DATUM(3);
	es_check_data(event.data, "");
	append.expected = expected_version_arg(fcinfo, 4);
	event.has_metadata = !PG_ARGISNULL(5);
	event.metadata = event.has_metadata ? PG_GETARG_DATUM(5) : (Datum) 0;
	append.ids_given = !PG_ARGISNULL(6);
	event.event_id = append.ids_given ? es_text_arg(fcinfo, 6, "event_id", ES_MAX_TYPE) : es_uuid_v7();
	event.has_occurred_at = !PG_ARGISNULL(7);
	event.occurred_at = event.has_occurred_at ? PG_GETARG_TIMESTAMPTZ(7) : 0;
	event.schema_version = es_schema_version(!PG_ARGISNULL(8), PG_ARGISNULL(8) ? 0 : PG_GETARG_INT32(8));

	append.store = es_store_open(es_store_name_arg(fcinfo, 9), RowExclusiveLock);
	append.nevents = 1;
	append.events = &event;
	es_append_run(&append);
	PG_RETURN_DATUM(es_append_result(&append));
}

/* an array argument of es_append_events() */
typedef struct ArrayArg
{
	const char *name;
	bool		given;
	int			count;
	Datum	   *values;
	bool	   *nulls;
} ArrayArg;

/*
 * array_arg reads an array argument; its elements may be NULL only if nullable.
 */
static ArrayArg
array_arg(FunctionCallInfo fcinfo, int argno, const char *name, Oid type, int16 length,
		  bool byvalue, char align, bool nullable)
{
	ArrayArg	arg = {name};
	ArrayType  *array;

	if (PG_ARGISNULL(argno))
		return arg;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must have one dimension", name),
				 errdetail("It has %d.", ARR_NDIM(array)),
				 errhint("Pass one element for each event.")));
	deconstruct_array(array, type, length, byvalue, align, &arg.values, &arg.nulls, &arg.count);
	arg.given = true;
	for (int i = 0; !nullable && i < arg.count; i++)
	{
		if (arg.nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("%s must not contain NULL", name),
					 errdetail("Element %d is NULL.", i + 1),
					 errhint("Pass one element for each event.")));
	}
	return arg;
}

/*
 * check_same_count compares the length of an array with that of event_types.
 */
static void
check_same_count(const ArrayArg *types, const ArrayArg *other)
{
	if (other->given && other->count != types->count)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("event_types and %s differ in length", other->name),
				 errdetail("event_types has %d elements, %s has %d.",
						   types->count, other->name, other->count),
				 errhint("Pass one element for each event.")));
}

/*
 * es_append_events(aggregate_type, aggregate_id, event_types, data,
 * expected_version, metadata, event_ids, occurred_at, schema_versions, store)
 * appends many events to one stream, all or none, and returns the version and
 * global position of the last.  Errors as es_append().
 */
Datum
es_append_events(PG_FUNCTION_ARGS)
{
	EsAppend	append = {0};
	ArrayArg	types;
	ArrayArg	data;
	ArrayArg	metadata;
	ArrayArg	ids;
	ArrayArg	occurred;
	ArrayArg	schema_versions;

	es_check_writable("es_append_events()");
	append.aggregate_type = es_text_arg(fcinfo, 0, "aggregate_type", ES_MAX_TYPE);
	append.aggregate_id = es_text_arg(fcinfo, 1, "aggregate_id", ES_MAX_ID);
	types = array_arg(fcinfo, 2, "event_types", TEXTOID, -1, false, TYPALIGN_INT, false);
	data = array_arg(fcinfo, 3, "data", JSONBOID, -1, false, TYPALIGN_INT, false);
	append.expected = expected_version_arg(fcinfo, 4);
	metadata = array_arg(fcinfo, 5, "metadata", JSONBOID, -1, false, TYPALIGN_INT, true);
	ids = array_arg(fcinfo, 6, "event_ids", TEXTOID, -1, false, TYPALIGN_INT, false);
	occurred = array_arg(fcinfo, 7, "occurred_at", TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, true);
	schema_versions = array_arg(fcinfo, 8, "schema_versions", INT4OID, 4, true, TYPALIGN_INT, true);

	if (!types.given || !data.given || types.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("event_types and data must not be NULL or empty"),
				 errhint("Pass one element of each for each event.")));
	check_same_count(&types, &data);
	check_same_count(&types, &metadata);
	check_same_count(&types, &ids);
	check_same_count(&types, &occurred);
	check_same_count(&types, &schema_versions);

	append.nevents = types.count;
	append.events = MemoryContextAllocHuge(CurrentMemoryContext,
										   (Size) types.count * sizeof(EsNewEvent));
	append.ids_given = ids.given;
	for (int i = 0; i < types.count; i++)
	{
		EsNewEvent *event = &append.events[i];

		event->event_type = DatumGetTextPP(types.values[i]);
		es_check_text(event->event_type, "event_type", ES_MAX_TYPE);
		event->data = data.values[i];
		es_check_data(event->data, psprintf(" (element %d)", i + 1));
		event->has_metadata = metadata.given && !metadata.nulls[i];
		event->metadata = event->has_metadata ? metadata.values[i] : (Datum) 0;
		event->event_id = ids.given ? DatumGetTextPP(ids.values[i]) : es_uuid_v7();
		es_check_text(event->event_id, "event_id", ES_MAX_TYPE);
		event->has_occurred_at = occurred.given && !occurred.nulls[i];
		event->occurred_at = event->has_occurred_at ? DatumGetTimestampTz(occurred.values[i]) : 0;
		event->schema_version = schema_versions.given ?
			es_schema_version(!schema_versions.nulls[i], DatumGetInt32(schema_versions.values[i])) : 0;
	}

	append.store = es_store_open(es_store_name_arg(fcinfo, 9), RowExclusiveLock);
	es_append_run(&append);
	PG_RETURN_DATUM(es_append_result(&append));
}
