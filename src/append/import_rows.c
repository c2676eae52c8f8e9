/*
 * import_rows.c
 *		Takes the rows of an import: checks them, gives them versions and
 *		times, and has them written, a thousand at a time.
 *
 * A stream is locked and looked up when its first row comes; from then on the
 * import knows where it stands.  What it knows of streams is bounded: beyond
 * STREAMS_KNOWN it is written down and forgotten.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/import.h"
#include "read/scan.h"
#include "schema/registry.h"
#include "store/arguments.h"
#include "store/position.h"
#include "store/texts.h"

#define STREAMS_KNOWN	20000

/* 1970-01-01: an earlier time is a source's mistake, and a month's partition */
#define EARLIEST		((TimestampTz) (UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/*
 * hash_stream gives the hash of a stream's key.
 */
static uint32
hash_stream(const void *key, Size keysize)
{
	return (uint32) ((const EsImportStream *) key)->hash;
}

/*
 * match_streams compares two streams' keys; 0 if they are the same.
 */
static int
match_streams(const void *key1, const void *key2, Size keysize)
{
	const EsImportStream *a = key1;
	const EsImportStream *b = key2;

	return !(a->hash == b->hash && es_text_same(a->aggregate_id, b->aggregate_id) &&
			 es_text_same(a->aggregate_type, b->aggregate_type));
}

/*
 * forget_streams begins with an empty table of streams.
 */
static void
forget_streams(EsImport *import)
{
	HASHCTL		ctl = {0};

	if (import->streams)
		hash_destroy(import->streams);
	MemoryContextReset(import->streams_context);
	ctl.keysize = offsetof(EsImportStream, head);
	ctl.entrysize = sizeof(EsImportStream);
	ctl.hash = hash_stream;
	ctl.match = match_streams;
	ctl.hcxt = import->streams_context;
	import->streams = hash_create("eventsrc import streams", 1024, &ctl,
								  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	import->last_stream = NULL;
	import->nentered = 0;
	import->appends = es_append_count;
}

/*
 * is_snapshot_trigger tells whether a trigger's function is
 * eventsrc.snapshot_trigger().
 */
static bool
is_snapshot_trigger(Oid function)
{
	char	   *name = get_func_name(function);

	return name && strcmp(name, "snapshot_trigger") == 0 &&
		get_func_namespace(function) == es_private_schema();
}

/*
 * has_user_trigger tells whether rows fire a trigger other than eventsrc's.
 */
static bool
has_user_trigger(EsStore *store)
{
	Relation	events = RelationIdGetRelation(store->events);
	bool		found = false;

	for (int i = 0; events->trigdesc && i < events->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &events->trigdesc->triggers[i];

		found = found || (trigger->tgfoid != es_append_trigger() &&
						  !is_snapshot_trigger(trigger->tgfoid));
	}
	RelationClose(events);
	return found;
}

/*
 * es_import_begin sets up an import into import->store.
 */
void
es_import_begin(EsImport *import)
{
	EsStore    *store = import->store;

	es_store_check_acl(store, ACL_INSERT);
	import->by_executor = es_append_by_executor(store);
	import->eager = !import->by_executor && has_user_trigger(store);
	import->owner = has_privs_of_role(GetUserId(), store->owner);
	import->rows = palloc0(ES_IMPORT_ROWS * sizeof(EsImportRow));
	import->bulk = GetBulkInsertState();
	import->streams_context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc import streams",
													ALLOCSET_DEFAULT_SIZES);
	es_context_get(&import->context);
	import->now = GetCurrentTimestamp();
	forget_streams(import);
}

/*
 * find_stream finds what is known of a row's stream, or locks and looks it up.
 */
