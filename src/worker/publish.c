/*
 * publish.c
 *		Publishes the safe position in eventsrc.published_position, for standbys.
 *
 * The row is written after the commit records of all events that it covers, so
 * a standby that has replayed it has replayed them.
 */
#include "eventsrc.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/timestamp.h"

#include "store/position.h"
#include "worker/slots.h"
#include "worker/worker.h"

/* the row is written at most once in so many ms */
#define PUBLISH_INTERVAL	100L

static EsDatabase *database = NULL;
static uint64 seen_moves = 0;
static TimestampTz looked_at = 0;
static int64 published = -1;

static void write_position(int64 position);

/*
 * es_publish_seen returns the count of moves that what was published covers.
 */
uint64
es_publish_seen(void)
{
	return seen_moves;
}

/*
 * es_publish_position publishes the safe position if it moved.  Returns after
 * how many ms it wants to be called again; -1 if nothing has moved, then when
 * something does.
 */
long
es_publish_position(void)
{
	TimestampTz now;
	int64		position;

	if (database && pg_atomic_read_u64(&database->moves) == seen_moves)
		return -1;

	now = GetCurrentTimestamp();
	if (looked_at != 0 && !TimestampDifferenceExceeds(looked_at, now, PUBLISH_INTERVAL))
		return PUBLISH_INTERVAL - TimestampDifferenceMilliseconds(looked_at, now) + 1;
	looked_at = now;

	if (!es_worker_enter("publishing the safe position"))
		return PUBLISH_INTERVAL;	/* the extension is gone, and we soon too */
	database = es_database();
	/* counted before it is read, so no move is missed */
	seen_moves = pg_atomic_read_u64(&database->moves);
	pg_memory_barrier();
	position = es_position_safe();
	if (position != published)
		write_position(position);
	es_worker_finish();
	published = position;

	/* off the condition variable for a while: appenders need not wake us */
	return PUBLISH_INTERVAL;
}

/*
 * write_position updates the row, which stays on its page (HOT), or makes it.
 */
static void
write_position(int64 position)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	int			result;

	SPI_connect();
	if (plan == NULL)
	{
		plan = SPI_prepare("INSERT INTO eventsrc.published_position AS p (position) VALUES ($1)"
						   " ON CONFLICT (only_row) DO UPDATE SET position = EXCLUDED.position"
						   " WHERE p.position <> EXCLUDED.position", 1, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	}
	values[0] = Int64GetDatum(position);
	result = SPI_execute_plan(plan, values, NULL, false, 0);
	if (result != SPI_OK_INSERT)
		elog(ERROR, "could not publish the safe position: %s", SPI_result_code_string(result));
	SPI_finish();
}
