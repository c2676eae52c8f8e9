/*
 * durable.c
 *		The safe position, as far as a crash cannot undo it.
 *
 * With synchronous_commit off a commit is visible before it is durable.  Whoever
 * passes events on to where the crash does not reach must not run ahead of the
 * WAL on disk.  We do not hold back what is not flushed (nobody knows which
 * record belongs to which position), we flush it: a reader waits for one fsync
 * at most, not for the WAL writer's round.
 */
#include "eventsrc.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "store/position.h"

/*
 * flush_commits makes all that is committed and visible durable.
 */
static void
flush_commits(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	/*
	 * That is where the next record begins.  At the start of a page it lies
	 * behind the page's header, which is not written yet.
	 */
	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		end -= SizeOfXLogLongPHD;
	else if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		end -= SizeOfXLogShortPHD;
	XLogFlush(end);
}

/*
 * es_position_make_durable makes sure that no crash undoes an event at or below
 * a safe position.  A standby has on disk what it replays.
 */
void
es_position_make_durable(int64 safe)
{
	EsDatabase *db;
	uint64		durable;

	if (RecoveryInProgress())
		return;
	db = es_database();
	durable = pg_atomic_read_u64(&db->durable);
	if ((uint64) safe <= durable)
		return;

	/* the commits' records lie before the end of the WAL as it is now */
	flush_commits();
	while (durable < (uint64) safe &&
		   !pg_atomic_compare_exchange_u64(&db->durable, &durable, (uint64) safe))
		;
}

/*
 * es_position_readable returns the safe position for a reader, durable if the
 * setting eventsrc.read_durable asks for that.
 */
int64
es_position_readable(void)
{
	int64		safe = es_position_safe();

	if (es_setting_read_durable == ES_DURABLE_LOCAL)
		es_position_make_durable(safe);
	return safe;
}