static EsImportStream *
find_stream(EsImport *import, text *aggregate_type, text *aggregate_id)
{
	EsImportStream key;
	EsImportStream *stream = import->last_stream;
	EsAppend	append = {0};
	MemoryContext old;
	bool		found;

	if (stream && es_text_same(stream->aggregate_id, aggregate_id) &&
		es_text_same(stream->aggregate_type, aggregate_type))
		return stream;

	key.hash = es_stream_hash(import->store, aggregate_type, aggregate_id);
	key.aggregate_type = aggregate_type;
	key.aggregate_id = aggregate_id;
	stream = hash_search(import->streams, &key, HASH_FIND, NULL);
	if (stream == NULL)
	{
		EsStreamHead head;

		CHECK_FOR_INTERRUPTS();
		if (hash_get_num_entries(import->streams) >= STREAMS_KNOWN)
		{
			es_import_write(import);
			es_import_settle(import);
			forget_streams(import);
		}
		es_stream_lock_hash(key.hash);
		es_stream_head(import->store, aggregate_type, aggregate_id, key.hash,
					   ES_EXPECT_ANY, import->now, &head);

		/* 40001 if the snapshot is too old to know the stream */
		append.store = import->store;
		append.aggregate_type = aggregate_type;
		append.aggregate_id = aggregate_id;
		append.expected = ES_EXPECT_ANY;
		es_check_expected(&append, &head);

		old = MemoryContextSwitchTo(import->streams_context);
		key.aggregate_type = DatumGetTextPCopy(PointerGetDatum(aggregate_type));
		key.aggregate_id = DatumGetTextPCopy(PointerGetDatum(aggregate_id));
		MemoryContextSwitchTo(old);
		stream = hash_search(import->streams, &key, HASH_ENTER, &found);
		stream->head = head;
		stream->stored = head.version > 0;
		stream->entered = false;
	}
	import->last_stream = stream;
	return stream;
}

/*
 * is_there tells whether the stream has the row's event already, under the
 * version that the row gives.
 */
static bool
is_there(EsImport *import, EsImportStream *stream, int64 version, Datum event_id)
{
	EsScan	   *scan;
	TupleTableSlot *slot;
	bool		isnull;
	bool		same;

	/* it may be one of those that wait */
	es_import_write(import);
	es_import_settle(import);
	scan = es_scan_stream(import->store, stream->aggregate_type, stream->aggregate_id,
						  version, version, false, SnapshotSelf);
	slot = es_scan_next(scan);
	same = slot && es_text_same(DatumGetTextPP(slot_getattr(slot, ES_ATT_EVENT_ID, &isnull)),
								DatumGetTextPP(event_id));
	es_scan_end(scan);
	return same;
}

/*
 * check_version compares the version that a row gives with where its stream
 * stands; false if the row's event is there already.
 */
static bool
check_version(EsImport *import, EsImportStream *stream, Datum *values, bool *nulls)
{
	EsAppend	append = {0};
	int64		version;

	append.store = import->store;
	append.aggregate_type = stream->aggregate_type;
	append.aggregate_id = stream->aggregate_id;
	append.expected = ES_EXPECT_ANY;
	append.nevents = 1;
	if (!nulls[ES_ATT_VERSION - 1])
	{
		version = DatumGetInt64(values[ES_ATT_VERSION - 1]);
		if (version < 1)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("version %lld of stream %s %s is not valid", (long long) version,
							text_to_cstring(stream->aggregate_type),
							text_to_cstring(stream->aggregate_id)),
					 errdetail("Versions count from 1."),
					 errhint("Add 1 where the source counts from 0, or give NULL for the next version.")));
		if (version <= stream->head.version && !nulls[ES_ATT_EVENT_ID - 1] &&
			is_there(import, stream, version, values[ES_ATT_EVENT_ID - 1]))
			return false;
		append.expected = version - 1;
		if (stream->head.version != append.expected)
			es_raise_conflict(&append, stream->head.version,
							  version <= stream->head.version ?
							  "The stream has another event at this version: import into an empty stream, or give NULL for the next version." :
							  "Order the query so that a stream's events come by version; if the source has gaps, give row_number() OVER (PARTITION BY its stream ORDER BY its version), or NULL for the next version.");
	}
	if (stream->head.closing)
		es_check_expected(&append, &stream->head);
	return true;
}

/*
 * check_time finds when a row's event was recorded: now unless it says so.
 */
