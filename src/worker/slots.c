/*
 * slots.c
 *		The workers' table in shared memory: who runs, who failed, who is to leave.
 *
 * A worker attaches to the slot that was given out for it before it connects,
 * and detaches in an on_shmem_exit callback, which runs after the process has
 * left the process array: whoever sees the slot free finds no backend of it in
 * the database any more.
 */
#include "eventsrc.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "worker/slots.h"
#include "worker/worker.h"

/* back-off after a failure, in ms; failures count from 0 again after a good run */
#define FIRST_PAUSE			1000L
#define LONGEST_PAUSE		60000L
#define GOOD_RUN			60000L
/* a registered worker that has not attached by then is given up, in ms */
#define START_TIMEOUT		15000L
/* pause before the next attempt when there was no room for the worker, in ms */
#define NO_ROOM_PAUSE		5000L
/* one warning that there is no room in so many ms */
#define WARNING_INTERVAL	600000L

/* what a worker is told in bgw_extra */
typedef struct EsWorkerTicket
{
	int			slot;
	uint32		generation;
} EsWorkerTicket;

EsWorkers  *es_workers = NULL;
EsWorkerSlot *es_my_slot = NULL;

static bool found_no_extension = false;
static emit_log_hook_type previous_emit_log_hook = NULL;
static char pending_error[ES_LAST_ERROR_LEN];
static TimestampTz pending_error_at = 0;

static EsWorkerSlot *claim_slot(const char *kind, Oid dboid, int64 id);
static void fail_slot(EsWorkerSlot *slot, bool count);
static bool register_worker(EsWorkerSlot *slot, EsWorkerTicket ticket,
							const char *main_function);
static void warn_no_room(const char *message, const char *hint);
static void attach(EsWorkerSlot *slot, EsWorkerState state);
static void detach(int code, Datum arg);
static void move_pending_error(EsWorkerSlot *slot);
static void remember_error(ErrorData *edata);
static void wake_slot(EsWorkerSlot *slot);

/*
 * shmem_size computes what the table takes.
 */
static Size
shmem_size(void)
{
	int			nslots = 1 + es_setting_max_databases + es_setting_max_relays;

	return add_size(offsetof(EsWorkers, slots), mul_size(nslots, sizeof(EsWorkerSlot)));
}

/*
 * es_worker_request_shmem asks for the shared memory of the workers.
 */
void
es_worker_request_shmem(void)
{
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche("eventsrc_workers", 1);
}

/*
 * es_worker_init_shmem finds or makes the shared memory of the workers.
 */
