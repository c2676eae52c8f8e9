/*
 * position.c
 *		Global positions and the safe position, in shared memory.
 *
 * The order of things is what makes the safe position right.
 *
 *	An appender					A reader
 *	1 lower bound := head		1 safe := head
 *	2 publishes it in its slot	2 safe := minimum of safe and all slots
 *	3 takes positions > head	3 takes its snapshot
 *	4 inserts, commits
 *	5 leaves the set of running
 *	  transactions
 *	6 clears its slot
 *
 * A position at or below what the reader finds was given out before the
 * reader's step 1, by an appender whose step 2 came earlier still; so either
 * the reader saw that slot, whose bound is lower than the position, or the
 * slot was cleared before the reader's step 2, and then the reader's snapshot
 * sees what the appender committed.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "store/news.h"
#include "store/position.h"
#include "store/stop_point.h"

#define SLOT_EMPTY				PG_UINT64_MAX

/* what a backend's transaction has not decided; padded to a cache line */
typedef union EsSlot
{
	struct
	{
		EsDatabase *database;	/* changes only while lower is SLOT_EMPTY */
		pg_atomic_uint64 lower; /* all undecided positions exceed this */
	}			s;
	char		pad[64];
} EsSlot;

typedef struct EsPositionShared
{
	LWLock	   *lock;			/* guards the making of entries */
	int			nslots;
	EsSlot	   *slots;			/* one a backend */
	EsDatabase	databases[FLEXIBLE_ARRAY_MEMBER];
} EsPositionShared;

static EsPositionShared *shared = NULL;
static EsDatabase *my_database = NULL;
static bool appending = false;	/* my slot is published */

/* the earliest partition that the transaction writes into */
static TimestampTz entered = DT_NOEND;

static void xact_callback(XactEvent event, void *arg);
static void exit_callback(int code, Datum arg);

/*
 * shmem_size computes what the shared array of databases and slots takes.
 */
static Size
shmem_size(void)
{
	Size		size;

	size = offsetof(EsPositionShared, databases);
	size = add_size(size, mul_size(es_setting_max_databases, sizeof(EsDatabase)));
	size = CACHELINEALIGN(size);
	return add_size(size, add_size(mul_size(MaxBackends, sizeof(EsSlot)), PG_CACHE_LINE_SIZE));
}

/*
 * es_position_request_shmem asks for the shared memory of this file.
 */
void
es_position_request_shmem(void)
{
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche("eventsrc_position", 1);
}

/*
 * es_position_init_shmem finds or makes the shared memory of this file.
 */