static TimestampTz
check_time(EsImport *import, EsImportStream *stream, Datum *values, bool *nulls)
{
	TimestampTz previous = stream->head.recorded_at;
	TimestampTz given;

	if (nulls[ES_ATT_RECORDED_AT - 1])
		return Max(import->now, previous);
	if (!import->owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner of store \"%s\" may say when events were recorded",
						NameStr(import->store->name)),
				 errdetail("The query gives recorded_at."),
				 errhint("Import as role %s, or put the time into occurred_at.",
						 quote_identifier(GetUserNameFromId(import->store->owner, false)))));
	given = DatumGetTimestampTz(values[ES_ATT_RECORDED_AT - 1]);
	if (given > import->now)
		import->now = GetCurrentTimestamp();
	if (given < EARLIEST || (given > import->now && !import->clamp) || TIMESTAMP_IS_NOEND(given))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("recorded_at of an event of stream %s %s is not valid",
						text_to_cstring(stream->aggregate_type),
						text_to_cstring(stream->aggregate_id)),
				 errdetail("It is %s; it must lie between 1970 and now.", timestamptz_to_str(given)),
				 errhint("Correct the time in the query; clamp => true moves times of the future to now.")));
	given = Min(given, import->now);
	if (given < previous && !import->clamp)
	{
		char	   *before = pstrdup(timestamptz_to_str(previous));

		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("recorded_at runs backwards in stream %s %s",
						text_to_cstring(stream->aggregate_type),
						text_to_cstring(stream->aggregate_id)),
				 errdetail("Version %lld was recorded at %s, but the one before at %s.",
						   (long long) stream->head.version + 1, timestamptz_to_str(given), before),
				 errhint("Pass clamp => true to give such an event the time of the one before, and keep the source's time in occurred_at.")));
	}
	return Max(given, previous);
}

/*
 * check_text_column checks a text column of a row; NULL only if it may be.
 */
static void
check_text_column(Datum *values, bool *nulls, AttrNumber attribute, int max, bool nullable)
{
	const char *name = NameStr(TupleDescAttr(es_event_tupdesc(), attribute - 1)->attname);

	if (!nulls[attribute - 1])
	{
		values[attribute - 1] = PointerGetDatum(DatumGetTextPP(values[attribute - 1]));
		es_check_text((text *) DatumGetPointer(values[attribute - 1]), name, max);
	}
	else if (!nullable)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be NULL", name),
				 errhint("Pass a text of 1 to %d bytes.", max)));
}

/*
 * default_text sets a column that a row leaves NULL, if there is a value.
 */
static void
default_text(Datum *values, bool *nulls, AttrNumber attribute, text *value)
{
	if (nulls[attribute - 1] && value)
	{
		values[attribute - 1] = PointerGetDatum(value);
		nulls[attribute - 1] = false;
	}
}

/*
 * check_columns checks what a row gives and fills in what it does not.
 */
