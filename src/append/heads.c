/*
 * heads.c
 *		Remembers in shared memory where streams stand, so that an append need
 *		not look into the index for the stream's last event.
 *
 * An entry says: this stream's last event is of this version.  It is never
 * out of date, because whoever lets a stream grow does three things under the
 * stream's lock: es_stream_head() takes the entry out (es_head_take), the events
 * are written, and only the commit, which comes before the lock is released,
 * puts an entry back.  What was taken out and is not put back (an error, a
 * rollback, the death of the backend, a row written by INSERT or COPY) costs
 * the next append a look into the index, and nothing else.
 *
 * Until then the entry waits in an array of the backend's own, where the
 * transaction's next append to the stream finds it.  The rollback of any
 * subtransaction empties that array: what it says may be undone.
 *
 * What changes a store from outside: an entry holds only for the very set of
 * partitions that it was made under (EsStore.shape), so that attaching,
 * detaching or dropping one ends it.  The table's and the database's OIDs are
 * part of the key; DROP DATABASE removes its entries, should an OID come again.
 * A crash empties the shared memory; a standby makes no entries, nor does a
 * prepared transaction, which cannot have appended.  Rows that a superuser puts
 * into a table past the trigger end in the unique index: the error takes the
 * entry along.  No closed stream has an entry.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "append/append.h"

/* longer keys are not remembered; makes an entry 160 bytes */
#define KEY_MAX		108

/* entries among which a stream's place is sought */
#define WAYS		4
#define LOCKS		64

/* entries that a transaction keeps until it commits; others are forgotten */
#define KEPT		1024

typedef struct Head
{
	uint64		hash;
	uint64		shape;
	Oid			database;
	Oid			events;
	int64		version;		/* 0: nothing here */
	TimestampTz recorded_at;
	TimestampTz partition;
	uint16		type_length;
	uint16		id_length;
	char		key[KEY_MAX];
} Head;

typedef struct HeadsShared
{
	LWLockPadded *locks;
	uint64		nsets;
	Head		heads[FLEXIBLE_ARRAY_MEMBER];
} HeadsShared;

static HeadsShared *shared = NULL;

/* of the transaction, by hash, and which places are in use */
static Head kept[KEPT];
static uint16 used[KEPT];
static int	nused = 0;

static void xact_callback(XactEvent event, void *arg);
static void subxact_callback(SubXactEvent event, SubTransactionId mine,
							 SubTransactionId parent, void *arg);

/*
 * count_sets computes how many sets of entries the setting allows.
 */
static Size
count_sets(void)
{
	return (Size) es_setting_stream_cache * 1024 / (WAYS * sizeof(Head));
}

/*
 * shmem_size computes what the entries take.
 */
static Size
shmem_size(void)
{
	return add_size(offsetof(HeadsShared, heads), mul_size(count_sets(), WAYS * sizeof(Head)));
}

/*
 * es_heads_request_shmem asks for the shared memory of this file.
 */
void
es_heads_request_shmem(void)
{
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche("eventsrc_streams", LOCKS);
}

/*
 * es_heads_init_shmem finds or makes the shared memory of this file.
 */
