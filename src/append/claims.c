/*
 * claims.c
 *		Streams that transactions over very many streams are appending to, in
 *		shared memory, so that they do not fill the lock table.
 *
 * Such a transaction locks a stream as everybody does, claims it here under the
 * lock, and lets go of the lock.  Whoever gets the lock of a stream looks here
 * for another's claim, and if there is one lets go of the lock, waits for the
 * claimer to end, and tries again.  So at most one transaction at a time holds
 * a stream, by its lock or by a claim: a lock's holder keeps the claimer
 * waiting, and a claim is seen by the lock's next holder.  Claims end when their
 * transaction has left the set of running ones, before it lets go of the lock on
 * its transaction ID, on which the others wait: in pg_locks, seen by the
 * deadlock detector.
 *
 * A claim is a word: 57 bits of a hash and the claimer's number.  It lies in one
 * of two sets of words, which the hash chooses, where there was more room.  If
 * both are full, which takes hundreds of thousands of claims, the claimer claims
 * every stream of the database: others then wait for it more often than they
 * need to.
 */
#include "eventsrc.h"

#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "append/append.h"

#define CLAIMS			262144
#define SET_CLAIMS		16
#define PLACES			(2 * SET_CLAIMS)

/* transactions that can have claims at a time; a bit each */
#define CLAIMERS		64

typedef struct Claimer
{
	pg_atomic_uint32 xid;		/* 0: nobody */
	Oid			database;
} Claimer;

typedef struct ClaimsShared
{
	pg_atomic_uint64 active;	/* bits of the claimers in use */
	pg_atomic_uint64 everything;	/* and of those that claim every stream */
	Claimer		claimers[CLAIMERS];
	pg_atomic_uint64 claims[CLAIMS];	/* 0: none */
} ClaimsShared;

static ClaimsShared *shared = NULL;

/* my place among the claimers; -1: I have no claims */
static int	me = -1;

/*
 * es_claims_request_shmem asks for the shared memory of this file.
 */
void
es_claims_request_shmem(void)
{
	RequestAddinShmemSpace(sizeof(ClaimsShared));
}

/*
 * es_claims_init_shmem finds or makes the shared memory of this file.
 */