void
es_position_init_shmem(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("eventsrc positions", shmem_size(), &found);
	if (!found)
	{
		char	   *end;

		shared->lock = &GetNamedLWLockTranche("eventsrc_position")->lock;
		for (int i = 0; i < es_setting_max_databases; i++)
		{
			EsDatabase *db = &shared->databases[i];

			db->dboid = InvalidOid;
			db->sequence = InvalidOid;
			pg_atomic_init_u64(&db->head, 0);
			pg_atomic_init_u64(&db->reserved, 0);
			pg_atomic_init_u32(&db->appenders, 0);
			pg_atomic_init_u64(&db->moves, 0);
			pg_atomic_init_u64(&db->settled, 0);
			pg_atomic_init_u64(&db->durable, 0);
			pg_atomic_init_u64(&db->snapshot_hits, 0);
			pg_atomic_init_u64(&db->snapshot_misses, 0);
			pg_atomic_init_u64(&db->latest_partition, (uint64) PG_INT64_MIN);
			pg_atomic_init_u64(&db->late, 0);
			pg_atomic_init_u32(&db->worker, 0);
			pg_atomic_init_u64(&db->maintenance_asked, 0);
			pg_atomic_init_u64(&db->maintenance_done, 0);
			pg_atomic_init_u64(&db->month_events, 0);
			pg_atomic_init_u64(&db->month, 0);
			pg_atomic_init_u32(&db->month_claimed, 0);
			ConditionVariableInit(&db->moved);
			ConditionVariableInit(&db->maintained);
			es_news_init(db);
		}
		end = (char *) &shared->databases[es_setting_max_databases];
		shared->slots = (EsSlot *) CACHELINEALIGN(end);
		shared->nslots = MaxBackends;
		for (int i = 0; i < shared->nslots; i++)
		{
			shared->slots[i].s.database = NULL;
			pg_atomic_init_u64(&shared->slots[i].s.lower, SLOT_EMPTY);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * es_position_init_backend registers what clears the slot at the end of a
 * transaction.  Called in the postmaster; its children inherit it.
 */
void
es_position_init_backend(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/*
 * entry_in_use tells whether a backend has undecided positions of an entry.
 */
static bool
entry_in_use(EsDatabase *db)
{
	for (int i = 0; i < shared->nslots; i++)
	{
		if (shared->slots[i].s.database == db &&
			pg_atomic_read_u64(&shared->slots[i].s.lower) != SLOT_EMPTY)
			return true;
	}
	return false;
}

/*
 * es_database finds the shared entry of this database, or makes it from the
 * sequence.  A dropped and re-created extension has another sequence and
 * starts anew in the same entry.
 */
EsDatabase *
es_database(void)
{
	Oid			sequence = es_position_sequence();
	EsDatabase *entry = NULL;
	EsDatabase *fresh = NULL;
	uint64		start;

	if (my_database && my_database->dboid == MyDatabaseId &&
		my_database->sequence == sequence &&
		pg_atomic_read_u64(&my_database->reserved) > 0)
		return my_database;

	Assert(!appending || my_database);

	/*
	 * catalogs are read before the lock is taken; a second maker finds the
	 * first's
	 */
	start = RecoveryInProgress() ? 0 : es_sequence_position(sequence);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < es_setting_max_databases; i++)
	{
		EsDatabase *db = &shared->databases[i];

		if (db->dboid == MyDatabaseId)
		{
			entry = db;
			break;
		}
		if (fresh == NULL && !OidIsValid(db->dboid))
			fresh = db;
	}
	if (entry && entry->sequence != sequence && !entry_in_use(entry))
	{
		pg_atomic_write_u64(&entry->head, start);
		pg_atomic_write_u64(&entry->reserved, start);
		pg_atomic_write_u64(&entry->settled, 0);
		pg_atomic_write_u64(&entry->durable, 0);
		entry->sequence = sequence;
	}
	else if (entry == NULL && fresh)
	{
		entry = fresh;
		pg_atomic_write_u64(&entry->latest_partition, (uint64) PG_INT64_MIN);
		pg_atomic_write_u64(&entry->snapshot_hits, 0);
		pg_atomic_write_u64(&entry->snapshot_misses, 0);
		pg_atomic_write_u64(&entry->head, start);
		pg_atomic_write_u64(&entry->reserved, start);
		pg_atomic_write_u64(&entry->settled, 0);
		pg_atomic_write_u64(&entry->durable, 0);
		entry->sequence = sequence;
		entry->dboid = MyDatabaseId;
	}
	else if (entry && start > 0)
	{
		/* made while this server was a standby, which reads no sequence */
		uint64		none = 0;

		if (pg_atomic_compare_exchange_u64(&entry->reserved, &none, start))
			es_raise_head(entry, start);
	}
	LWLockRelease(shared->lock);

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NOT_RUNNING),
				 errmsg("eventsrc serves no more databases"),
				 errdetail("The cluster was started with eventsrc.max_databases = %d.",
						   es_setting_max_databases),
				 errhint("Raise eventsrc.max_databases in postgresql.conf and restart the server.")));

	my_database = entry;
	return entry;
}

/*
 * detach_worker takes the database's worker off its entry, at its exit.
 */
static void
detach_worker(int code, Datum arg)
{
	EsDatabase *db = (EsDatabase *) DatumGetPointer(arg);

	pg_atomic_write_u32(&db->worker, 0);
	ConditionVariableBroadcast(&db->maintained);
}

/*
 * es_position_attach_worker declares this process the database's worker, which
 * makes partitions for appends that ask; until it exits.
 */
void
es_position_attach_worker(void)
{
	static bool attached = false;
	EsDatabase *db = es_database();

	if (attached)
		return;
	pg_atomic_write_u32(&db->worker, (uint32) MyProcPid);
	on_shmem_exit(detach_worker, PointerGetDatum(db));
	attached = true;
}