void
es_worker_init_shmem(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	es_workers = ShmemInitStruct("eventsrc workers", shmem_size(), &found);
	if (!found)
	{
		memset(es_workers, 0, shmem_size());
		es_workers->lock = &GetNamedLWLockTranche("eventsrc_workers")->lock;
		es_workers->nslots = 1 + es_setting_max_databases + es_setting_max_relays;
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * es_slot_find finds the slot of a worker, or NULL.  The caller holds the lock.
 */
EsWorkerSlot *
es_slot_find(const char *kind, Oid dboid, int64 id)
{
	Assert(LWLockHeldByMe(es_workers->lock));

	for (int i = 0; i < es_workers->nslots; i++)
	{
		EsWorkerSlot *slot = &es_workers->slots[i];

		if (slot->state != ES_WORKER_FREE && slot->dboid == dboid &&
			slot->id == id && strcmp(slot->kind, kind) == 0)
			return slot;
	}
	return NULL;
}

/*
 * es_slot_release frees a slot.  The caller holds the lock exclusively.
 */
void
es_slot_release(EsWorkerSlot *slot)
{
	uint32		generation = slot->generation + 1;

	Assert(LWLockHeldByMeInMode(es_workers->lock, LW_EXCLUSIVE));

	memset(slot, 0, sizeof(EsWorkerSlot));
	slot->generation = generation;
	slot->state = ES_WORKER_FREE;
}

/*
 * es_slot_start starts a worker unless it lives, its pause after a failure
 * lasts, or its database is held.  Returns after how many ms the caller should
 * look again, -1 if the worker runs; *problem (if not NULL) says why it could
 * not be started.
 */
long
es_slot_start(const char *kind, Oid dboid, int64 id, const char *main_function,
			  const char **problem)
{
	TimestampTz now = GetCurrentTimestamp();
	static const char no_process[] = "no background worker process is free (max_worker_processes)";
	EsWorkerTicket ticket;
	EsWorkerSlot *slot;
	long		again = 0;

	if (problem)
		*problem = NULL;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	slot = es_slot_find(kind, dboid, id);

	/* registered, but nothing came of it */
	if (slot && slot->state == ES_WORKER_STARTING &&
		TimestampDifferenceExceeds(slot->started_at, now, START_TIMEOUT))
	{
		slot->generation++;
		fail_slot(slot, true);
	}

	if (slot && slot->state == ES_WORKER_STARTING)
		again = START_TIMEOUT;
	else if (slot && ES_WORKER_LIVES(slot->state))
		again = slot->leave ? FIRST_PAUSE : -1;
	else if (es_workers_held(dboid))
		again = FIRST_PAUSE;
	else if (slot && slot->state == ES_WORKER_FAILED && slot->retry_at > now)
		again = TimestampDifferenceMilliseconds(now, slot->retry_at) + 1;
	if (again != 0)
	{
		LWLockRelease(es_workers->lock);
		return again;
	}

	if (slot == NULL)
		slot = claim_slot(kind, dboid, id);
	if (slot == NULL)
	{
		bool		supervised = strcmp(kind, ES_KIND_DATABASE) != 0;

		LWLockRelease(es_workers->lock);
		if (problem)
			*problem = supervised ?
				"all slots of eventsrc.max_relays are in use" :
				"all slots of eventsrc.max_databases are in use";
		warn_no_room("out of worker slots of eventsrc",
					 supervised ?
					 "You might need to increase eventsrc.max_relays." :
					 "You might need to increase eventsrc.max_databases.");
		return NO_ROOM_PAUSE;
	}
	slot->generation++;
	slot->state = ES_WORKER_STARTING;
	slot->started_at = now;
	slot->leave = false;
	slot->woken = false;
	ticket.slot = (int) (slot - es_workers->slots);
	ticket.generation = slot->generation;
	LWLockRelease(es_workers->lock);

	if (register_worker(slot, ticket, main_function))
		return START_TIMEOUT;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	if (slot->generation == ticket.generation && slot->state == ES_WORKER_STARTING)
	{
		fail_slot(slot, false);
		slot->retry_at = TimestampTzPlusMilliseconds(now, NO_ROOM_PAUSE);
		strlcpy(slot->last_error, no_process, ES_LAST_ERROR_LEN);
		slot->last_error_at = now;
		slot->last_error_encoding = PG_SQL_ASCII;
	}
	LWLockRelease(es_workers->lock);
	if (problem)
		*problem = no_process;
	warn_no_room("out of background worker slots for eventsrc",
				 "You might need to increase max_worker_processes.");
	return NO_ROOM_PAUSE;
}

/*
 * claim_slot gives out a free slot, or that of a failed worker that nobody has
 * asked for since its pause ended; NULL if there is none.
 */
static EsWorkerSlot *
claim_slot(const char *kind, Oid dboid, int64 id)
{
	bool		of_database = strcmp(kind, ES_KIND_DATABASE) == 0;
	int			first = of_database ? 1 : 1 + es_setting_max_databases;
	int			end = of_database ? 1 + es_setting_max_databases : es_workers->nslots;
	EsWorkerSlot *found = NULL;

	for (int i = first; i < end; i++)
	{
		EsWorkerSlot *slot = &es_workers->slots[i];

		if (slot->state == ES_WORKER_FREE)
		{
			found = slot;
			break;
		}
		if (slot->state == ES_WORKER_FAILED &&
			TimestampDifferenceExceeds(slot->retry_at, GetCurrentTimestamp(), LONGEST_PAUSE) &&
			(found == NULL || slot->retry_at < found->retry_at))
			found = slot;
	}
	if (found)
	{
		es_slot_release(found);
		strlcpy(found->kind, kind, ES_KIND_LEN);
		found->dboid = dboid;
		found->id = id;
	}
	return found;
}

/*
 * fail_slot sets when a worker that is gone is to be started again; count
 * tells whether that was its fault.  The caller holds the lock.
 */
static void
fail_slot(EsWorkerSlot *slot, bool count)
{
	TimestampTz now = GetCurrentTimestamp();
	long		pause = FIRST_PAUSE;

	if (TimestampDifferenceExceeds(slot->started_at, now, GOOD_RUN))
		slot->failures = 0;
	if (count)
	{
		for (int i = 0; i < slot->failures && pause < LONGEST_PAUSE; i++)
			pause *= 2;
		slot->failures++;
	}
	slot->state = ES_WORKER_FAILED;
	slot->pid = 0;
	slot->proc = NULL;
	slot->retry_at = TimestampTzPlusMilliseconds(now, Min(pause, LONGEST_PAUSE));
}

/*
 * register_worker asks the postmaster for the process; false if it has none.
 */
static bool
register_worker(EsWorkerSlot *slot, EsWorkerTicket ticket, const char *main_function)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "eventsrc", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, main_function, sizeof(worker.bgw_function_name));
	if (strcmp(slot->kind, ES_KIND_DATABASE) == 0)
	{
		strlcpy(worker.bgw_type, "eventsrc worker", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "eventsrc worker for database %u", slot->dboid);
		worker.bgw_main_arg = ObjectIdGetDatum(slot->dboid);
	}
	else
	{
		snprintf(worker.bgw_type, BGW_MAXLEN, "eventsrc %s", slot->kind);
		snprintf(worker.bgw_name, BGW_MAXLEN, "eventsrc %s " INT64_FORMAT " in database %u",
				 slot->kind, slot->id, slot->dboid);
		worker.bgw_main_arg = Int64GetDatum(slot->id);
	}
	memcpy(worker.bgw_extra, &ticket, sizeof(ticket));
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/*
 * warn_no_room warns in the log that a worker cannot be started, now and then.
 */
static void
warn_no_room(const char *message, const char *hint)
{
	static TimestampTz warned_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (warned_at != 0 && !TimestampDifferenceExceeds(warned_at, now, WARNING_INTERVAL))
		return;
	warned_at = now;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("%s", message),
			 errdetail("The worker is started as soon as there is room."),
			 errhint("%s", hint)));
}

