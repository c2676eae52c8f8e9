/*
 * arbitrate.c
 *		Decides whether an append may go on: one appender a stream at a time,
 *		at the version that it expects.
 *
 * The arbiter of a stream is a heavyweight lock on its hash, held to the end of
 * the transaction: no row is updated for it, waits show in pg_locks, deadlocks
 * are found.  Under the lock the last event is read with SnapshotSelf, which
 * sees what is committed now and what the transaction itself wrote.
 *
 * Every appender also holds, shared, the lock of one of 1,024 buckets of
 * streams.  A transaction over very many streams stops taking locks on single
 * streams and takes their buckets exclusively, so that it cannot fill the
 * lock table.  Only one transaction at a time may do that, and it does not wait
 * for a bucket that others share, but locks single streams there, up to a third
 * of the lock table: else two would wait for each other, though their streams
 * differ.
 */
#include "eventsrc.h"

#include "access/sysattr.h"
#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "read/scan.h"
#include "store/position.h"

#define BUCKETS					1024
#define MAX_STREAM_LOCKS		512

/*
 * The versions that this backend saw streams at, by their hash.  Only a place
 * to begin a probe at: if the stream is not there any more, which a rollback
 * can bring about, the probe begins anew without it.
 */
#define HINTS					16384

static struct
{
	uint64		hash;
	int64		version;
}			hints[HINTS];

/*
 * es_stream_remember notes the version of the stream with a hash.
 */
void
es_stream_remember(uint64 hash, int64 version)
{
	hints[hash % HINTS].hash = hash;
	hints[hash % HINTS].version = version;
}

/*
 * lock_among_many locks a stream for a transaction that has locked very many;
 * tells whether a lock on the single stream was taken.
 */
static bool
lock_among_many(const LOCKTAG *stream, const LOCKTAG *bucket, bool may_lock_stream)
{
	LOCKTAG		many;

	SET_LOCKTAG_ADVISORY(many, MyDatabaseId, 0, 0, ES_LOCK_MANY);
	(void) LockAcquire(&many, ExclusiveLock, false, false);
	if (LockAcquire(bucket, ExclusiveLock, false, may_lock_stream) != LOCKACQUIRE_NOT_AVAIL)
		return false;

	/* others have streams in that bucket */
	(void) LockAcquire(bucket, ShareLock, false, false);
	return LockAcquire(stream, ExclusiveLock, false, false) == LOCKACQUIRE_OK;
}

/*
 * es_stream_lock makes this transaction the only appender of a stream until it
 * ends.  Returns the stream's hash.
 */
uint64
es_stream_lock(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	static FullTransactionId counted = {0};
	static int	stream_locks = 0;
	uint64		hash;
	LOCKTAG		stream;
	LOCKTAG		bucket;

	hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(aggregate_type),
							   VARSIZE_ANY_EXHDR(aggregate_type), store->events);
	hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(aggregate_id),
							   VARSIZE_ANY_EXHDR(aggregate_id), hash);
	SET_LOCKTAG_ADVISORY(stream, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, ES_LOCK_STREAM);
	SET_LOCKTAG_ADVISORY(bucket, MyDatabaseId, 0, (uint32) (hash % BUCKETS), ES_LOCK_BUCKET);

	if (!FullTransactionIdEquals(counted, GetTopFullTransactionId()))
	{
		counted = GetTopFullTransactionId();
		stream_locks = 0;
	}
	if (stream_locks < MAX_STREAM_LOCKS)
	{
		(void) LockAcquire(&bucket, ShareLock, false, false);
		if (LockAcquire(&stream, ExclusiveLock, false, false) == LOCKACQUIRE_OK)
			stream_locks++;
	}
	else if (lock_among_many(&stream, &bucket,
							 stream_locks < max_locks_per_xact * MaxBackends / 3))
		stream_locks++;
	return hash;
}

/*
 * probe reads a stream's last event in one partition, if its version is at
 * least from_version; false if there is none.
 */
static bool
probe(EsStore *store, int partition, text *aggregate_type, text *aggregate_id,
	  int64 from_version, EsStreamHead *head)
{
	EsScan	   *scan = es_scan_stream_in(store, partition, aggregate_type, aggregate_id,
										 from_version, SnapshotSelf);
	TupleTableSlot *slot = es_scan_next(scan);
	bool		isnull;
	bool		found = (slot != NULL);

	if (found)
	{
		head->version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
		head->recorded_at = DatumGetTimestampTz(slot_getattr(slot, ES_ATT_RECORDED_AT, &isnull));
		head->partition = store->partitions[partition].lower;
		if (IsolationUsesXactSnapshot())
		{
			TransactionId xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));

			head->seen = TransactionIdIsCurrentTransactionId(xmin) ||
				es_scan_visible(scan, slot, GetTransactionSnapshot());
		}
	}
	es_scan_end(scan);
	return found;
}

