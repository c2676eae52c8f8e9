/*
 * database.c
 *		The worker of a database: runs the tasks of the other parts.
 *
 * Besides the tasks, it publishes the safe position and makes partitions ahead.
 * It sleeps on its latch, and while what it published is the latest also on the
 * condition variable that appenders broadcast; in an idle database nothing
 * wakes it but the tasks' own times.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "store/position.h"
#include "worker/slots.h"
#include "worker/worker.h"

#define MAX_TASKS		8

typedef struct Task
{
	EsWorkerTask run;
	TimestampTz due;			/* DT_NOEND: when woken */
} Task;

static Task tasks[MAX_TASKS];
static int	ntasks = 0;

static void serve(Oid extension);
static Oid	current_extension(void);
static long run_tasks(bool all);

/*
 * es_worker_register_task adds a task to what every database's worker does.
 */
void
es_worker_register_task(EsWorkerTask task)
{
	if (ntasks >= MAX_TASKS)
		elog(ERROR, "too many tasks for the workers of eventsrc");
	tasks[ntasks++].run = task;
}

/*
 * es_database_worker_main is the worker of one database.
 */
void
es_database_worker_main(Datum main_arg)
{
	Oid			extension;

	(void) es_worker_begin(main_arg, ES_KIND_DATABASE);

	(void) es_slot_take_woken();
	extension = current_extension();
	es_slot_found_extension(OidIsValid(extension));
	if (OidIsValid(extension))
	{
		SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);
		serve(extension);
	}

	/* an administrator's doing: supervised workers stay, and we come back */
	if (es_worker_was_terminated())
		proc_exit(1);
	es_workers_make_leave(MyDatabaseId, false);
	proc_exit(0);
}

/*
 * serve does the work until the worker is told to leave or the extension that
 * it serves is gone.
 */
static void
serve(Oid extension)
{
	uint32		wait_event = es_wait_event_new("EventsrcWorkerMain");
	MemoryContext context;
	EsDatabase *db;
	bool		woken = true;

	if (!es_worker_enter("starting"))
		return;
	db = es_database();
	es_position_attach_worker();
	es_worker_finish();

	context = AllocSetContextCreate(TopMemoryContext, "eventsrc worker",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		long		timeout;
		long		maintain;
		long		publish;

		if (es_worker_should_leave())
			return;

		if (es_slot_take_woken() || woken)
		{
			Oid			current = current_extension();

			woken = true;
			if (current != extension)
			{
				/* dropped; or made anew, then the next worker serves it */
				es_slot_found_extension(OidIsValid(current));
				return;
			}
		}

		MemoryContextSwitchTo(context);
		timeout = run_tasks(woken);
		maintain = es_maintain_partitions(db);
		timeout = timeout < 0 ? maintain : Min(timeout, maintain);
		publish = es_publish_position();
		if (publish >= 0)
			timeout = Min(timeout, publish);
		MemoryContextReset(context);

		/* an append that asks for maintenance is a move, too */
		woken = es_worker_wait(publish < 0 ? db : NULL, es_publish_seen(), timeout,
							   wait_event);
	}
}

/*
 * current_extension returns the OID of the extension in this database, or
 * InvalidOid.
 */
static Oid
current_extension(void)
{
	Oid			extension;

	StartTransactionCommand();
	extension = get_extension_oid("eventsrc", true);
	CommitTransactionCommand();
	return extension;
}

/*
 * run_tasks runs the tasks that are due, or all, and returns the ms until the
 * next is, -1 if none.
 */
static long
run_tasks(bool all)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < ntasks; i++)
	{
		Task	   *task = &tasks[i];

		if (all || task->due <= GetCurrentTimestamp())
		{
			MemoryContext context = CurrentMemoryContext;
			long		again = task->run();

			MemoryContextSwitchTo(context);
			task->due = again < 0 ? DT_NOEND :
				TimestampTzPlusMilliseconds(GetCurrentTimestamp(), again);
		}
		next = Min(next, task->due);
	}
	if (next == DT_NOEND)
		return -1;
	/* rounded up, not to wake too early and again */
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next) + 1;
}