/*
 * es_slot_attach_launcher attaches the launcher to its slot.
 */
void
es_slot_attach_launcher(void)
{
	EsWorkerSlot *slot = &es_workers->slots[0];

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	strlcpy(slot->kind, ES_KIND_LAUNCHER, ES_KIND_LEN);
	slot->started_at = GetCurrentTimestamp();
	attach(slot, ES_WORKER_RUNNING);
	LWLockRelease(es_workers->lock);
}

/*
 * es_slot_attach attaches this worker to the slot that it was started for;
 * false if it is not wanted any more.
 */
bool
es_slot_attach(const char *kind)
{
	EsWorkerTicket ticket;
	EsWorkerSlot *slot;
	bool		wanted;

	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));
	slot = &es_workers->slots[ticket.slot];

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	wanted = slot->generation == ticket.generation &&
		slot->state == ES_WORKER_STARTING && strcmp(slot->kind, kind) == 0;
	if (wanted && (slot->leave || es_workers_held(slot->dboid)))
	{
		es_slot_release(slot);
		wanted = false;
	}
	if (wanted)
		attach(slot, strcmp(kind, ES_KIND_DATABASE) == 0 ?
			   ES_WORKER_PROBING : ES_WORKER_RUNNING);
	LWLockRelease(es_workers->lock);
	return wanted;
}

/*
 * attach makes the slot this process's own.  The caller holds the lock.
 */
static void
attach(EsWorkerSlot *slot, EsWorkerState state)
{
	slot->state = state;
	slot->pid = MyProcPid;
	slot->proc = MyProc;
	es_my_slot = slot;
	on_shmem_exit(detach, (Datum) 0);

	previous_emit_log_hook = emit_log_hook;
	emit_log_hook = remember_error;
}

/*
 * detach gives the slot up when the process exits, and tells whoever looks
 * after the worker.
 */
static void
detach(int code, Datum arg)
{
	EsWorkerSlot *slot = es_my_slot;
	EsWorkerSlot *supervisor;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	es_my_slot = NULL;
	move_pending_error(slot);

	if (slot == &es_workers->slots[0] || strcmp(slot->kind, ES_KIND_DATABASE) == 0)
		supervisor = &es_workers->slots[0];
	else
		supervisor = es_slot_find(ES_KIND_DATABASE, slot->dboid, 0);

	if (found_no_extension && !slot->woken)
	{
		slot->state = ES_WORKER_ABSENT;
		slot->pid = 0;
		slot->proc = NULL;
	}
	else if (slot != &es_workers->slots[0] &&
			 (code == 0 || slot->leave || found_no_extension))
		es_slot_release(slot);
	else
		fail_slot(slot, !es_worker_was_terminated());

	if (supervisor && supervisor != slot)
		wake_slot(supervisor);
	LWLockRelease(es_workers->lock);
}

