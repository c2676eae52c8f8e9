/*
 * known.c
 *		Where the streams stand that the transaction's INSERTs and COPYs append
 *		to, so that the trigger need not lock and look up a stream again for
 *		each of its rows.
 *
 * What is known of a stream holds as long as its last event is the one that
 * the trigger let through: until another append in this backend, the end of
 * the transaction, or the abort of a subtransaction, which can take events and
 * locks back.  Then all is forgotten.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "append/append.h"
#include "store/texts.h"

#define STREAMS_KNOWN	10000

typedef struct Known
{
	uint64		hash;			/* the hash key */
	Oid			events;
	text	   *aggregate_type;
	text	   *aggregate_id;
	int64		version;
	TimestampTz recorded_at;
	TimestampTz partition;
} Known;

static HTAB *known = NULL;
static MemoryContext known_context = NULL;
static uint64 known_count = 0;	/* es_append_count, when the last was noted */

/*
 * es_known_forget forgets all streams; before an append that goes another way.
 */
void
es_known_forget(void)
{
	if (known_context)
		MemoryContextDelete(known_context);
	known_context = NULL;
	known = NULL;
}

/*
 * xact_callback forgets them at the end of the transaction.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			es_known_forget();
			break;
		default:
			break;
	}
}

/*
 * subxact_callback forgets them when a subtransaction aborts.
 */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		es_known_forget();
}

/*
 * es_known_usable tells whether a row that the trigger lets through into a
 * partition is written, or the statement fails: neither can another trigger
 * suppress it, nor a unique index of the user's under ON CONFLICT DO NOTHING.
 */
bool
es_known_usable(EsStore *store, Relation partition)
{
	List	   *indexes;
	bool		usable;

	if (!store->plain_append)
		return false;
	indexes = RelationGetIndexList(partition);
	usable = list_length(indexes) == 2;
	list_free(indexes);
	return usable;
}

/*
 * es_known_find gives the head of a stream that is known to be locked, and to
 * stand in a partition.
 */
bool
es_known_find(EsStore *store, uint64 hash, text *aggregate_type, text *aggregate_id,
			  TimestampTz partition, EsStreamHead *head)
{
	Known	   *stream;

	if (known == NULL)
		return false;
	if (known_count != es_append_count)
	{
		es_known_forget();
		return false;
	}
	stream = hash_search(known, &hash, HASH_FIND, NULL);
	if (stream == NULL || stream->partition != partition || stream->events != store->events ||
		!es_text_same(stream->aggregate_id, aggregate_id) ||
		!es_text_same(stream->aggregate_type, aggregate_type))
		return false;

	head->version = stream->version;
	head->recorded_at = stream->recorded_at;
	head->partition = partition;
	head->has_row = false;
	head->seen = true;
	head->closing = false;
	return true;
}

/*
 * es_known_set notes that a row was let through; es_stream_remember() was
 * called for it just before.
 */
void
es_known_set(EsStore *store, uint64 hash, text *aggregate_type, text *aggregate_id,
			 int64 version, TimestampTz recorded_at, TimestampTz partition)
{
	static bool registered = false;
	Known	   *stream;
	bool		found;

	if (!registered)
	{
		RegisterXactCallback(xact_callback, NULL);
		RegisterSubXactCallback(subxact_callback, NULL);
		registered = true;
	}
	if (known && (known_count + 1 != es_append_count || hash_get_num_entries(known) >= STREAMS_KNOWN))
		es_known_forget();
	if (known == NULL)
	{
		HASHCTL		ctl = {0};

		known_context = AllocSetContextCreate(TopMemoryContext, "eventsrc known streams",
											  ALLOCSET_DEFAULT_SIZES);
		ctl.keysize = sizeof(uint64);
		ctl.entrysize = sizeof(Known);
		ctl.hcxt = known_context;
		known = hash_create("eventsrc known streams", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	stream = hash_search(known, &hash, HASH_ENTER, &found);
	if (!found || stream->events != store->events ||
		!es_text_same(stream->aggregate_id, aggregate_id) ||
		!es_text_same(stream->aggregate_type, aggregate_type))
	{
		MemoryContext old = MemoryContextSwitchTo(known_context);

		stream->events = store->events;
		stream->aggregate_type = DatumGetTextPCopy(PointerGetDatum(aggregate_type));
		stream->aggregate_id = DatumGetTextPCopy(PointerGetDatum(aggregate_id));
		MemoryContextSwitchTo(old);
	}
	stream->version = version;
	stream->recorded_at = recorded_at;
	stream->partition = partition;
	known_count = es_append_count;
}
