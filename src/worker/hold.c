/*
 * hold.c
 *		Keeps our workers out of a database while a command needs it alone.
 *
 * A hold lasts until the transaction of its command ends (hooks.c), which an
 * error, an interrupt and the exit of the backend all come to.
 */
#include "eventsrc.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "worker/slots.h"
#include "worker/worker.h"

/* a worker that does not leave by itself is terminated, in ms */
#define PATIENCE			1000L
/* and no longer waited for, in ms */
#define LEAVE_TIMEOUT		10000L

static bool workers_gone(Oid dboid, bool all, bool terminate);

/*
 * es_workers_held tells whether no worker may start in a database now.  The
 * caller holds the lock.
 */
bool
es_workers_held(Oid dboid)
{
	for (int i = 0; i < ES_MAX_HOLDS; i++)
	{
		if (OidIsValid(dboid) && es_workers->holds[i].dboid == dboid)
			return true;
	}
	return false;
}

/*
 * es_workers_hold makes all our workers leave a database, keeps new ones out,
 * and waits until they have left, for a while.
 */
void
es_workers_hold(Oid dboid)
{
	bool		held = false;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ES_MAX_HOLDS && !held; i++)
	{
		EsWorkerHold *hold = &es_workers->holds[i];

		if (!OidIsValid(hold->dboid))
		{
			hold->dboid = dboid;
			hold->pid = MyProcPid;
			held = true;
		}
	}
	LWLockRelease(es_workers->lock);
	if (!held)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many commands need a database without eventsrc workers at the same time"),
				 errhint("Try again.")));

	es_workers_make_leave(dboid, true);
}

/*
 * es_workers_make_leave tells the supervised workers of a database, or all of
 * its workers, to leave, and waits until they have, or for LEAVE_TIMEOUT.
 */
void
es_workers_make_leave(Oid dboid, bool all)
{
	TimestampTz start = GetCurrentTimestamp();

	es_workers_tell_to_leave(dboid, all);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (workers_gone(dboid, all, TimestampDifferenceExceeds(start, now, PATIENCE)) ||
			TimestampDifferenceExceeds(start, now, LEAVE_TIMEOUT))
			break;
		/* a worker that waits here is itself to leave at once */
		if (es_my_slot && es_worker_should_leave())
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10L, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * workers_gone tells whether no supervised worker, or no worker at all, is in a
 * database, and if wanted terminates those that are.
 */
static bool
workers_gone(Oid dboid, bool all, bool terminate)
{
	bool		gone = true;

	LWLockAcquire(es_workers->lock, LW_SHARED);
	for (int i = 1; i < es_workers->nslots; i++)
	{
		EsWorkerSlot *slot = &es_workers->slots[i];

		if (slot->dboid != dboid || !ES_WORKER_LIVES(slot->state) ||
			(!all && strcmp(slot->kind, ES_KIND_DATABASE) == 0))
			continue;
		gone = false;
		/* a slot is given up under the lock, so the process is still there */
		if (terminate && slot->pid != 0)
			kill(slot->pid, SIGTERM);
	}
	LWLockRelease(es_workers->lock);
	return gone;
}

/*
 * es_workers_unhold lets workers start again in a database that this backend
 * held, if there still is one.
 */
void
es_workers_unhold(Oid dboid)
{
	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ES_MAX_HOLDS; i++)
	{
		EsWorkerHold *hold = &es_workers->holds[i];

		if (hold->dboid == dboid && hold->pid == MyProcPid)
		{
			hold->dboid = InvalidOid;
			hold->pid = 0;
			break;
		}
	}
	LWLockRelease(es_workers->lock);
	es_workers_wake_launcher();
}
