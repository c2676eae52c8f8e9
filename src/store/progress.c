/*
 * progress.c
 *		How far long commands are: one slot a backend in shared memory, shown by
 *		the view es_progress.
 *
 * A command that begins inside another takes the slot over; the outer one's
 * reports go nowhere from then on.  Whatever ends the command's transaction or
 * subtransaction clears the slot.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "store/progress.h"

typedef struct Slot
{
	slock_t		mutex;
	int			pid;			/* 0: nothing runs */
	Oid			dboid;
	Oid			role;
	NameData	command;
	NameData	store;
	int64		total;			/* -1: unknown */
	int64		done;
	TimestampTz started_at;
} Slot;

static Slot *slots = NULL;

/* what runs in this backend, 0: nothing; and where it began */
static int64 running = 0;
static int64 last_token = 0;
static SubTransactionId running_in = InvalidSubTransactionId;

PG_FUNCTION_INFO_V1(es_progress_rows);
PG_FUNCTION_INFO_V1(es_progress_begin_sql);
PG_FUNCTION_INFO_V1(es_progress_update_sql);
PG_FUNCTION_INFO_V1(es_progress_end_sql);

/*
 * shmem_size returns the size of the shared memory of this file.
 */
static Size
shmem_size(void)
{
	return mul_size(MaxBackends, sizeof(Slot));
}

/*
 * es_progress_request_shmem asks for the shared memory of this file.
 */
void
es_progress_request_shmem(void)
{
	RequestAddinShmemSpace(shmem_size());
}

/*
 * es_progress_init_shmem finds or makes the shared memory of this file.
 */
void
es_progress_init_shmem(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots = ShmemInitStruct("eventsrc progress", shmem_size(), &found);
	if (!found)
	{
		memset(slots, 0, shmem_size());
		for (int i = 0; i < MaxBackends; i++)
			SpinLockInit(&slots[i].mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * clear_slot says that nothing runs in this backend any more.
 */
static void
clear_slot(void)
{
	Slot	   *slot = &slots[es_my_proc_number()];

	running = 0;
	SpinLockAcquire(&slot->mutex);
	slot->pid = 0;
	SpinLockRelease(&slot->mutex);
}

/*
 * end_transaction clears the slot with the transaction.
 */
static void
end_transaction(XactEvent event, void *arg)
{
	if (running != 0 && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
						 event == XACT_EVENT_PREPARE))
		clear_slot();
}

/*
 * end_subtransaction clears the slot with the subtransaction that the command
 * began in.
 */
static void
end_subtransaction(SubXactEvent event, SubTransactionId subid,
				   SubTransactionId parent, void *arg)
{
	if (running == 0 || running_in != subid)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		clear_slot();
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		running_in = parent;
}

/*
 * es_progress_init_backend registers the callbacks, in the postmaster for all
 * that it forks.
 */
void
es_progress_init_backend(void)
{
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}

/*
 * es_progress_begin reports that a command begins; returns the token that its
 * further reports carry.
 */
int64
es_progress_begin(const char *command, const char *store, int64 total)
{
	Slot	   *slot = &slots[es_my_proc_number()];
	TimestampTz now = GetCurrentTimestamp();
	NameData	command_name;
	NameData	store_name;

	namestrcpy(&command_name, command);
	namestrcpy(&store_name, store);
	SpinLockAcquire(&slot->mutex);
	slot->pid = MyProcPid;
	slot->dboid = MyDatabaseId;
	slot->role = GetUserId();
	slot->command = command_name;
	slot->store = store_name;
	slot->total = total;
	slot->done = 0;
	slot->started_at = now;
	SpinLockRelease(&slot->mutex);

	running_in = GetCurrentSubTransactionId();
	running = ++last_token;
	return running;
}

/*
 * es_progress_update reports how much is done.
 */
void
es_progress_update(int64 token, int64 done)
{
	Slot	   *slot = &slots[es_my_proc_number()];

	if (token != running)
		return;
	SpinLockAcquire(&slot->mutex);
	slot->done = done;
	SpinLockRelease(&slot->mutex);
}

/*
 * es_progress_end reports that a command has ended.
 */
void
es_progress_end(int64 token)
{
	if (token == running && running != 0)
		clear_slot();
}

/*
 * es_progress_begin_sql is eventsrc.progress_begin(command, store, total).
 */
Datum
es_progress_begin_sql(PG_FUNCTION_ARGS)
{
	char	   *command = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT64(es_progress_begin(command, NameStr(*PG_GETARG_NAME(1)), PG_GETARG_INT64(2)));
}

/*
 * es_progress_update_sql is eventsrc.progress_update(token, done).
 */
Datum
es_progress_update_sql(PG_FUNCTION_ARGS)
{
	es_progress_update(PG_GETARG_INT64(0), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/*
 * es_progress_end_sql is eventsrc.progress_end(token).
 */
Datum
es_progress_end_sql(PG_FUNCTION_ARGS)
{
	es_progress_end(PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

/*
 * es_progress_rows is eventsrc.progress(): what runs.  What others do only
 * members of their role and of pg_read_all_stats see.
 */
Datum
es_progress_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < MaxBackends; i++)
	{
		Slot		slot;
		Datum		values[7] = {0};
		bool		nulls[7] = {false};
		char	   *database;

		SpinLockAcquire(&slots[i].mutex);
		slot = slots[i];
		SpinLockRelease(&slots[i].mutex);
		if (slot.pid == 0)
			continue;

		database = get_database_name(slot.dboid);
		values[0] = Int32GetDatum(slot.pid);
		nulls[1] = database == NULL;
		if (database)
			values[1] = DirectFunctionCall1(namein, CStringGetDatum(database));
		values[2] = CStringGetTextDatum(NameStr(slot.command));
		values[3] = NameGetDatum(&slot.store);
		values[4] = Int64GetDatum(slot.done);
		values[5] = Int64GetDatum(slot.total);
		nulls[5] = slot.total < 0;
		values[6] = TimestampTzGetDatum(slot.started_at);
		if (!all && !has_privs_of_role(GetUserId(), slot.role))
			nulls[2] = nulls[3] = nulls[4] = nulls[5] = nulls[6] = true;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