void
es_claims_init_shmem(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("eventsrc claims", sizeof(ClaimsShared), &found);
	if (!found)
	{
		pg_atomic_init_u64(&shared->active, 0);
		pg_atomic_init_u64(&shared->everything, 0);
		for (int i = 0; i < CLAIMERS; i++)
		{
			pg_atomic_init_u32(&shared->claimers[i].xid, InvalidTransactionId);
			shared->claimers[i].database = InvalidOid;
		}
		for (int i = 0; i < CLAIMS; i++)
			pg_atomic_init_u64(&shared->claims[i], 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * make_tag makes the part of a claim that stands for the stream: never 0.
 */
static uint64
make_tag(uint64 hash)
{
	hash = hash_combine64(hash, MyDatabaseId);
	return (hash | CLAIMERS) & ~(uint64) (CLAIMERS - 1);
}

/*
 * claim_at gives the n-th word in which a claim may lie.
 */
static pg_atomic_uint64 *
claim_at(uint64 tag, int n)
{
	uint64		set = n < SET_CLAIMS ? tag >> 40 : tag >> 16;

	return &shared->claims[(set * SET_CLAIMS + n % SET_CLAIMS) % CLAIMS];
}

/*
 * others returns the bits of a word that are not mine.
 */
static uint64
others(pg_atomic_uint64 *bits)
{
	uint64		mine = me >= 0 ? UINT64CONST(1) << me : 0;

	return pg_atomic_read_u64(bits) & ~mine;
}

/*
 * find_claimer finds another's claim of one stream.  The claim is looked at
 * again once the transaction is known: it goes before its claimer's place can
 * be another's.
 */
static TransactionId
find_claimer(uint64 tag)
{
	for (int n = 0; n < PLACES; n++)
	{
		pg_atomic_uint64 *claim = claim_at(tag, n);
		uint64		word = pg_atomic_read_u64(claim);
		TransactionId xid;

		if ((word & ~(uint64) (CLAIMERS - 1)) != tag || (int) (word & (CLAIMERS - 1)) == me)
			continue;
		pg_read_barrier();
		xid = pg_atomic_read_u32(&shared->claimers[word & (CLAIMERS - 1)].xid);
		pg_read_barrier();
		if (pg_atomic_read_u64(claim) == word)
			return xid;
	}
	return InvalidTransactionId;
}

/*
 * find_claimer_of_all finds another's claim of all streams of the database.
 */
static TransactionId
find_claimer_of_all(void)
{
	uint64		bits = others(&shared->everything);

	while (bits != 0)
	{
		int			i = pg_rightmost_one_pos64(bits);
		Claimer    *claimer = &shared->claimers[i];
		TransactionId xid = pg_atomic_read_u32(&claimer->xid);

		if (claimer->database == MyDatabaseId && TransactionIdIsValid(xid))
		{
			pg_read_barrier();
			if (others(&shared->everything) & UINT64CONST(1) << i)
				return xid;
		}
		bits &= bits - 1;
	}
	return InvalidTransactionId;
}

/*
 * es_claim_of_other finds the transaction that has claimed a stream, if that is
 * not the current one.  The caller holds the stream's lock.
 */
TransactionId
es_claim_of_other(uint64 hash)
{
	TransactionId xid = InvalidTransactionId;

	if (others(&shared->active) != 0)
	{
		xid = find_claimer(make_tag(hash));
		if (!TransactionIdIsValid(xid))
			xid = find_claimer_of_all();
	}
	/* whose claim is gone has committed before */
	pg_read_barrier();
	return xid;
}

/*
 * become_claimer finds a place among the claimers; waits for one if all are
 * taken.
 */
static void
become_claimer(void)
{
	TransactionId xid = GetTopTransactionId();

	for (;;)
	{
		TransactionId other = InvalidTransactionId;

		for (int i = 0; i < CLAIMERS; i++)
		{
			Claimer    *claimer = &shared->claimers[i];

			other = InvalidTransactionId;
			if (pg_atomic_compare_exchange_u32(&claimer->xid, &other, xid))
			{
				me = i;
				claimer->database = MyDatabaseId;
				(void) pg_atomic_fetch_or_u64(&shared->active, UINT64CONST(1) << i);
				return;
			}
		}
		XactLockTableWait(other, NULL, NULL, XLTW_None);
	}
}

/*
 * es_claims_begin prepares the transaction for claims; it may have to wait.
 */
void
es_claims_begin(void)
{
	if (me < 0)
		become_claimer();
}

/*
 * es_claim claims a stream to the end of the transaction.  The caller holds the
 * stream's lock, and has found no claim of another.
 */
void
es_claim(uint64 hash)
{
	uint64		tag = make_tag(hash);
	int			free[2] = {0, 0};
	int			first;

	Assert(me >= 0);
	for (int n = 0; n < PLACES; n++)
	{
		uint64		word = pg_atomic_read_u64(claim_at(tag, n));

		if (word == (tag | me))
			return;
		if (word == 0)
			free[n / SET_CLAIMS]++;
	}
	first = free[0] >= free[1] ? 0 : SET_CLAIMS;
	for (int n = first; n < first + PLACES; n++)
	{
		uint64		none = 0;

		if (pg_atomic_compare_exchange_u64(claim_at(tag, n % PLACES), &none, tag | me))
			return;
	}
	(void) pg_atomic_fetch_or_u64(&shared->everything, UINT64CONST(1) << me);
}

/*
 * es_claims_end ends the transaction's claims.  What it committed is visible,
 * and what it had to say of the streams is said.
 */
void
es_claims_end(void)
{
	uint64		mine;

	if (me < 0)
		return;
	mine = UINT64CONST(1) << me;
	pg_memory_barrier();
	for (int i = 0; i < CLAIMS; i++)
	{
		uint64		word = pg_atomic_read_u64(&shared->claims[i]);

		if (word != 0 && (int) (word & (CLAIMERS - 1)) == me)
			pg_atomic_write_u64(&shared->claims[i], 0);
	}
	(void) pg_atomic_fetch_and_u64(&shared->everything, ~mine);
	(void) pg_atomic_fetch_and_u64(&shared->active, ~mine);
	pg_memory_barrier();
	pg_atomic_write_u32(&shared->claimers[me].xid, InvalidTransactionId);
	me = -1;
}
