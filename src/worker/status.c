/*
 * status.c
 *		Shows the workers' table: the view es_workers.
 */
#include "eventsrc.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "worker/slots.h"
#include "worker/worker.h"

#define WORKERS_COLS	10

static const char *state_name(EsWorkerSlot *slot);
static char *readable(EsWorkerSlot *slot);

PG_FUNCTION_INFO_V1(es_workers_status);

/*
 * es_workers_status returns a row for every worker that lives or is to be
 * started again.  Error messages are shown to those who may see the sessions
 * of others.
 */
Datum
es_workers_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		see_errors = has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
	EsWorkerSlot *copy;
	int			n = 0;

	InitMaterializedSRF(fcinfo, 0);

	copy = palloc(es_workers->nslots * sizeof(EsWorkerSlot));
	LWLockAcquire(es_workers->lock, LW_SHARED);
	for (int i = 0; i < es_workers->nslots; i++)
	{
		EsWorkerState state = es_workers->slots[i].state;

		if (state != ES_WORKER_FREE && state != ES_WORKER_ABSENT)
			copy[n++] = es_workers->slots[i];
	}
	LWLockRelease(es_workers->lock);

	for (int i = 0; i < n; i++)
	{
		EsWorkerSlot *slot = &copy[i];
		bool		supervised = strcmp(slot->kind, ES_KIND_LAUNCHER) != 0 &&
			strcmp(slot->kind, ES_KIND_DATABASE) != 0;
		Datum		values[WORKERS_COLS] = {0};
		bool		nulls[WORKERS_COLS] = {0};

		values[0] = Int32GetDatum(slot->pid);
		nulls[0] = slot->pid == 0;
		values[1] = CStringGetTextDatum(slot->kind);
		values[2] = ObjectIdGetDatum(slot->dboid);
		nulls[2] = !OidIsValid(slot->dboid);
		values[3] = Int64GetDatum(slot->id);
		nulls[3] = !supervised;
		values[4] = CStringGetTextDatum(state_name(slot));
		values[5] = TimestampTzGetDatum(slot->started_at);
		values[6] = Int32GetDatum(slot->failures);
		values[7] = TimestampTzGetDatum(slot->retry_at);
		nulls[7] = slot->state != ES_WORKER_FAILED;
		nulls[8] = nulls[9] = !see_errors || slot->last_error_at == 0;
		if (!nulls[8])
		{
			values[8] = TimestampTzGetDatum(slot->last_error_at);
			values[9] = CStringGetTextDatum(readable(slot));
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * state_name names the state of a worker as users see it.
 */
static const char *
state_name(EsWorkerSlot *slot)
{
	switch (slot->state)
	{
		case ES_WORKER_FREE:
		case ES_WORKER_ABSENT:
			break;
		case ES_WORKER_STARTING:
		case ES_WORKER_PROBING:
			return slot->leave ? "leaving" : "starting";
		case ES_WORKER_RUNNING:
			return slot->leave ? "leaving" : "running";
		case ES_WORKER_FAILED:
			return "failed";
	}
	return "gone";
}

/*
 * readable returns the last error in this database's encoding; what was
 * written in another shows question marks beyond ASCII.
 */
static char *
readable(EsWorkerSlot *slot)
{
	char	   *message = pstrdup(slot->last_error);

	if (slot->last_error_encoding == GetDatabaseEncoding())
		return message;
	for (char *c = message; *c; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	}
	return message;
}
