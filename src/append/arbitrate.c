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
 * A transaction over very many streams claims those beyond the first
 * MAX_STREAM_LOCKS instead of keeping their locks, so that it cannot fill the
 * lock table: see claims.c.  Whatever is said of a stream's lock elsewhere holds
 * for a claim too.
 *
 * Who locks many streams at once, as es_append_batch() does, cannot meet
 * another in a circle if both take them by hash.
 */
#include "eventsrc.h"

#include "access/sysattr.h"
#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "append/append.h"
#include "read/scan.h"
#include "store/position.h"
#include "store/texts.h"

#define MAX_STREAM_LOCKS		512

/* how many of a stream's last events are searched for a retry without a version */
#define RETRY_WINDOW			100

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

/* how many appends this backend made; who reads it twice sees if there were more */
uint64		es_append_count = 0;

/*
 * es_stream_remember notes the version that an append brought the stream with
 * a hash to.
 */
void
es_stream_remember(uint64 hash, int64 version)
{
	es_append_count++;
	hints[hash % HINTS].hash = hash;
	hints[hash % HINTS].version = version;
}

/*
 * es_stream_hash gives the hash by which a stream is locked.
 */
uint64
es_stream_hash(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	uint64		hash;

	hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(aggregate_type),
							   VARSIZE_ANY_EXHDR(aggregate_type), store->events);
	return hash_bytes_extended((unsigned char *) VARDATA_ANY(aggregate_id),
							   VARSIZE_ANY_EXHDR(aggregate_id), hash);
}

/* single streams that the transaction locked */
static FullTransactionId counted = {0};
static int	stream_locks = 0;

/*
 * count_stream_locks begins to count anew in a new transaction.
 */
static void
count_stream_locks(void)
{
	if (!FullTransactionIdEquals(counted, GetTopFullTransactionId()))
	{
		counted = GetTopFullTransactionId();
		stream_locks = 0;
	}
}

/*
 * es_stream_lock makes this transaction the only appender of a stream until it
 * ends.  Returns the stream's hash.
 */
uint64
es_stream_lock(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	uint64		hash = es_stream_hash(store, aggregate_type, aggregate_id);

	es_stream_lock_hash(hash);
	return hash;
}

/*
 * es_stream_lock_hash does so for the stream with a hash.
 */
void
es_stream_lock_hash(uint64 hash)
{
	LOCKTAG		stream;
	bool		many;

	SET_LOCKTAG_ADVISORY(stream, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, ES_LOCK_STREAM);

	count_stream_locks();
	many = (stream_locks >= MAX_STREAM_LOCKS);
	if (many)
		es_claims_begin();
	for (;;)
	{
		TransactionId other;

		/* who holds the lock holds it to the end */
		if (LockAcquire(&stream, ExclusiveLock, false, false) != LOCKACQUIRE_OK)
			return;
		other = es_claim_of_other(hash);
		if (!TransactionIdIsValid(other))
			break;
		(void) LockRelease(&stream, ExclusiveLock, false);
		XactLockTableWait(other, NULL, NULL, XLTW_None);
	}

	if (many)
	{
		es_claim(hash);
		(void) LockRelease(&stream, ExclusiveLock, false);
	}
	else
		stream_locks++;
}

/*
 * column_text returns a slot's text column that is never NULL.
 */
static text *
column_text(TupleTableSlot *slot, AttrNumber attribute)
{
	bool		isnull;

	return DatumGetTextPP(slot_getattr(slot, attribute, &isnull));
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
		head->closing = es_text_is(column_text(slot, ES_ATT_EVENT_TYPE), ES_CLOSING_TYPE);
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
 * raise_lost raises VE011 for a stream whose last events are in a partition that
 * was detached: nobody knows its version.
 */
static void
raise_lost(EsStore *store, text *aggregate_type, text *aggregate_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_STORE_DAMAGED),
			 errmsg("the version of stream %s %s of store \"%s\" is not known",
					text_to_cstring(aggregate_type), text_to_cstring(aggregate_id),
					NameStr(store->name)),
			 errdetail("Its last events are in a partition of events that was detached or dropped."),
			 errhint("Attach the partition again, or begin another stream."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, NameStr(store->name)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "events")));
}

