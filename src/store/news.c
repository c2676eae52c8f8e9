/*
 * news.c
 *		Who waits for the safe position to move, and who wakes them.
 *
 * However many wait, a commit wakes one, and each that wakes wakes two more,
 * so the committer's cost does not grow with their number.  A commit that is
 * no news to anybody (nobody waits, or the safe position has not passed what
 * the least demanding waits for, or all are being woken already) reads a
 * counter and goes on.
 *
 * A waiter joins the condition variable's list, then lowers "wanted" to the
 * position that it wants exceeded, and only then looks at the safe position
 * and sleeps.  Who moved the safe position looks at "wanted" afterwards.  So
 * one of the two sees the other.  Who finds the safe position beyond "wanted"
 * takes it away, which makes it the one who starts the waking: it sets the
 * number of wakes to be passed on to at least that of the waiters, and
 * signals the first.  The list is a queue; so all who were in it are woken
 * as long as everyone who leaves the list's front passes on, errors included.
 */
#include "eventsrc.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#include "store/news.h"

/* "wanted" when nobody waits, or all who do are being woken */
#define NOTHING_WANTED		PG_UINT64_MAX

/* whom a woken one wakes */
#define WAKES_PASSED_ON		2

/* ms between looks at what the primary has published */
#define STANDBY_INTERVAL	100.0

static void wait_for_signal(EsDatabase *db, int64 after, instr_time start,
							double timeout_ms, uint32 wait_event);
static void nap(double ms, uint32 wait_event);

/*
 * es_news_init prepares an entry of the shared array, before anybody uses it.
 */
void
es_news_init(EsDatabase *db)
{
	ConditionVariableInit(&db->news);
	pg_atomic_init_u64(&db->wanted, NOTHING_WANTED);
	pg_atomic_init_u32(&db->waiters, 0);
	pg_atomic_init_u32(&db->wakes, 0);
}

/*
 * es_news_announce wakes those whom the safe position, which may just have
 * moved, interests.
 */
void
es_news_announce(EsDatabase *db)
{
	uint64		wanted;
	uint32		waiters;
	uint32		wakes;

	/* what moved the position is done before we look who waits */
	pg_memory_barrier();
	wanted = pg_atomic_read_u64(&db->wanted);
	do
	{
		if (wanted == NOTHING_WANTED ||
			(uint64) es_position_safe_of(db) <= wanted)
			return;
	} while (!pg_atomic_compare_exchange_u64(&db->wanted, &wanted, NOTHING_WANTED));

	waiters = pg_atomic_read_u32(&db->waiters);
	wakes = pg_atomic_read_u32(&db->wakes);
	while (wakes < waiters &&
		   !pg_atomic_compare_exchange_u32(&db->wakes, &wakes, waiters))
		;
	ConditionVariableSignal(&db->news);
}

/*
 * ms_left computes how much of a timeout is left.
 */
static double
ms_left(instr_time start, double timeout_ms)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return timeout_ms - INSTR_TIME_GET_MILLISEC(now);
}

/*
 * es_news_wait sleeps until the safe position exceeds the given one or the
 * timeout is over, and returns the safe position.  On a standby nobody
 * announces anything: there it looks from time to time.
 */
int64
es_news_wait(int64 after, double timeout_ms, uint32 wait_event)
{
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		int64		safe = es_position_safe();
		double		left = ms_left(start, timeout_ms);

		if (safe > after || left <= 0)
			return safe;
		if (RecoveryInProgress())
			nap(Min(left, STANDBY_INTERVAL), wait_event);
		else
			wait_for_signal(es_database(), after, start, timeout_ms, wait_event);
	}
}

/*
 * nap sleeps for some ms, or until an interrupt.
 */
static void
nap(double ms, uint32 wait_event)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 (long) ms + 1, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * pass_on wakes the next waiters, if wakes are left.  With none in the list
 * the wakes are lost, and nobody needs them.
 */
static void
pass_on(EsDatabase *db)
{
	for (int i = 0; i < WAKES_PASSED_ON; i++)
	{
		uint32		wakes = pg_atomic_read_u32(&db->wakes);

		do
		{
			if (wakes == 0)
				return;
		} while (!pg_atomic_compare_exchange_u32(&db->wakes, &wakes, wakes - 1));
		ConditionVariableSignal(&db->news);
	}
}

/*
 * leave ends waiting, also after an error.  We may have been taken off the
 * list by somebody whose wake nobody else will pass on.
 */
static void
leave(int code, Datum arg)
{
	EsDatabase *db = (EsDatabase *) DatumGetPointer(arg);

	(void) ConditionVariableCancelSleep();
	pg_atomic_fetch_sub_u32(&db->waiters, 1);
	pass_on(db);
}

/*
 * is_news tells whether the safe position exceeds the one given; if not, it is
 * announced when it does.
 */
static bool
is_news(EsDatabase *db, int64 after)
{
	uint64		wanted;

	if (es_position_safe_of(db) > after)
		return true;
	wanted = pg_atomic_read_u64(&db->wanted);
	while (wanted > (uint64) after &&
		   !pg_atomic_compare_exchange_u64(&db->wanted, &wanted, (uint64) after))
		;
	/* we are in the list and our wish is known before we look */
	pg_memory_barrier();
	return es_position_safe_of(db) > after;
}

/*
 * wait_for_signal sleeps until the safe position exceeds the given one or the
 * timeout is over.
 */
static void
wait_for_signal(EsDatabase *db, int64 after, instr_time start,
				double timeout_ms, uint32 wait_event)
{
	pg_atomic_fetch_add_u32(&db->waiters, 1);
	PG_ENSURE_ERROR_CLEANUP(leave, PointerGetDatum(db));
	{
		double		left;

		ConditionVariablePrepareToSleep(&db->news);
		while (!is_news(db, after) && (left = ms_left(start, timeout_ms)) > 0)
		{
			(void) ConditionVariableTimedSleep(&db->news,
											   (long) Min(left + 1, INT_MAX), wait_event);
			/* whoever stays passes on here, whoever goes does so by leaving */
			if (!is_news(db, after))
				pass_on(db);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave, PointerGetDatum(db));
	leave(0, PointerGetDatum(db));
}