void
es_heads_init_shmem(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("eventsrc streams", shmem_size(), &found);
	if (!found)
	{
		memset(shared, 0, shmem_size());
		shared->locks = GetNamedLWLockTranche("eventsrc_streams");
		shared->nsets = count_sets();
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * es_heads_init_backend registers what happens at the end of transactions.
 * Called in the postmaster; its children inherit it.
 */
void
es_heads_init_backend(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

/*
 * is_same tells whether two entries are of the same stream.
 */
static bool
is_same(const Head *one, const Head *other)
{
	return one->version > 0 && one->hash == other->hash && one->events == other->events &&
		one->database == other->database && one->type_length == other->type_length &&
		one->id_length == other->id_length &&
		memcmp(one->key, other->key, one->type_length + one->id_length) == 0;
}

/*
 * make_key fills in the key of a stream's entry; false if it is too long.
 */
static bool
make_key(Head *head, EsStore *store, text *aggregate_type, text *aggregate_id, uint64 hash)
{
	Size		type_length = VARSIZE_ANY_EXHDR(aggregate_type);
	Size		id_length = VARSIZE_ANY_EXHDR(aggregate_id);

	if (shared->nsets == 0 || type_length + id_length > KEY_MAX)
		return false;
	head->hash = hash;
	head->database = MyDatabaseId;
	head->events = store->events;
	head->type_length = type_length;
	head->id_length = id_length;
	memcpy(head->key, VARDATA_ANY(aggregate_type), type_length);
	memcpy(head->key + type_length, VARDATA_ANY(aggregate_id), id_length);
	return true;
}

/*
 * lock_set locks the set of entries that a hash belongs to and returns it.
 */
static Head *
lock_set(uint64 hash, LWLock **lock)
{
	uint64		set = hash % shared->nsets;

	*lock = &shared->locks[set % LOCKS].lock;
	LWLockAcquire(*lock, LW_EXCLUSIVE);
	return &shared->heads[set * WAYS];
}

/*
 * es_head_take takes out what is known of where a stream stands, its own
 * transaction's entry first; false if nothing is.  The caller holds the
 * stream's lock, and must call it before the stream grows.
 */
bool
es_head_take(EsStore *store, text *aggregate_type, text *aggregate_id, uint64 hash,
			 EsStreamHead *head)
{
	Head		entry;
	Head	   *mine = &kept[hash % KEPT];

	if (!make_key(&entry, store, aggregate_type, aggregate_id, hash))
		return false;
	entry.version = 0;
	if (is_same(mine, &entry))
	{
		entry = *mine;
		mine->version = 0;
	}
	else
	{
		LWLock	   *lock;
		Head	   *set = lock_set(hash, &lock);

		for (int i = 0; i < WAYS; i++)
		{
			if (is_same(&set[i], &entry))
			{
				entry = set[i];
				set[i].version = 0;
				break;
			}
		}
		LWLockRelease(lock);
	}
	if (entry.version == 0 || entry.shape != store->shape)
		return false;
	head->version = entry.version;
	head->recorded_at = entry.recorded_at;
	head->partition = entry.partition;
	return true;
}

/*
 * es_head_keep notes where a stream stands now that the transaction has
 * written to it, for its next append and, once it commits, everybody's.
 */
void
es_head_keep(EsStore *store, text *aggregate_type, text *aggregate_id, const EsStreamHead *head)
{
	Head	   *entry = &kept[head->hash % KEPT];
	bool		unused = entry->key[0] == '\0';

	if (!make_key(entry, store, aggregate_type, aggregate_id, head->hash))
		return;
	entry->shape = store->shape;
	entry->version = head->version;
	entry->recorded_at = head->recorded_at;
	entry->partition = head->partition;
	/* a key begins with a name, so a place without one is not in the list */
	if (unused)
		used[nused++] = head->hash % KEPT;
}

/*
 * put_back makes an entry of the transaction everybody's.
 */
static void
put_back(const Head *entry)
{
	LWLock	   *lock;
	Head	   *set = lock_set(entry->hash, &lock);
	Head	   *place = &set[(entry->hash >> 32 ^ entry->version) % WAYS];

	for (int i = 0; i < WAYS; i++)
	{
		if (is_same(&set[i], entry))
		{
			place = &set[i];
			break;
		}
		if (set[i].version == 0)
			place = &set[i];
	}
	*place = *entry;
	LWLockRelease(lock);
}

/*
 * forget_kept empties the transaction's own array.
 */
static void
forget_kept(void)
{
	for (int i = 0; i < nused; i++)
	{
		kept[used[i]].version = 0;
		kept[used[i]].key[0] = '\0';
	}
	nused = 0;
}

/*
 * xact_callback puts the entries back at commit: other backends see what was
 * committed, and the streams' locks are still held.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (nused == 0 || event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	for (int i = 0; event == XACT_EVENT_COMMIT && i < nused; i++)
	{
		if (kept[used[i]].version > 0)
			put_back(&kept[used[i]]);
	}
	forget_kept();
}

/*
 * subxact_callback forgets what the rollback of a subtransaction may undo.
 */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_kept();
}

/*
 * es_heads_forget_database removes the entries of a dropped database.
 */
void
es_heads_forget_database(Oid database)
{
	for (uint64 set = 0; set < shared->nsets; set++)
	{
		LWLock	   *lock;
		Head	   *heads = lock_set(set, &lock);

		for (int i = 0; i < WAYS; i++)
		{
			if (heads[i].database == database)
				heads[i].version = 0;
		}
		LWLockRelease(lock);
	}
}
