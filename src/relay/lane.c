/*
 * lane.c
 *		Lanes: several workers send for one relay, each the streams whose hash is
 *		its own.
 *
 * All lanes read by position, and each keeps its own account of how far it has
 * come.  Their number changes at one position that all of them have reached.
 * First every lane lets the broker confirm what it has sent, and halts; where
 * it stands is noted.  The farthest of these positions is where they turn: each
 * goes on up to there and halts again.  Who is the last to arrive puts the new
 * lanes in the old ones' place, at that position and with a new epoch, which
 * makes the old lanes' records at the broker void.  Until then nothing that is
 * noted must survive a crash: lanes that come back find out again where they
 * stand, and none of them has gone farther than another's note says.
 */
#include "relay/run.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "read/scan.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "worker/worker.h"

/* where a lane's number begins in its key */
#define LANE_SHIFT	56

static uint64 hash_text(Datum value, uint64 seed);
static bool note_halt(const EsRelay *relay, int64 position);
static void turn(const EsRelay *relay);
static void replace_lanes(const EsRelay *relay, int64 position);

/*
 * es_lane_key returns the number by which a lane's worker and status are known.
 */
int64
es_lane_key(int64 relay, int lane)
{
	return relay | ((int64) lane << LANE_SHIFT);
}

/*
 * es_lane_relay returns the relay of a key.
 */
int64
es_lane_relay(int64 key)
{
	return key & ((INT64CONST(1) << LANE_SHIFT) - 1);
}

/*
 * es_lane_number returns the lane of a key.
 */
int
es_lane_number(int64 key)
{
	return (int) (key >> LANE_SHIFT);
}

/*
 * es_lane_takes tells whether an event is the lane's to send.
 */
bool
es_lane_takes(const EsRelay *relay, TupleTableSlot *slot)
{
	bool		isnull;
	uint64		hash;

	if (relay->lanes == 1)
		return true;
	hash = hash_text(slot_getattr(slot, ES_ATT_AGGREGATE_TYPE, &isnull), 0);
	hash = hash_text(slot_getattr(slot, ES_ATT_AGGREGATE_ID, &isnull), hash);
	return hash % relay->lanes == relay->lane;
}

/*
 * es_lanes_change tells whether another number of lanes is wanted.
 */
bool
es_lanes_change(const EsRelay *relay)
{
	return relay->content->lanes != relay->lanes;
}

/*
 * es_lanes_set_off lets all lanes of a relay go on that halted for a change; if
 * it is still wanted, it begins anew.  Called within SPI.
 */
void
es_lanes_set_off(int64 relay)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(relay)};

	es_relay_execute("UPDATE eventsrc.relays SET halted_at = NULL, turn_position = NULL"
					 " WHERE id = $1 AND (halted_at, turn_position) IS DISTINCT FROM (NULL, NULL)",
					 1, types, values, false);
	es_relay_execute("UPDATE eventsrc.relay_lanes SET halted_at = NULL WHERE relay = $1 AND halted_at IS NOT NULL",
					 1, types, values, false);
}

/*
 * es_lanes_tell has the workers of all lanes look at the relay's row, once it
 * is committed.
 */
void
es_lanes_tell(int64 relay)
{
	for (int lane = 0; lane < ES_MAX_LANES; lane++)
		es_relay_status_tell(es_lane_key(relay, lane));
}

/*
 * es_lanes_nudge asks the workers of all lanes not to wait for their next
 * attempt.
 */
void
es_lanes_nudge(int64 relay)
{
	for (int lane = 0; lane < ES_MAX_LANES; lane++)
		es_relay_status_nudge(es_lane_key(relay, lane));
}

/*
 * es_run_turn takes a lane's part in a change of their number, as far as it can
 * be done now.
 */
void
es_run_turn(EsRun *run)
{
	EsRelay    *relay = run->relay;
	bool		noted;

	if (!es_lanes_change(relay) || !run->positioned || es_window_pending(run->window) > 0)
		return;
	if (relay->halted_at >= run->scanned ||
		(relay->halted_at >= 0 && run->scanned < relay->turn_position))
		return;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	noted = note_halt(relay, run->scanned);
	PopActiveSnapshot();
	CommitTransactionCommand();

	if (noted)
	{
		es_window_reset(run->window, run->scanned);
		run->saved = run->scanned;
	}
	run->catalog_changed = true;
}

