/*
 * relay_wait.c
 *		What the worker of a relay waits for: work, people, its next attempt.
 *
 * New events, the broker and whoever calls a function for the relay all wake
 * it.  Nothing is open meanwhile, and it finds out when it is to leave.
 */
#include "relay/run.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define PAUSE_LAST_MS	30000
#define IDLE_MS			5000	/* how often an idle relay looks around */
#define BUSY_MS			1000	/* the same while confirmations are awaited */
#define FULL_MS			20		/* the same while the broker takes nothing */
#define PROBE_MS		3000	/* how often a broker in trouble is asked */

/* what the worker waits for, as pg_stat_activity shows it */
static uint32 wait_idle;
static uint32 wait_broker;
static uint32 wait_retry;
static uint32 wait_standby;

static bool wait_on_latch(EsRun *run, pgsocket wake, long timeout_ms, uint32 wait_event);

/*
 * es_run_name_waits makes the names of what the worker waits for.
 */
void
es_run_name_waits(void)
{
	wait_idle = es_wait_event_new("EventsrcRelayIdle");
	wait_broker = es_wait_event_new("EventsrcRelayBroker");
	wait_retry = es_wait_event_new("EventsrcRelayRetry");
	wait_standby = es_wait_event_new("EventsrcRelayStandby");
}

/*
 * es_run_wait_for_work sleeps until new events appear, the broker has something
 * to say, or it is time to look around.
 */
void
es_run_wait_for_work(EsRun *run)
{
	bool		idle = es_window_pending(run->window) == 0;

	/*
	 * New events are of no interest now.  A broker that takes none, though it
	 * has none of ours, is about to (it gives up a transaction, for example),
	 * but perhaps not soon.
	 */
	if (!run->positioned || run->full || !es_run_has_room(run))
	{
		(void) wait_on_latch(run, run->broker->wake, run->full && idle ? FULL_MS : BUSY_MS, wait_broker);

		/* what is wrong may be put right in the catalogs */
		if (run->broker->troubled || !run->positioned)
		{
			StartTransactionCommand();
			CommitTransactionCommand();
			if (es_relay_status_nudged())
				run->catalog_changed = true;
		}
		return;
	}
	if (!run->complete)
		return;
	if (idle)
		es_run_save(run, true);

	/*
	 * who moves the safe position sets our latch, as the broker's pipe wakes
	 * us
	 */
	if (!run->awaits_standby)
		ConditionVariablePrepareToSleep(&run->database->moved);
	if (run->awaits_standby)
		(void) wait_on_latch(run, run->broker->wake, run->standby_ms, wait_standby);
	else if (pg_atomic_read_u64(&run->database->moves) == run->moves)
	{
		if (!wait_on_latch(run, run->broker->wake, idle ? IDLE_MS : BUSY_MS,
						   idle ? wait_idle : wait_broker) && idle)
			es_memory_end_burst(run);
	}
	es_worker_end_sleep(run->database, run->moves, wait_idle);

	if (es_relay_status_nudged())
		run->catalog_changed = true;
	if (idle && run->broker->troubled &&
		TimestampDifferenceExceeds(run->probed_at, GetCurrentTimestamp(), PROBE_MS))
	{
		run->broker->type->probe(run->broker, 500);
		run->probed_at = GetCurrentTimestamp();
	}
}

/*
 * es_run_wait_for_people reports why the relay cannot go on, and waits until
 * somebody asks for a new attempt or changes what the relay is told to do.
 */
void
es_run_wait_for_people(EsRun *run)
{
	es_relay_status_error(ES_RELAY_STOPPED, run->stop);
	ereport(LOG,
			(errmsg("relay %s stops at position " INT64_FORMAT ": %s",
					run->relay->label, run->window->confirmed, run->stop),
			 run->stop_hint ? errhint("%s", run->stop_hint) : 0));
	while (!es_run_is_leaving(run) && !es_relay_status_nudged())
	{
		(void) wait_on_latch(run, PGINVALID_SOCKET, IDLE_MS, wait_retry);
		if (!es_run_load(run) || run->relay->epoch != run->epoch)
			break;
	}
	run->stop[0] = '\0';
	run->stop_hint = NULL;
	run->retrying = true;
	run->pause_ms = ES_RUN_PAUSE_MS;
}

/*
 * es_run_pause waits before the next attempt, each time longer, unless the
 * configuration is reloaded.
 */
void
es_run_pause(EsRun *run)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), run->pause_ms);

	run->pause_ms = Min(run->pause_ms * 2, PAUSE_LAST_MS);
	run->reloaded = false;
	while (!es_run_is_leaving(run) && !es_relay_status_nudged() && !run->reloaded)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		(void) wait_on_latch(run, PGINVALID_SOCKET, left, wait_retry);
	}
}

/*
 * wait_on_latch sleeps until the latch is set, the broker has something to say
 * or the time is over; then it returns false.
 */
static bool
wait_on_latch(EsRun *run, pgsocket wake, long timeout_ms, uint32 wait_event)
{
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	bool		woken;

	if (wake != PGINVALID_SOCKET)
	{
		events |= WL_SOCKET_READABLE;
		if (run->broker->wake_on_write)
			events |= WL_SOCKET_WRITEABLE;
		if (run->broker->wake_ms > 0)
			timeout_ms = Min(timeout_ms, run->broker->wake_ms);
	}
	woken = (WaitLatchOrSocket(MyLatch, events, wake, timeout_ms, wait_event) & WL_TIMEOUT) == 0;
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return woken;
}

/*
 * es_run_is_leaving tells whether the worker is to end.
 */
bool
es_run_is_leaving(EsRun *run)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		run->reloaded = true;
	}
	return run->leave || es_worker_should_leave();
}
