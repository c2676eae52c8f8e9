/*
 * launcher.c
 *		The launcher: keeps one worker running in every database that has the
 *		extension.
 *
 * It cannot see the extensions of other databases, so it starts a worker in
 * each, one after the other; a worker that finds no extension says so and
 * leaves.  Such a database is left alone until CREATE EXTENSION wakes us for
 * it.  New databases are found by looking at the list now and then.
 */
#include "eventsrc.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "worker/slots.h"
#include "worker/worker.h"

/* the postmaster restarts a launcher that was terminated after so many s */
#define RESTART_TIME		5
/* how long the next database waits for one that is being probed, in ms */
#define PROBE_PATIENCE		5000L

int			es_setting_launcher_naptime = 60;

/* databases found without the extension */
static List *absent = NIL;

static long look_after_databases(void);
static List *list_databases(MemoryContext context);
static void learn_what_changed(List *databases);
static long probing_since(void);

/*
 * es_worker_register_launcher has the postmaster run the launcher.  On a
 * standby it starts at promotion.
 */
void
es_worker_register_launcher(void)
{
	BackgroundWorker worker;

	/* nothing may be written while pg_upgrade runs the server */
	if (IsBinaryUpgrade)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_TIME;
	strlcpy(worker.bgw_library_name, "eventsrc", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "es_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "eventsrc launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "eventsrc launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/*
 * es_launcher_main is the launcher.  It leaves only by a signal or an error,
 * with code 1, so that the postmaster starts it again.
 */
void
es_launcher_main(Datum main_arg)
{
	MemoryContext context;
	uint32		wait_event = es_wait_event_new("EventsrcLauncherMain");

	es_worker_set_signals();
	es_slot_attach_launcher();
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(MyBgworkerEntry->bgw_name);

	context = AllocSetContextCreate(TopMemoryContext, "eventsrc launcher",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		long		nap;

		/* the postmaster starts us again, unless it is shutting down */
		if (es_worker_was_terminated())
			proc_exit(1);

		(void) es_slot_take_woken();
		MemoryContextSwitchTo(context);
		nap = look_after_databases();
		MemoryContextReset(context);

		pgstat_report_activity(STATE_IDLE, NULL);
		(void) es_worker_wait(NULL, 0, nap, wait_event);
	}
}

/*
 * look_after_databases starts the workers that are missing, and returns after
 * how many ms it wants to look again unless it is woken.
 */
static long
look_after_databases(void)
{
	long		nap = es_setting_launcher_naptime * 1000L;
	List	   *databases = list_databases(CurrentMemoryContext);
	ListCell   *cell;

	learn_what_changed(databases);

	foreach(cell, databases)
	{
		Oid			dboid = lfirst_oid(cell);
		long		patience;
		long		again;

		if (list_member_oid(absent, dboid))
			continue;

		/* one at a time: there may be many more databases than processes */
		patience = PROBE_PATIENCE - probing_since();
		if (patience > 0)
			return Min(nap, patience);

		again = es_slot_start(ES_KIND_DATABASE, dboid, 0, "es_database_worker_main", NULL);
		if (again > 0)
			nap = Min(nap, again);
	}
	return nap;
}

/*
 * list_databases returns the OIDs of the databases that may be connected to
 * and are no templates.
 */
static List *
list_databases(MemoryContext context)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, "looking at the databases");
	StartTransactionCommand();
	(void) GetTransactionSnapshot();

	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!form->datallowconn || form->datistemplate || database_is_invalid_form(form))
			continue;
		old = MemoryContextSwitchTo(context);
		result = lappend_oid(result, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return result;
}

/*
 * learn_what_changed brings the list of databases without the extension up to
 * date, and gives up the slots of databases that are gone or not to be served
 * any more.
 */
static void
learn_what_changed(List *databases)
{
	Oid		   *found_absent = palloc(es_workers->nslots * sizeof(Oid));
	Oid		   *leaving = palloc(es_workers->nslots * sizeof(Oid));
	Oid			awakened[ES_MAX_AWAKENED];
	int			nfound_absent = 0;
	int			nleaving = 0;
	int			nawakened;
	bool		awaken_all;
	MemoryContext old;
	ListCell   *cell;

	LWLockAcquire(es_workers->lock, LW_EXCLUSIVE);
	for (int i = 1; i < es_workers->nslots; i++)
	{
		EsWorkerSlot *slot = &es_workers->slots[i];

		if (slot->state == ES_WORKER_FREE)
			continue;
		if (slot->state == ES_WORKER_ABSENT)
		{
			found_absent[nfound_absent++] = slot->dboid;
			es_slot_release(slot);
		}
		else if (!list_member_oid(databases, slot->dboid))
		{
			if (ES_WORKER_LIVES(slot->state))
				leaving[nleaving++] = slot->dboid;
			else
				es_slot_release(slot);
		}
	}
	nawakened = es_workers->nawakened;
	memcpy(awakened, es_workers->awakened, sizeof(awakened));
	awaken_all = es_workers->awaken_all;
	es_workers->nawakened = 0;
	es_workers->awaken_all = false;
	LWLockRelease(es_workers->lock);

	for (int i = 0; i < nleaving; i++)
		es_workers_tell_to_leave(leaving[i], true);

	old = MemoryContextSwitchTo(TopMemoryContext);
	foreach(cell, absent)
	{
		if (!list_member_oid(databases, lfirst_oid(cell)))
			absent = foreach_delete_current(absent, cell);
	}
	for (int i = 0; i < nfound_absent; i++)
		absent = list_append_unique_oid(absent, found_absent[i]);
	/* last: who was woken was so after what its worker found */
	for (int i = 0; i < nawakened; i++)
		absent = list_delete_oid(absent, awakened[i]);
	if (awaken_all)
	{
		list_free(absent);
		absent = NIL;
	}
	MemoryContextSwitchTo(old);
}

/*
 * probing_since returns for how many ms the youngest of the workers that have
 * not found the extension yet has been looking; a long time if there is none.
 */
static long
probing_since(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		since = PROBE_PATIENCE;

	LWLockAcquire(es_workers->lock, LW_SHARED);
	for (int i = 1; i <= es_setting_max_databases; i++)
	{
		EsWorkerSlot *slot = &es_workers->slots[i];

		if (slot->state == ES_WORKER_STARTING || slot->state == ES_WORKER_PROBING)
			since = Min(since, TimestampDifferenceMilliseconds(slot->started_at, now));
	}
	LWLockRelease(es_workers->lock);
	return since;
}