/*
 * hash_text hashes a text, in the same way on all servers of an architecture.
 */
static uint64
hash_text(Datum value, uint64 seed)
{
	text	   *string = DatumGetTextPP(value);

	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(string),
							   VARSIZE_ANY_EXHDR(string), seed);
}

/*
 * note_halt notes that a lane has delivered everything up to a position and
 * waits there; false if the relay was changed meanwhile.
 */
static bool
note_halt(const EsRelay *relay, int64 position)
{
	Oid			types[] = {INT8OID, INT4OID, INT8OID};
	Datum		values[3];
	EsRelay    *now;

	/* one lane after the other */
	es_relay_lock(relay->id);
	PushActiveSnapshot(GetLatestSnapshot());
	now = es_relay_load(relay->id, relay->lane, CurrentMemoryContext);
	PopActiveSnapshot();
	if (now == NULL || now->epoch != relay->epoch || !es_lanes_change(now))
		return false;

	values[0] = Int64GetDatum(relay->id);
	values[1] = Int32GetDatum(relay->lane);
	values[2] = Int64GetDatum(position);
	SPI_connect();
	if (relay->lane == 0)
		es_relay_execute("UPDATE eventsrc.relays SET position = $3, halted_at = $3 WHERE id = $1",
						 3, types, values, false);
	else
		es_relay_execute("UPDATE eventsrc.relay_lanes SET position = $3, halted_at = $3"
						 " WHERE relay = $1 AND lane = $2", 3, types, values, false);
	turn(now);
	SPI_finish();
	return true;
}

/*
 * turn does what is next once all lanes have halted: they are told up to where
 * they go, or, if all stand there, the new ones take over.
 */
static void
turn(const EsRelay *relay)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(relay->id), 0};
	int64		missing;
	int64		least;
	int64		most;
	HeapTuple	row;
	bool		isnull;

	es_relay_execute("SELECT count(*) FILTER (WHERE halted_at IS NULL), coalesce(min(halted_at), 0),"
					 " coalesce(max(halted_at), 0)"
					 " FROM (SELECT halted_at FROM eventsrc.relays WHERE id = $1 UNION ALL"
					 " SELECT halted_at FROM eventsrc.relay_lanes WHERE relay = $1) l",
					 1, types, values, false);
	row = SPI_tuptable->vals[0];
	missing = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
	least = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	most = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &isnull));
	if (missing > 0)
		return;

	most = Max(most, relay->turn_position);
	if (least == most)
		replace_lanes(relay, most);
	else
	{
		values[1] = Int64GetDatum(most);
		es_relay_execute("UPDATE eventsrc.relays SET turn_position = $2 WHERE id = $1",
						 2, types, values, false);
	}
	es_relay_tell_workers();
	es_lanes_tell(relay->id);
	es_worker_wake_at_commit();
}

/*
 * replace_lanes makes as many lanes as are wanted, all at one position.  The
 * broker may know them from their first event on, so the commit is to be
 * durable, and on a synchronous standby, before anybody sees it.
 */
static void
replace_lanes(const EsRelay *relay, int64 position)
{
	Oid			types[] = {INT8OID, INT8OID, INT4OID};
	Datum		values[3];

	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	values[0] = Int64GetDatum(relay->id);
	values[1] = Int64GetDatum(position);
	values[2] = Int32GetDatum(relay->content->lanes);
	es_relay_execute("UPDATE eventsrc.relays SET lanes = $3, position = $2, halted_at = NULL, turn_position = NULL,"
					 " epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
					 " WHERE id = $1", 3, types, values, false);
	es_relay_execute("DELETE FROM eventsrc.relay_lanes WHERE relay = $1", 1, types, values, false);
	es_relay_execute("INSERT INTO eventsrc.relay_lanes (relay, lane, position, epoch)"
					 " SELECT r.id, n, r.position, r.epoch"
					 " FROM eventsrc.relays r, generate_series(1, r.lanes - 1) n WHERE r.id = $1",
					 1, types, values, false);
	ereport(LOG,
			(errmsg("relay \"%s\" has %d lanes from position " INT64_FORMAT " on, instead of %d",
					NameStr(relay->name), relay->content->lanes, position, relay->lanes)));
}