/*
 * es_position_forget_database frees the entry of a dropped database.
 */
void
es_position_forget_database(Oid dboid)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < es_setting_max_databases; i++)
	{
		if (shared->databases[i].dboid == dboid)
		{
			shared->databases[i].dboid = InvalidOid;
			shared->databases[i].sequence = InvalidOid;
		}
	}
	LWLockRelease(shared->lock);
}

/*
 * publish_slot declares, before the transaction takes its first position, that
 * positions above the present head may be undecided.
 */
static void
publish_slot(EsDatabase *db)
{
	static bool exit_registered = false;
	EsSlot	   *slot = &shared->slots[es_my_proc_number()];
	uint64		lower;

	if (appending || !ES_TEST_REGISTRY())
		return;
	if (!exit_registered)
	{
		on_shmem_exit(exit_callback, (Datum) 0);
		exit_registered = true;
	}
	slot->s.database = db;
	pg_write_barrier();
	appending = true;
	pg_atomic_fetch_add_u32(&db->appenders, 1);
	lower = pg_atomic_read_u64(&db->head);
	ES_STOP_POINT("lower bound read");
	pg_atomic_write_u64(&slot->s.lower, lower);
	/* published before any position is taken */
	pg_memory_barrier();
	ES_STOP_POINT("published");
}

/*
 * es_position_allocate takes count (>= 1) consecutive positions for the
 * current transaction and returns the first.  They are undecided, and hold the
 * safe position back, until the transaction ends.
 */
int64
es_position_allocate(int count)
{
	EsDatabase *db = es_database();
	uint64		head;

	publish_slot(db);
	head = pg_atomic_read_u64(&db->head);
	for (;;)
	{
		uint64		wanted = head + count;

		if (wanted > pg_atomic_read_u64(&db->reserved))
		{
			es_sequence_reserve(db, wanted);
			head = pg_atomic_read_u64(&db->head);
			continue;
		}
		if (pg_atomic_compare_exchange_u64(&db->head, &head, wanted))
			break;
	}
	ES_STOP_POINT("position taken");
	return (int64) head + 1;
}

/*
 * es_position_import declares a position that comes with its event, from a
 * publisher, as the current transaction's.
 */
void
es_position_import(int64 position)
{
	publish_slot(es_database());
	es_position_at_least(position);
}

/*
 * announce_move tells whoever waits for it, and workers, that the safe
 * position may have moved.
 */
static void
announce_move(EsDatabase *db)
{
	pg_atomic_fetch_add_u64(&db->moves, 1);
	/* clients first: signals to the workers take their time */
	es_news_announce(db);
	ConditionVariableBroadcast(&db->moved);
}

/*
 * es_position_at_least moves the head to at least the given position, as found
 * in tables that were restored with their positions.  A read-only transaction
 * cannot move the sequence; the next append will.
 */
void
es_position_at_least(int64 position)
{
	EsDatabase *db = es_database();

	if (pg_atomic_read_u64(&db->reserved) < (uint64) position &&
		!XactReadOnly && !IsInParallelMode())
		es_sequence_reserve(db, (uint64) position);
	if (pg_atomic_read_u64(&db->head) >= (uint64) position)
		return;
	es_raise_head(db, (uint64) position);
	announce_move(db);
}

/*
 * es_position_found_partition remembers that the partition that begins at the
 * given moment holds events, and returns the latest that is known to.
 */
TimestampTz
es_position_found_partition(TimestampTz lower)
{
	EsDatabase *db = es_database();
	uint64		latest = pg_atomic_read_u64(&db->latest_partition);

	while ((TimestampTz) latest < lower &&
		   !pg_atomic_compare_exchange_u64(&db->latest_partition, &latest, (uint64) lower))
		;
	return Max((TimestampTz) latest, lower);
}

/*
 * es_position_latest_partition is called by whoever writes into the partition
 * that begins at the given moment (DT_NOBEGIN: only looks), and returns the
 * latest that holds events.  So an append notices that the clock was set back
 * over a partition's border, and readers learn of events that come late.
 */
TimestampTz
es_position_latest_partition(TimestampTz lower)
{
	if (lower != DT_NOBEGIN)
		entered = Min(entered, lower);
	return es_position_found_partition(lower);
}

