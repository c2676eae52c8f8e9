/*
 * supervise.c
 *		The task of a database's worker that keeps its relays' workers going.
 */
#include "relay/relay.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/worker.h"

static long supervise_relays(void);
static List *load_relays(MemoryContext context);
static void stop_others(List *relays);

/*
 * es_relay_init registers the task; called by _PG_init.
 */
void
es_relay_init(void)
{
	es_worker_register_task(supervise_relays);
}

/*
 * supervise_relays starts the worker of every lane of every relay that is to
 * run, and stops the others.
 */
static long
supervise_relays(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc relays",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	List	   *relays = load_relays(context);
	ListCell   *cell;
	long		next = -1;

	MemoryContextSwitchTo(context);
	stop_others(relays);
	foreach(cell, relays)
	{
		EsRelay    *relay = lfirst(cell);
		int64		key = es_lane_key(relay->id, relay->lane);
		const char *problem = NULL;
		long		wait;

		if (!es_relay_runnable(relay))
			continue;
		if (es_relay_status_claim(key))
		{
			es_relay_status_told(key);
			wait = es_worker_ensure("relay", key, "es_relay_main", &problem);
			if (problem != NULL)
				es_relay_status_problem(key, problem);
		}
		else
			wait = 60 * 1000L;	/* a slot may become free */
		if (wait >= 0 && (next < 0 || wait < next))
			next = wait;
	}

	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	return next;
}

/*
 * load_relays reads the lanes of the relays of this database, none where the extension is
 * not installed.
 */
static List *
load_relays(MemoryContext context)
{
	List	   *relays = NIL;

	StartTransactionCommand();
	if (es_extension_present())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		relays = es_relay_list(context);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	return relays;
}

/*
 * stop_others stops the workers of lanes that are gone or not to run.
 */
static void
stop_others(List *relays)
{
	ListCell   *id_cell;

	foreach(id_cell, es_relay_status_ids())
	{
		int64		key = *(int64 *) lfirst(id_cell);
		EsRelay    *relay = NULL;
		ListCell   *cell;

		foreach(cell, relays)
		{
			EsRelay    *other = lfirst(cell);

			if (es_lane_key(other->id, other->lane) == key)
				relay = other;
		}
		if (relay != NULL && es_relay_runnable(relay))
			continue;
		es_worker_stop("relay", key);
		if (relay == NULL)
			es_relay_status_release(key);
	}
}
