/*
 * batch.c
 *		es_append_batch(): appends to many streams, all or none.
 *
 * All streams are locked before any is looked at, in an order that every batch
 * keeps; then all entries are checked, and only then is anything written.  So
 * two batches never wait for each other in a circle, and a conflict costs no
 * positions.
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "append/batch.h"

PG_FUNCTION_INFO_V1(es_append_batch);

/*
 * add_context names the entry in errors that are not of our making, such as
 * those of constraints and triggers.
 */
static void
add_context(void *arg)
{
	EsBatchPlace *place = arg;

	if (place->entry > 0)
		errcontext("%s of the batch", es_batch_place(place));
}

/*
 * compare_texts orders texts, by length first.
 */
static int
compare_texts(const text *a, const text *b)
{
	if (VARSIZE_ANY_EXHDR(a) != VARSIZE_ANY_EXHDR(b))
		return VARSIZE_ANY_EXHDR(a) < VARSIZE_ANY_EXHDR(b) ? -1 : 1;
	return memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a));
}

/*
 * compare_entries orders entries as their streams are to be locked; it gives 0
 * for the same stream only.
 */
static int
compare_entries(const void *a, const void *b)
{
	const EsBatchEntry *one = *(EsBatchEntry *const *) a;
	const EsBatchEntry *other = *(EsBatchEntry *const *) b;
	int			result;

	if (one->hash != other->hash)
		return one->hash < other->hash ? -1 : 1;
	result = compare_texts(one->append.aggregate_type, other->append.aggregate_type);
	if (result == 0)
		result = compare_texts(one->append.aggregate_id, other->append.aggregate_id);
	return result;
}

/*
 * lock_streams locks the streams of all entries; refuses a stream that has two.
 */
static void
lock_streams(EsStore *store, EsBatchEntry *entries, int count, EsBatchPlace *place)
{
	EsBatchEntry **order = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(EsBatchEntry *));

	for (int i = 0; i < count; i++)
	{
		EsAppend   *append = &entries[i].append;

		append->store = store;
		entries[i].hash = es_stream_hash(store, append->aggregate_type, append->aggregate_id);
		order[i] = &entries[i];
	}
	qsort(order, count, sizeof(EsBatchEntry *), compare_entries);
	for (int i = 1; i < count; i++)
	{
		EsAppend   *append = &order[i]->append;
		int			other = order[i - 1]->append.entry;

		if (compare_entries(&order[i - 1], &order[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("entries %d and %d of the batch name the same stream",
							Min(other, append->entry), Max(other, append->entry)),
					 errdetail("It is stream %s %s.", text_to_cstring(append->aggregate_type),
							   text_to_cstring(append->aggregate_id)),
					 errhint("Give a stream one entry that holds all of its events.")));
	}

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		place->entry = order[i]->append.entry;
		es_stream_lock_hash(order[i]->hash);
	}
	pfree(order);
}

/*
 * find_head finds where an entry's stream stands.
 */
static void
find_head(EsBatchEntry *entry, TimestampTz now)
{
	EsAppend   *append = &entry->append;

	es_stream_head(append->store, append->aggregate_type, append->aggregate_id,
				   entry->hash, append->expected, now, &entry->head);
}

/*
 * is_retry tells whether the batch is the repetition of one that succeeded:
 * all events that it appends are there, by their ids.  The result is set then.
 */
static bool
is_retry(EsBatchEntry *entries, int count)
{
	int			appends = 0;
	int			retries = 0;

	for (int i = 0; i < count; i++)
	{
		EsBatchEntry *entry = &entries[i];

		if (entry->append.nevents == 0)
			continue;
		appends++;
		entry->retry = es_is_retry(&entry->append, &entry->head);
		if (entry->retry)
			retries++;
	}
	return appends > 0 && retries == appends;
}

/*
 * check_entries raises the error of the first entry that cannot go on.
 */
static void
check_entries(EsBatchEntry *entries, int count, EsBatchPlace *place)
{
	for (int i = 0; i < count; i++)
	{
		EsBatchEntry *entry = &entries[i];

		place->entry = entry->append.entry;
		es_check_expected(&entry->append, &entry->head);
		if (entry->retry)
			es_raise_conflict(&entry->append, entry->head.version,
							  "The stream has these events already, but other entries of the batch were not appended with them: repeat a batch as it was.");
	}
}

/*
 * append_entries writes what the entries append and sets their results.
 */
static void
append_entries(EsStore *store, EsBatchEntry *entries, int count, TimestampTz now, EsBatchPlace *place)
{
	bool		by_executor = es_append_by_executor(store);
	uint64		appends = es_append_count;

	for (int i = 0; i < count; i++)
	{
		EsBatchEntry *entry = &entries[i];
		EsAppend   *append = &entry->append;

		CHECK_FOR_INTERRUPTS();
		place->entry = append->entry;
		if (append->nevents == 0)
			append->version = entry->head.version;
		else if (by_executor)
			es_insert_by_executor(append);
		else
		{
			if (es_append_count != appends)
			{
				/*
				 * a trigger of an entry before appends too, maybe to this
				 * stream
				 */
				find_head(entry, now);
				es_check_expected(append, &entry->head);
			}
			es_insert_direct(append, &entry->head, now);
			es_stream_remember(entry->hash, append->version);
			appends++;
		}
	}
}

/*
 * put_result adds an entry's row to the result.
 */
static void
put_result(ReturnSetInfo *result, const EsAppend *append)
{
	Datum		values[4];
	bool		nulls[4] = {false, false, false, append->nevents == 0};

	values[0] = PointerGetDatum(append->aggregate_type);
	values[1] = PointerGetDatum(append->aggregate_id);
	values[2] = Int64GetDatum(append->version);
	values[3] = Int64GetDatum(append->position);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * es_append_batch(batch, store) appends to many streams, all or none, and
 * returns a row for each entry of the batch, in its order: the stream's version
 * and the position of the last event appended.  Errors as es_append(); they
 * name the entry.
 */
Datum
es_append_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	EsBatchPlace place = {0, 0};
	ErrorContextCallback context;
	EsStore    *store;
	EsBatchEntry *entries;
	int			count;
	TimestampTz now;

	es_check_writable("es_append_batch()");
	InitMaterializedSRF(fcinfo, 0);
	entries = es_batch_read(PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0), &count, &place);
	store = es_store_open(es_store_name_arg(fcinfo, 1), RowExclusiveLock);
	es_store_check_acl(store, ACL_INSERT);

	context.callback = add_context;
	context.arg = &place;
	context.previous = error_context_stack;
	error_context_stack = &context;

	lock_streams(store, entries, count, &place);
	now = GetCurrentTimestamp();
	for (int i = 0; i < count; i++)
	{
		place.entry = i + 1;
		find_head(&entries[i], now);
	}
	if (is_retry(entries, count))
	{
		/* the streams that were only checked may have moved on since */
		for (int i = 0; i < count; i++)
		{
			EsAppend   *append = &entries[i].append;

			if (append->nevents == 0)
				append->version = append->expected >= 0 ? append->expected : entries[i].head.version;
		}
	}
	else
	{
		check_entries(entries, count, &place);
		append_entries(store, entries, count, now, &place);
	}

	error_context_stack = context.previous;
	for (int i = 0; i < count; i++)
		put_result(result, &entries[i].append);
	return (Datum) 0;
}