/*
 * es_stream_head finds where a stream stands; the caller holds its lock.
 * expected (ES_EXPECT_ANY if nothing is) only makes the probe shorter: an index
 * scan reads all that matches on a page, and that is all of a short stream.  The
 * partition of the present moment is tried first, unless it is remembered where
 * the stream stands there; the row in "streams" is read only if the stream has
 * no event there, or if a later partition has events (the clock was set back).
 */
void
es_stream_head(EsStore *store, text *aggregate_type, text *aggregate_id,
			   uint64 hash, int64 expected, TimestampTz now, EsStreamHead *head)
{
	int			current;
	int64		hint = expected;
	int			first;
	int			last;
	EsStreamHead known;
	bool		is_known;
	bool		lost;

	/*
	 * while we waited for the lock, others may have made partitions and used
	 * them
	 */
	es_store_refresh(store);
	current = es_store_find_partition(store, now);
	is_known = es_head_take(store, aggregate_type, aggregate_id, hash, &known);

	head->hash = hash;
	head->version = 0;
	head->recorded_at = DT_NOBEGIN;
	head->partition = DT_NOBEGIN;
	head->has_row = false;
	head->seen = true;
	head->closing = false;

	if (current >= 0)
	{
		TimestampTz lower = store->partitions[current].lower;

		if (es_position_latest_partition(DT_NOBEGIN) > lower)
			current = -1;
		else
		{
			/*
			 * What does not fit is looked up, so that a conflict is always
			 * with what is in the table.
			 */
			if (is_known && known.partition == lower && !IsolationUsesXactSnapshot() &&
				(expected < 0 || expected == known.version))
			{
				head->version = known.version;
				head->recorded_at = known.recorded_at;
				head->partition = known.partition;
				return;
			}
			if (hints[hash % HINTS].hash == hash)
				hint = Max(hint, hints[hash % HINTS].version);
			if (hint > 1 && probe(store, current, aggregate_type, aggregate_id, hint, head))
				return;
			if (probe(store, current, aggregate_type, aggregate_id, 0, head))
				return;
		}
	}

	head->has_row = es_stream_extent(store, aggregate_type, aggregate_id, SnapshotSelf,
									 &first, &last, &head->row, &lost);
	if (!head->has_row)
		return;
	if (lost)
		raise_lost(store, aggregate_type, aggregate_id);
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
 * in_batch says which entry of a batch an append is.
 */
static const char *
in_batch(EsAppend *append)
{
	return append->entry > 0 ? psprintf(" (entry %d of the batch)", append->entry) : "";
}

/*
 * es_raise_conflict raises VE001; schema and table of the error are the
 * store's events.
 */
void
es_raise_conflict(EsAppend *append, int64 actual, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_VERSION_CONFLICT),
			 errmsg("version conflict in stream %s %s of store \"%s\"%s",
					text_to_cstring(append->aggregate_type),
					text_to_cstring(append->aggregate_id), NameStr(append->store->name),
					in_batch(append)),
			 errdetail("expected=%s actual=%lld",
					   version_text(append->expected), (long long) actual),
			 errhint("%s", hint),
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
			 errmsg("could not serialize access due to concurrent append to stream %s %s of store \"%s\"%s",
					text_to_cstring(append->aggregate_type),
					text_to_cstring(append->aggregate_id), NameStr(append->store->name),
					in_batch(append)),
			 errhint("The transaction might succeed if retried."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, NameStr(append->store->name)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "events")));
}

/*
 * raise_closed raises VE015.
 */
