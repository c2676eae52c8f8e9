/*
 * maintain.c
 *		Has partitions made ahead: at start, every hour, and when an append
 *		asks for it.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "store/position.h"
#include "store/store.h"
#include "worker/slots.h"
#include "worker/worker.h"

/* in ms */
#define MAINTENANCE_INTERVAL	3600000L

static void maintain(void);

/*
 * es_maintain_partitions does so if it is time or an append waits for it, and
 * returns after how many ms it is time again.
 */
long
es_maintain_partitions(EsDatabase *db)
{
	static TimestampTz maintained_at = 0;
	TimestampTz now = GetCurrentTimestamp();
	uint64		asked = pg_atomic_read_u64(&db->maintenance_asked);

	if (maintained_at != 0 && asked <= pg_atomic_read_u64(&db->maintenance_done) &&
		!TimestampDifferenceExceeds(maintained_at, now, MAINTENANCE_INTERVAL))
		return MAINTENANCE_INTERVAL - TimestampDifferenceMilliseconds(maintained_at, now) + 1;

	maintain();
	maintained_at = now;

	/* also after a failure: who asked tries for itself and gets its own error */
	pg_atomic_write_u64(&db->maintenance_done, asked);
	ConditionVariableBroadcast(&db->maintained);
	return MAINTENANCE_INTERVAL;
}

/*
 * maintain makes partitions, and reports a failure without giving way to it: a
 * store that its owner broke must not stop the rest of the worker.
 */
static void
maintain(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		pgstat_report_activity(STATE_RUNNING, "maintaining partitions");
		es_partitions_maintain();
		(void) pgstat_report_stat(true);
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		pgstat_report_activity(STATE_IDLE, NULL);
		es_slot_note_error();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}
