/*
 * supervise.c
 *		What every worker does first, and how tasks look after supervised workers.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "store/position.h"
#include "worker/slots.h"
#include "worker/worker.h"

/* a supervised worker that does not leave by itself is terminated, in ms */
#define LEAVE_TIMEOUT		5000L

static volatile sig_atomic_t terminated = false;
static Oid	served_extension = InvalidOid;

static void handle_sigterm(SIGNAL_ARGS);
static void override_settings(void);

/*
 * es_worker_ensure starts a supervised worker of this database unless it lives
 * or its pause lasts; see worker.h.
 */
long
es_worker_ensure(const char *kind, int64 id, const char *main_function,
				 const char **problem)
{
	return es_slot_start(kind, MyDatabaseId, id, main_function, problem);
}

/*
 * es_worker_stop tells a supervised worker to leave, and does not wait.  Called
 * again it terminates a worker that does not listen.  Its back-off is forgotten.
 */
void
es_worker_stop(const char *kind, int64 id)
{
	TimestampTz now = GetCurrentTimestamp();
	EsWorkerSlot *slot;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	slot = es_slot_find(kind, MyDatabaseId, id);
	if (slot && !ES_WORKER_LIVES(slot->state))
		es_slot_release(slot);
	else if (slot && !slot->leave)
	{
		slot->leave = true;
		slot->leave_at = now;
		if (slot->proc)
			SetLatch(&slot->proc->procLatch);
	}
	else if (slot && slot->pid != 0 &&
			 TimestampDifferenceExceeds(slot->leave_at, now, LEAVE_TIMEOUT))
		kill(slot->pid, SIGTERM);
	LWLockRelease(es_workers->lock);
}

/*
 * es_worker_begin sets a worker of a database up: signals, slot, connection,
 * settings.  It returns the id of a supervised worker, and does not return if
 * the worker is not wanted any more.
 */
int64
es_worker_begin(Datum main_arg, const char *kind)
{
	Oid			dboid;

	es_worker_set_signals();
	if (!es_slot_attach(kind))
		proc_exit(0);
	dboid = es_my_slot->dboid;
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	override_settings();
	pgstat_report_appname(MyBgworkerEntry->bgw_name);
	pgstat_report_activity(STATE_IDLE, NULL);
	return es_my_slot->id;
}

/*
 * es_worker_set_signals installs the signal handlers of all our workers; they
 * are in place before signals are unblocked.
 */
void
es_worker_set_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
}

/*
 * handle_sigterm ends the worker at the next CHECK_FOR_INTERRUPTS(), as in any
 * backend, and remembers that it was no failure of the worker's own.
 */
static void
handle_sigterm(SIGNAL_ARGS)
{
	terminated = true;
	die(postgres_signal_arg);
}

/*
 * es_worker_was_terminated tells whether SIGTERM has ended this worker.
 */
bool
es_worker_was_terminated(void)
{
	return terminated;
}

/*
 * override_settings protects the worker, a superuser's session, from what was
 * set for the database or the role.
 */
static void
override_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"zero_damaged_pages", "off"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	es_disable_transaction_timeout();
}

/*
 * es_worker_should_leave tells whether the worker is to exit(0), because it was
 * stopped or terminated, or its database or the extension is going away.
 */
bool
es_worker_should_leave(void)
{
	bool		leave;

	LWLockAcquire(es_workers->lock, LW_SHARED);
	leave = es_my_slot->leave;
	LWLockRelease(es_workers->lock);
	return leave || terminated;
}

/*
 * es_worker_wait sleeps until somebody wakes the worker, the timeout is over or
 * the safe position may have moved; see worker.h.
 */
bool
es_worker_wait(EsDatabase *db, uint64 seen_moves, long timeout_ms, uint32 wait_event)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;

	/*
	 * A broadcast sets our latch, but only while we are on the variable's
	 * list.  ConditionVariableTimedSleep() would go on sleeping when the
	 * latch is set by others.
	 */
	if (db)
		ConditionVariablePrepareToSleep(&db->moved);
	if (db == NULL || pg_atomic_read_u64(&db->moves) == seen_moves)
	{
		(void) WaitLatch(MyLatch, events, timeout_ms, wait_event);
		ResetLatch(MyLatch);
	}
	if (db)
		es_worker_end_sleep(db, seen_moves, wait_event);

	if (!terminated)
		CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		return true;
	}
	return false;
}

/*
 * es_worker_end_sleep takes the process off the list of those who wait; see
 * worker.h.  Who was woken is off it already: a sleep that ends at once puts it
 * there again.
 */
void
es_worker_end_sleep(EsDatabase *db, uint64 seen_moves, uint32 wait_event)
{
	if (!terminated && pg_atomic_read_u64(&db->moves) != seen_moves)
		(void) ConditionVariableTimedSleep(&db->moved, 0, wait_event);
	ConditionVariableCancelSleep();
}

/*
 * es_worker_enter starts a transaction with an active snapshot in which the
 * extension cannot be dropped; see worker.h.
 */
bool
es_worker_enter(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);
	StartTransactionCommand();

	if (!OidIsValid(served_extension))
		served_extension = get_extension_oid("eventsrc", true);
	if (OidIsValid(served_extension))
	{
		/* DROP EXTENSION locks the extension first, then all its objects */
		LockDatabaseObject(ExtensionRelationId, served_extension, 0, AccessShareLock);
		if (get_extension_oid("eventsrc", true) == served_extension)
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			return true;
		}
	}

	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
	return false;
}

/*
 * es_worker_finish commits what es_worker_enter began.
 */
void
es_worker_finish(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	(void) pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}