/*
 * es_position_late returns a count that has changed, once the safe position
 * passes an event in another than the latest partition, since before the event
 * was committed.  See find_bounds() in bounds.c.
 */
uint64
es_position_late(void)
{
	return pg_atomic_read_u64(&es_database()->late);
}

/*
 * es_position_head returns the highest position given out in this database.
 */
int64
es_position_head(void)
{
	return (int64) pg_atomic_read_u64(&es_database()->head);
}

/*
 * es_position_appending tells whether the transaction has taken positions.
 */
bool
es_position_appending(void)
{
	return appending;
}

/*
 * es_position_safe_of computes the safe position from shared memory; the
 * caller takes its snapshot afterwards.
 *
 * What was safe once stays so, though an appender that read the head long
 * before it publishes its bound holds back more than it needs to: so nobody
 * is given a lower position than somebody was before, and whoever found
 * nothing up to a safe position may go on from there.
 *
 * Where nobody appends, no slot need be read, which spares who was just woken
 * a cache line for each backend that there may be.  An appender is counted
 * before it publishes its slot and until it has cleared it, so whoever finds
 * none counted, after reading the head, would find no slot either.
 */
int64
es_position_safe_of(EsDatabase *db)
{
	uint64		safe;
	uint64		settled;
	int			nslots;

	ES_STOP_POINT("read begun");
	safe = pg_atomic_read_u64(&db->head);
	ES_STOP_POINT("head read");
	/* the head is read before the slots */
	pg_memory_barrier();
	nslots = pg_atomic_read_u32(&db->appenders) > 0 ? shared->nslots : 0;
	for (int i = 0; i < nslots; i++)
	{
		EsSlot	   *slot = &shared->slots[i];
		uint64		lower = pg_atomic_read_u64(&slot->s.lower);

		if (lower >= safe)		/* also SLOT_EMPTY */
			continue;
		pg_read_barrier();
		if (slot->s.database == db)
			safe = lower;
	}
	settled = pg_atomic_read_u64(&db->settled);
	while (settled < safe &&
		   !pg_atomic_compare_exchange_u64(&db->settled, &settled, safe))
		;
	/* and the slots before the snapshot */
	pg_memory_barrier();
	ES_STOP_POINT("slots read");
	return (int64) Max(safe, settled);
}

/*
 * es_position_safe returns the safe position: every event at or below it is
 * visible to a snapshot taken after this call, or will never exist.
 */
int64
es_position_safe(void)
{
	if (RecoveryInProgress())
		return es_position_published();
	return es_position_safe_of(es_database());
}

/*
 * clear_slot declares this transaction's positions decided and wakes readers.
 */
static void
clear_slot(void)
{
	EsSlot	   *slot = &shared->slots[es_my_proc_number()];
	EsDatabase *db = slot->s.database;

	/* what was committed is visible before the slot says so */
	pg_memory_barrier();
	if (entered < (TimestampTz) pg_atomic_read_u64(&db->latest_partition))
		(void) pg_atomic_fetch_add_u64(&db->late, 1);
	pg_atomic_write_u64(&slot->s.lower, SLOT_EMPTY);
	pg_atomic_fetch_sub_u32(&db->appenders, 1);
	appending = false;

	announce_move(db);
}

/*
 * xact_callback clears the slot once the transaction has left the set of
 * running ones: XACT_EVENT_COMMIT and _ABORT come after
 * ProcArrayEndTransaction().
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (!appending)
	{
		if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
			entered = DT_NOEND;
		return;
	}

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			ES_STOP_POINT_BUSY("visible");
			clear_slot();
			entered = DT_NOEND;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_ES_PREPARED),
					 errmsg("cannot PREPARE a transaction that has appended events"),
					 errdetail("Its positions would stay undecided, and hold every reader back, until somebody finishes it."),
					 errhint("Commit the events in a transaction of their own, or use a saga instead of two-phase commit.")));
			break;
		default:
			break;
	}
}

/*
 * exit_callback clears the slot of a backend that leaves; the abort of its
 * transaction came before.
 */
static void
exit_callback(int code, Datum arg)
{
	if (appending)
		clear_slot();
}