/*
 * es_slot_found_extension reports what the database's worker found: that it
 * goes on, or that there is nothing to do in this database and it will leave.
 */
void
es_slot_found_extension(bool found)
{
	found_no_extension = !found;
	if (!found)
		return;
	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	es_my_slot->state = ES_WORKER_RUNNING;
	wake_slot(&es_workers->slots[0]);
	LWLockRelease(es_workers->lock);
}

/*
 * es_slot_take_woken tells whether somebody woke this worker since the last
 * call.
 */
bool
es_slot_take_woken(void)
{
	bool		woken;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	woken = es_my_slot->woken;
	es_my_slot->woken = false;
	LWLockRelease(es_workers->lock);
	return woken;
}

/*
 * es_slot_note_error shows the last error that this worker reported, for
 * workers that go on after it.
 */
void
es_slot_note_error(void)
{
	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	move_pending_error(es_my_slot);
	LWLockRelease(es_workers->lock);
}

/*
 * move_pending_error copies the last error into the slot.  The caller holds
 * the lock.
 */
static void
move_pending_error(EsWorkerSlot *slot)
{
	if (pending_error_at == 0)
		return;
	strlcpy(slot->last_error, pending_error, ES_LAST_ERROR_LEN);
	slot->last_error_at = pending_error_at;
	slot->last_error_encoding = GetDatabaseEncoding();
	pending_error_at = 0;
}

/*
 * remember_error keeps the message of an error that goes to the log, both of
 * those that end the worker and of those that it survives.  Only a copy is
 * taken here: an error may be raised in any state.
 */
static void
remember_error(ErrorData *edata)
{
	if (edata->elevel >= ERROR && edata->message && !es_worker_was_terminated())
	{
		int			len = pg_mbcliplen(edata->message, strlen(edata->message),
									   ES_LAST_ERROR_LEN - 1);

		memcpy(pending_error, edata->message, len);
		pending_error[len] = '\0';
		pending_error_at = GetCurrentTimestamp();
	}
	if (previous_emit_log_hook)
		previous_emit_log_hook(edata);
}

/*
 * wake_slot has the worker of a slot look again.  The caller holds the lock.
 */
static void
wake_slot(EsWorkerSlot *slot)
{
	slot->woken = true;
	if (slot->proc)
		SetLatch(&slot->proc->procLatch);
}

/*
 * es_worker_wake wakes the worker of a database, or has the launcher start
 * one.  A worker that is just leaving because it found no extension is started
 * again, because detach() looks at what is set here.
 */
void
es_worker_wake(Oid dboid)
{
	EsWorkerSlot *slot;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	slot = es_slot_find(ES_KIND_DATABASE, dboid, 0);
	if (slot && ES_WORKER_LIVES(slot->state))
		wake_slot(slot);
	else
	{
		if (es_workers->nawakened < ES_MAX_AWAKENED)
			es_workers->awakened[es_workers->nawakened++] = dboid;
		else
			es_workers->awaken_all = true;
		wake_slot(&es_workers->slots[0]);
	}
	LWLockRelease(es_workers->lock);
}

/*
 * es_workers_wake_launcher has the launcher look at everything again.
 */
void
es_workers_wake_launcher(void)
{
	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	wake_slot(&es_workers->slots[0]);
	LWLockRelease(es_workers->lock);
}

/*
 * es_workers_tell_to_leave tells the supervised workers of a database, or all
 * of its workers, to exit.
 */
void
es_workers_tell_to_leave(Oid dboid, bool all)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	for (int i = 1; i < es_workers->nslots; i++)
	{
		EsWorkerSlot *slot = &es_workers->slots[i];

		bool		supervised = strcmp(slot->kind, ES_KIND_DATABASE) != 0;

		if (slot->dboid != dboid || (!all && !supervised))
			continue;
		if (slot->state == ES_WORKER_FAILED && supervised)
			es_slot_release(slot);
		if (!ES_WORKER_LIVES(slot->state))
			continue;
		if (!slot->leave)
			slot->leave_at = now;
		slot->leave = true;
		wake_slot(slot);
	}
	LWLockRelease(es_workers->lock);
}

/*
 * es_workers_extension_changed is called when the creation or removal of the
 * extension was committed: supervised workers belong to the old one.
 */
void
es_workers_extension_changed(Oid dboid)
{
	es_workers_tell_to_leave(dboid, false);
	es_worker_wake(dboid);
}