static void
raise_closed(EsAppend *append, const EsStreamHead *head)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_STREAM_CLOSED),
			 errmsg("stream %s %s of store \"%s\" is closed%s",
					text_to_cstring(append->aggregate_type),
					text_to_cstring(append->aggregate_id), NameStr(append->store->name),
					in_batch(append)),
			 errdetail("It was closed at version %lld on %s.",
					   (long long) head->version, timestamptz_to_str(head->recorded_at)),
			 errhint("A closed stream can be read, but nothing can be appended any more; begin another stream."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, NameStr(append->store->name)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "events")));
}

/*
 * same_event compares a stream's event with one that is to be appended.
 */
static bool
same_event(TupleTableSlot *slot, const EsNewEvent *event)
{
	return es_text_same(column_text(slot, ES_ATT_EVENT_ID), event->event_id) &&
		es_text_same(column_text(slot, ES_ATT_EVENT_TYPE), event->event_type);
}

/*
 * is_run_at tells whether the events that a stream has from a version on are
 * the very ones that are to be appended; sets the result to the first append's.
 */
static bool
is_run_at(EsAppend *append, int64 version)
{
	EsScan	   *scan;
	TupleTableSlot *slot;
	int			same = 0;
	bool		isnull;

	scan = es_scan_stream(append->store, append->aggregate_type, append->aggregate_id,
						  version, version + append->nevents - 1, false, SnapshotSelf);
	while (same < append->nevents && (slot = es_scan_next(scan)) != NULL)
	{
		if (!same_event(slot, &append->events[same]))
			break;
		same++;
		append->version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
		append->position = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
	}
	es_scan_end(scan);
	return same == append->nevents;
}

/*
 * is_run_in_window looks for them among the stream's last events.
 */
static bool
is_run_in_window(EsAppend *append, const EsStreamHead *head)
{
	int64		from = Max(head->version - Max(RETRY_WINDOW, append->nevents), 0) + append->nevents;
	EsScan	   *scan;
	TupleTableSlot *slot;
	bool		isnull;
	bool		found = false;

	/* where their last one is, there they may end */
	scan = es_scan_stream(append->store, append->aggregate_type, append->aggregate_id,
						  from, head->version, true, SnapshotSelf);
	while (!found && (slot = es_scan_next(scan)) != NULL)
		found = same_event(slot, &append->events[append->nevents - 1]) &&
			is_run_at(append, DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull)) -
					  append->nevents + 1);
	es_scan_end(scan);
	return found;
}

/*
 * es_is_retry tells whether an append is the repetition of one that succeeded,
 * by the ids that the caller gave its events; sets the result to the first
 * one's.
 */
bool
es_is_retry(EsAppend *append, const EsStreamHead *head)
{
	if (!append->ids_given || append->nevents == 0)
		return false;
	if (append->expected < 0)
		return is_run_in_window(append, head);
	return head->version != append->expected && is_run_at(append, append->expected + 1);
}

/*
 * es_check_expected checks an append against where its stream stands; raises
 * 40001 where the transaction's snapshot is too old to know, VE015 if the
 * stream is closed, VE001 if it is at another version.
 */
void
es_check_expected(EsAppend *append, const EsStreamHead *head)
{
	bool		fits;

	if (append->expected == ES_EXPECT_ANY)
		fits = true;
	else if (append->expected == ES_EXPECT_EXISTS)
		fits = head->version > 0;
	else
		fits = head->version == append->expected;

	if (!head->seen)
		raise_serialization_failure(append);
	if (head->closing && append->nevents > 0 && !append->closes &&
		es_stream_is_closed(append->store, append->aggregate_type, append->aggregate_id))
		raise_closed(append, head);
	if (!fits)
		es_raise_conflict(append, head->version,
						  "Read the stream again, decide again, and append at the version that it has then.");
}

/*
 * es_arbitrate decides on an append: true if it may go on, false if it is a
 * retry of one that succeeded (the result is set); otherwise raises an error.
 */
bool
es_arbitrate(EsAppend *append, const EsStreamHead *head)
{
	if (es_is_retry(append, head))
		return false;
	es_check_expected(append, head);
	return true;
}
