/*
 * standby.c
 *		How far a relay may read: all that is safe, or less.
 *
 * A relay with the option send_after "replicated" sends only what a failover
 * cannot undo: events whose commits the synchronous standbys have on disk, as
 * synchronous_standby_names asks, even if their sessions did not wait for that
 * (synchronous_commit local).  Nobody knows which record belongs to which
 * position, so the relay flushes the WAL behind a safe position and waits until
 * the standbys have it up to there.  Walsenders keep account of that for those
 * who wait for their commits; the relay looks at it, as nothing wakes it.
 */
#include "relay/run.h"

#include "access/xlog.h"
#include "replication/syncrep.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

/* how soon, and then how seldom, the standbys are looked at */
#define FIRST_LOOK_MS	1
#define LAST_LOOK_MS	200

/* when standbys that do not answer are reported */
#define MISSED_MS		10000

static bool are_named(void);
static int64 replicated_position(EsRun *run, int64 safe);
static XLogRecPtr replicated_lsn(void);

/*
 * es_standby_problem says what keeps a relay from sending only what synchronous
 * standbys have, or returns NULL.
 */
char *
es_standby_problem(const EsContent *content)
{
	if (!content->replicated || are_named())
		return NULL;
	return pstrdup("synchronous_standby_names is empty, but the relay is to send only what a synchronous standby has: "
				   "set it, or take the relay's option \"send_after\" away with es_alter_relay()");
}

/*
 * es_run_limit returns up to where the relay may read: the safe position, or
 * where it ends, where its lanes turn, or what is replicated.  Needs a
 * transaction.
 */
int64
es_run_limit(EsRun *run, int64 safe)
{
	const EsRelay *relay = run->relay;

	run->awaits_standby = false;
	if (relay->to_position > 0)
		safe = Min(safe, relay->to_position);
	if (es_lanes_change(relay))
		safe = Min(safe, relay->turn_position >= 0 ? relay->turn_position : run->scanned);
	if (relay->content->replicated)
		safe = replicated_position(run, safe);
	return safe;
}

/*
 * are_named tells whether any standby is to be synchronous.
 */
static bool
are_named(void)
{
	return SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
}

/*
 * replicated_position returns the position up to which everything is on the
 * synchronous standbys, at most the safe one.
 */
static int64
replicated_position(EsRun *run, int64 safe)
{
	/* the worker says so when it has looked at the relay again */
	if (!are_named())
	{
		run->catalog_changed = true;
		return run->scanned;
	}
	if (safe <= run->scanned)
		return safe;

	if (run->replicating > run->replicated && replicated_lsn() >= run->replicating_lsn)
		run->replicated = run->replicating;
	if (run->replicating <= run->replicated && safe > run->replicated)
	{
		es_position_make_durable(safe);
		run->replicating = safe;
		run->replicating_lsn = GetFlushRecPtr(NULL);
		run->replicating_since = GetCurrentTimestamp();
		run->standby_ms = FIRST_LOOK_MS;
		run->standby_missed = false;
		if (replicated_lsn() >= run->replicating_lsn)
			run->replicated = safe;
	}

	run->awaits_standby = run->replicated <= run->scanned;
	if (!run->awaits_standby)
		return Min(safe, run->replicated);
	run->standby_ms = Min(run->standby_ms * 2, LAST_LOOK_MS);
	if (!run->standby_missed &&
		TimestampDifferenceExceeds(run->replicating_since, GetCurrentTimestamp(), MISSED_MS))
	{
		run->standby_missed = true;
		es_broker_error(run->broker, "no synchronous standby has confirmed for %d s what is to be sent",
						MISSED_MS / 1000);
	}
	return run->scanned;
}

/*
 * replicated_lsn returns the end of the WAL that the synchronous standbys have
 * on disk.
 */
static XLogRecPtr
replicated_lsn(void)
{
	XLogRecPtr	lsn;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	lsn = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return lsn;
}