/*
 * es_stream_head finds where a stream stands; the caller holds its lock.
 * expected (ES_EXPECT_ANY if nothing is) only makes the probe shorter: an index
 * scan reads all that matches on a page, and that is all of a short stream.  The
 * partition of the present moment is tried first; the row in "streams" is read
 * only if the stream has no event there, or if a later partition has events
 * (the clock was set back).
 */
void
es_stream_head(EsStore *store, text *aggregate_type, text *aggregate_id,
			   uint64 hash, int64 expected, TimestampTz now, EsStreamHead *head)
{
	int			current = es_store_find_partition(store, now);
	int64		hint = expected;
	int			first;
	int			last;

	head->version = 0;
	head->recorded_at = DT_NOBEGIN;
	head->partition = DT_NOBEGIN;
	head->row_read = false;
	head->has_row = false;
	head->seen = true;

	if (current >= 0)
	{
		TimestampTz lower = store->partitions[current].lower;

		if (es_position_latest_partition(DT_NOBEGIN) > lower)
			current = -1;
		else
		{
			if (hints[hash % HINTS].hash == hash)
				hint = Max(hint, hints[hash % HINTS].version);
			if (hint > 1 && probe(store, current, aggregate_type, aggregate_id, hint, head))
				return;
			if (probe(store, current, aggregate_type, aggregate_id, 0, head))
				return;
		}
	}

	head->row_read = true;
	head->has_row = es_stream_extent(store, aggregate_type, aggregate_id, SnapshotSelf,
									 &first, &last, &head->row);
	if (!head->has_row)
		return;
	for (int i = last; i >= first; i--)
	{
		if (i != current && probe(store, i, aggregate_type, aggregate_id, 0, head))
			return;
	}
}

/*
 * version_text prints an expected version.
 */
static const char *
version_text(int64 expected)
{
	if (expected == ES_EXPECT_ANY)
		return "any";
	return psprintf("%lld", (long long) expected);
}

/*
 * raise_conflict raises VE001; schema and table of the error are the store's
 * events.
 */
static void
raise_conflict(EsAppend *append, int64 actual)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_VERSION_CONFLICT),
			 errmsg("version conflict in stream %s %s of store \"%s\"",
					text_to_cstring(append->aggregate_type),
					text_to_cstring(append->aggregate_id), NameStr(append->store->name)),
			 errdetail("expected=%s actual=%lld",
					   version_text(append->expected), (long long) actual),
			 errhint("Read the stream again, decide again, and append at the version that it has then."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, NameStr(append->store->name)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "events")));
}

/*
 * raise_serialization_failure raises 40001, for a transaction whose snapshot
 * does not see the stream's last event.
 */
static void
raise_serialization_failure(EsAppend *append)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent append to stream %s %s of store \"%s\"",
					text_to_cstring(append->aggregate_type),
					text_to_cstring(append->aggregate_id), NameStr(append->store->name)),
			 errhint("The transaction might succeed if retried."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, NameStr(append->store->name)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "events")));
}

/*
 * same_text compares a slot's text column with a text.
 */
static bool
same_text(TupleTableSlot *slot, AttrNumber attribute, text *with)
{
	bool		isnull;
	text	   *value = DatumGetTextPP(slot_getattr(slot, attribute, &isnull));

	return VARSIZE_ANY_EXHDR(value) == VARSIZE_ANY_EXHDR(with) &&
		memcmp(VARDATA_ANY(value), VARDATA_ANY(with), VARSIZE_ANY_EXHDR(with)) == 0;
}

/*
 * is_retry tells whether the events that follow the expected version are the
 * very ones that are to be appended; sets the result to the first append's.
 */
static bool
is_retry(EsAppend *append)
{
	EsScan	   *scan;
	TupleTableSlot *slot;
	int			same = 0;
	bool		isnull;

	if (!append->ids_given || append->expected < 0)
		return false;
	scan = es_scan_stream(append->store, append->aggregate_type, append->aggregate_id,
						  append->expected + 1, append->expected + append->nevents,
						  false, SnapshotSelf);
	while (same < append->nevents && (slot = es_scan_next(scan)) != NULL)
	{
		if (!same_text(slot, ES_ATT_EVENT_ID, append->events[same].event_id) ||
			!same_text(slot, ES_ATT_EVENT_TYPE, append->events[same].event_type))
			break;
		same++;
		append->version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
		append->position = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
	}
	es_scan_end(scan);
	return same == append->nevents;
}

/*
 * es_arbitrate checks an append against where its stream stands: true if it
 * may go on, false if it is a retry of one that succeeded (the result is set);
 * otherwise raises VE001, or 40001 where the transaction's snapshot is too old
 * to know.
 */
bool
es_arbitrate(EsAppend *append, const EsStreamHead *head)
{
	bool		fits;

	if (append->expected == ES_EXPECT_ANY)
		fits = true;
	else if (append->expected == ES_EXPECT_EXISTS)
		fits = head->version > 0;
	else
		fits = head->version == append->expected;

	if (!fits && is_retry(append))
		return false;
	if (!head->seen)
		raise_serialization_failure(append);
	if (!fits)
		raise_conflict(append, head->version);
	return true;
}