static void
check_columns(EsImport *import, Datum *values, bool *nulls)
{
	check_text_column(values, nulls, ES_ATT_AGGREGATE_TYPE, ES_MAX_TYPE, false);
	check_text_column(values, nulls, ES_ATT_AGGREGATE_ID, ES_MAX_ID, false);
	check_text_column(values, nulls, ES_ATT_EVENT_TYPE, ES_MAX_TYPE, false);
	check_text_column(values, nulls, ES_ATT_EVENT_ID, ES_MAX_TYPE, true);
	check_text_column(values, nulls, ES_ATT_USER_ID, ES_MAX_ID, true);
	check_text_column(values, nulls, ES_ATT_CORRELATION_ID, ES_MAX_ID, true);
	check_text_column(values, nulls, ES_ATT_CAUSATION_ID, ES_MAX_ID, true);
	check_text_column(values, nulls, ES_ATT_TRACEPARENT, ES_MAX_ID, true);
	if (nulls[ES_ATT_DATA - 1])
	{
		values[ES_ATT_DATA - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
		nulls[ES_ATT_DATA - 1] = false;
	}
	es_check_data(values[ES_ATT_DATA - 1], "");
	values[ES_ATT_SCHEMA_VERSION - 1] =
		Int32GetDatum(es_schema_version(!nulls[ES_ATT_SCHEMA_VERSION - 1],
										DatumGetInt32(values[ES_ATT_SCHEMA_VERSION - 1])));
	nulls[ES_ATT_SCHEMA_VERSION - 1] = false;
	default_text(values, nulls, ES_ATT_USER_ID, import->context.user_id);
	default_text(values, nulls, ES_ATT_CORRELATION_ID, import->context.correlation_id);
	default_text(values, nulls, ES_ATT_CAUSATION_ID, import->context.causation_id);
	default_text(values, nulls, ES_ATT_TRACEPARENT, import->context.traceparent);
}

/*
 * es_import_add takes a row, in the columns of es_event.  What it points to
 * must stay until es_import_write().
 */
void
es_import_add(EsImport *import, Datum *values, bool *nulls)
{
	EsImportStream *stream;
	EsPartition *partition;
	EsImportRow *row;
	TimestampTz recorded_at;

	import->row++;
	import->in_row = true;
	if (es_append_count != import->appends)
	{
		/* the query, or a trigger, appends too: maybe to these streams */
		es_import_write(import);
		es_import_settle(import);
		forget_streams(import);
	}
	check_columns(import, values, nulls);
	stream = find_stream(import, (text *) DatumGetPointer(values[ES_ATT_AGGREGATE_TYPE - 1]),
						 (text *) DatumGetPointer(values[ES_ATT_AGGREGATE_ID - 1]));
	if (!check_version(import, stream, values, nulls))
	{
		import->skipped++;
		import->in_row = false;
		return;
	}
	values[ES_ATT_SCHEMA_VERSION - 1] =
		Int32GetDatum(es_event_check(import->store, (text *) DatumGetPointer(values[ES_ATT_EVENT_TYPE - 1]),
									 DatumGetInt32(values[ES_ATT_SCHEMA_VERSION - 1]),
									 values[ES_ATT_DATA - 1]));
	recorded_at = check_time(import, stream, values, nulls);

	partition = es_store_partition(import->store, recorded_at);
	if (stream->head.version == 0 || stream->head.partition != partition->lower)
	{
		/* where only the executor writes, its trigger tells "streams" */
		if (!stream->entered && !import->by_executor)
		{
			stream->entered = true;
			stream->first_partition = partition->lower;
			import->nentered++;
		}
		stream->head.partition = partition->lower;
		(void) es_position_latest_partition(partition->lower);
	}
	stream->head.closing = false;
	stream->head.version++;
	stream->head.recorded_at = recorded_at;

	values[ES_ATT_VERSION - 1] = Int64GetDatum(stream->head.version);
	nulls[ES_ATT_VERSION - 1] = false;
	values[ES_ATT_RECORDED_AT - 1] = TimestampTzGetDatum(recorded_at);
	nulls[ES_ATT_RECORDED_AT - 1] = false;
	default_text(values, nulls, ES_ATT_EVENT_ID,
				 nulls[ES_ATT_EVENT_ID - 1] ? es_uuid_v7() : NULL);

	row = &import->rows[import->nrows++];
	memcpy(row->values, values, sizeof(row->values));
	memcpy(row->nulls, nulls, sizeof(row->nulls));
	row->partition = partition->lower;
	row->written = false;
	import->in_row = false;
	if (import->nrows == ES_IMPORT_ROWS)
		es_import_write(import);
}

/*
 * es_import_write writes the rows that wait.
 */
void
es_import_write(EsImport *import)
{
	uint64		appends = es_append_count;
	int			nrows = import->nrows;

	es_import_flush(import);
	/* the executor's trigger counts the rows themselves */
	if (import->by_executor && es_append_count - appends == (uint64) nrows)
		import->appends += nrows;
}

/*
 * es_import_end writes what is left.
 */
void
es_import_end(EsImport *import)
{
	es_import_write(import);
	es_import_settle(import);
	FreeBulkInsertState(import->bulk);
	/* who counts appends notices */
	es_append_count++;
}
