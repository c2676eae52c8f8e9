/*
 * report.c
 *		What stands behind the view es_relays.
 */
#include "relay/relay.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "read/scan.h"
#include "store/position.h"
#include "store/store.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(es_relay_report);
PG_FUNCTION_INFO_V1(es_relay_lane_report);
PG_FUNCTION_INFO_V1(es_head_position);

#define REPORT_COLUMNS	22
#define LANE_COLUMNS	12

/* events behind are counted one by one up to here, and estimated beyond */
#define LAG_COUNTED		10000

/* states as the views show them, from the best to the worst */
typedef enum ShownState
{
	SHOWN_FINISHED,
	SHOWN_PAUSED,
	SHOWN_RUNNING,
	SHOWN_WAITING,
	SHOWN_RETRYING,
	SHOWN_STOPPED
} ShownState;

static const char *const state_names[] =
{
	"finished", "paused", "running", "waiting", "retrying", "stopped"
};

/* what is shown of a lane, or of all lanes of a relay together */
typedef struct Shown
{
	EsRelay    *relay;
	EsRelayStatus status;
	char	   *problem;		/* that only people can put right, or NULL */
	ShownState	state;
	int64		position;
	bool		measured;		/* the lag is known */
	int64		lag_events;
	double		lag_seconds;
	double		rate;
} Shown;

static void report(FunctionCallInfo fcinfo, bool by_lane);
static bool may_see(const EsRelay *relay);
static char *relay_problem(EsRelay *relay);
static void examine(Shown *shown, EsRelay *relay, char *problem, int64 safe);
static void add_lane(Shown *total, const Shown *lane);
static void report_relay(ReturnSetInfo *result, const Shown *shown, int64 safe);
static void report_lane(ReturnSetInfo *result, const Shown *shown);
static void put_error(Datum *values, bool *nulls, const Shown *shown);
static ShownState shown_state(EsRelayState state);
static bool measure_lag(EsRelay *relay, int64 position, int64 safe, int64 *events, double *seconds);
static Datum text_datum(const char *string);

/*
 * es_relay_report returns the rows of es_relays: the relays that the user owns,
 * all of them for members of pg_read_all_stats.
 */
Datum
es_relay_report(PG_FUNCTION_ARGS)
{
	report(fcinfo, false);
	return (Datum) 0;
}

/*
 * es_relay_lane_report returns the rows of es_relay_lanes, of the same relays.
 */
Datum
es_relay_lane_report(PG_FUNCTION_ARGS)
{
	report(fcinfo, true);
	return (Datum) 0;
}

/*
 * es_head_position returns the highest position that was given to an event.
 */
Datum
es_head_position(PG_FUNCTION_ARGS)
{
	/* a standby gives no positions */
	PG_RETURN_INT64(RecoveryInProgress() ? es_position_safe() : es_position_head());
}

/*
 * report adds the relays that the user may see to the result, each lane by
 * itself or all of a relay together.  The list has a relay's lanes in order.
 */
static void
report(FunctionCallInfo fcinfo, bool by_lane)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		safe = es_position_safe();
	Shown		total = {0};
	char	   *problem = NULL;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, es_relay_list(CurrentMemoryContext))
	{
		EsRelay    *relay = lfirst(cell);
		Shown		lane;

		CHECK_FOR_INTERRUPTS();
		if (!may_see(relay))
			continue;
		if (relay->lane == 0)
			problem = relay_problem(relay);
		examine(&lane, relay, problem, safe);
		if (by_lane)
		{
			report_lane(result, &lane);
			continue;
		}
		if (relay->lane == 0)
			total = lane;
		else
			add_lane(&total, &lane);
		if (relay->lane == relay->lanes - 1)
			report_relay(result, &total, safe);
	}
}

/*
 * may_see tells whether a relay is shown to the user.
 */
static bool
may_see(const EsRelay *relay)
{
	return has_privs_of_role(GetUserId(), relay->owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

/*
 * relay_problem says what keeps a relay from running here, or returns NULL.
 */
static char *
relay_problem(EsRelay *relay)
{
	if (!relay->local)
		return pstrdup("the relay was made in another database or server, of which this one is a copy: es_resume_relay() lets it send from here");
	return es_relay_problem(relay);
}

/*
 * examine finds out what is to be shown of a lane.
 */
static void
examine(Shown *shown, EsRelay *relay, char *problem, int64 safe)
{
	bool		reported;

	memset(shown, 0, sizeof(Shown));
	reported = es_relay_status_read(es_lane_key(relay->id, relay->lane), &shown->status);
	shown->relay = relay;
	shown->problem = problem;
	shown->position = shown->status.pid != 0 ? shown->status.position : relay->position;
	shown->rate = shown->status.pid == 0 ? 0 : es_relay_status_rate(&shown->status);

	if (es_relay_finished(relay))
		shown->state = SHOWN_FINISHED;
	else if (relay->paused)
		shown->state = SHOWN_PAUSED;
	else if (problem != NULL)
		shown->state = SHOWN_STOPPED;
	else
		shown->state = reported ? shown_state(shown->status.state) : SHOWN_WAITING;
	if (es_relay_store_problem(relay) == NULL)
		shown->measured = measure_lag(relay, shown->position,
									  relay->to_position > 0 ? Min(relay->to_position, safe) : safe,
									  &shown->lag_events, &shown->lag_seconds);
}

/*
 * add_lane adds a lane to what is shown of its relay: its state and error, if
 * they are worse, and its numbers.
 */
static void
add_lane(Shown *total, const Shown *lane)
{
	bool		worse = lane->state > total->state;

	total->position = Min(total->position, lane->position);
	total->lag_events += lane->lag_events;
	total->lag_seconds = Max(total->lag_seconds, lane->lag_seconds);
	total->rate += lane->rate;
	total->state = Max(total->state, lane->state);
	total->status.sent += lane->status.sent;
	total->status.retries += lane->status.retries;
	if (total->status.address[0] == '\0')
		strlcpy(total->status.address, lane->status.address, sizeof(total->status.address));
	if (lane->status.last_error[0] != '\0' &&
		(worse || (lane->state == total->state && lane->status.last_error_at > total->status.last_error_at)))
	{
		strlcpy(total->status.last_error, lane->status.last_error, sizeof(total->status.last_error));
		total->status.last_error_at = lane->status.last_error_at;
	}
}

/*
 * report_relay adds a relay to the rows of es_relays.
 */
static void
report_relay(ReturnSetInfo *result, const Shown *shown, int64 safe)
{
	Datum		values[REPORT_COLUMNS] = {0};
	bool		nulls[REPORT_COLUMNS] = {0};
	EsRelay    *relay = shown->relay;
	const EsRelayStatus *status = &shown->status;
	ForeignServer *server = GetForeignServerByName(NameStr(relay->server), true);
	const EsBrokerType *type = server ? es_server_type(server->options) : NULL;

	values[0] = NameGetDatum(&relay->name);
	values[1] = NameGetDatum(&relay->store);
	values[2] = NameGetDatum(&relay->server);
	nulls[3] = type == NULL;
	if (!nulls[3])
		values[3] = text_datum(type->name);
	nulls[4] = status->address[0] == '\0';
	if (!nulls[4])
		values[4] = text_datum(status->address);
	values[5] = CStringGetTextDatum(relay->topic);
	values[6] = CStringGetTextDatum(state_names[shown->state]);
	values[7] = Int64GetDatum(shown->position);
	values[8] = Int64GetDatum(safe);
	nulls[9] = nulls[10] = !shown->measured;
	values[9] = Int64GetDatum(shown->lag_events);
	values[10] = Float8GetDatum(shown->lag_seconds);
	values[11] = Int64GetDatum(status->sent);
	values[12] = Int64GetDatum(status->retries);
	put_error(&values[13], &nulls[13], shown);
	nulls[15] = status->pid == 0;
	values[15] = Int32GetDatum((int32) status->pid);
	values[16] = ObjectIdGetDatum(relay->owner);
	values[17] = CStringGetTextDatum(relay->delivery);
	nulls[18] = relay->to_position == 0;
	values[18] = Int64GetDatum(relay->to_position);
	values[19] = Float8GetDatum(shown->rate);
	values[20] = JsonbPGetDatum(relay->options);
	values[21] = Int32GetDatum(relay->lanes);

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * report_lane adds a lane to the rows of es_relay_lanes.
 */
static void
report_lane(ReturnSetInfo *result, const Shown *shown)
{
	Datum		values[LANE_COLUMNS] = {0};
	bool		nulls[LANE_COLUMNS] = {0};

	values[0] = NameGetDatum(&shown->relay->name);
	values[1] = Int32GetDatum(shown->relay->lane);
	values[2] = CStringGetTextDatum(state_names[shown->state]);
	values[3] = Int64GetDatum(shown->position);
	nulls[4] = nulls[5] = !shown->measured;
	values[4] = Int64GetDatum(shown->lag_events);
	values[5] = Float8GetDatum(shown->lag_seconds);
	values[6] = Int64GetDatum(shown->status.sent);
	values[7] = Float8GetDatum(shown->rate);
	values[8] = Int64GetDatum(shown->status.retries);
	put_error(&values[9], &nulls[9], shown);
	nulls[11] = shown->status.pid == 0;
	values[11] = Int32GetDatum((int32) shown->status.pid);

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * put_error sets the columns last_error and last_error_at.
 */
static void
put_error(Datum *values, bool *nulls, const Shown *shown)
{
	bool		none = shown->status.last_error[0] == '\0';

	nulls[0] = shown->problem == NULL && none;
	if (!nulls[0])
		values[0] = text_datum(shown->problem ? shown->problem : shown->status.last_error);
	nulls[1] = shown->problem != NULL || none;
	values[1] = TimestampTzGetDatum(shown->status.last_error_at);
}

/*
 * shown_state returns a worker's state as the views show it.
 */
static ShownState
shown_state(EsRelayState state)
{
	switch (state)
	{
		case ES_RELAY_WAITING:
			return SHOWN_WAITING;
		case ES_RELAY_RUNNING:
			return SHOWN_RUNNING;
		case ES_RELAY_RETRYING:
			return SHOWN_RETRYING;
		case ES_RELAY_STOPPED:
			return SHOWN_STOPPED;
	}
	pg_unreachable();
}

/*
 * measure_lag counts the events that a lane has yet to send, and the age of the
 * oldest.  It reads up to LAG_COUNTED; beyond that it takes the rest to be as
 * dense in positions as those.  It reads as the relay does, with the rights
 * of its owner.
 */
static bool
measure_lag(EsRelay *relay, int64 position, int64 safe, int64 *events, double *seconds)
{
	Oid			user;
	int			context;
	int			nest_level;
	EsStore    *store;
	EsScan	   *scan;
	TupleTableSlot *slot = NULL;
	int64		last = position;
	int			read = 0;
	bool		isnull;

	*events = 0;
	*seconds = 0;
	if (safe <= position)
		return true;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(relay->owner, context | SECURITY_RESTRICTED_OPERATION);

	/* row security may run the owner's functions: what they set is undone */
	nest_level = NewGUCNestLevel();
	PushActiveSnapshot(GetLatestSnapshot());

	store = es_store_open(NameStr(relay->store), AccessShareLock);
	scan = es_scan_all(store, position, safe, GetActiveSnapshot(), NULL);
	while (read < LAG_COUNTED && (slot = es_scan_next(scan)) != NULL)
	{
		read++;
		last = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
		if (es_lane_takes(relay, slot) && (*events)++ == 0)
		{
			TimestampTz recorded_at =
				DatumGetTimestampTz(slot_getattr(slot, ES_ATT_RECORDED_AT, &isnull));

			*seconds = Max((GetCurrentTimestamp() - recorded_at) / 1000000.0, 0.0);
		}
	}
	if (slot != NULL && last < safe)
		*events += (int64) ((double) (safe - last) * *events / (last - position));
	es_scan_end(scan);

	PopActiveSnapshot();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(user, context);
	return true;
}

/*
 * text_datum makes a text of a string that may come from elsewhere or be cut:
 * what is not valid in the database's encoding is replaced.
 */
static Datum
text_datum(const char *string)
{
	char	   *copy = pstrdup(string);

	if (!pg_verifymbstr(copy, strlen(copy), true))
	{
		for (char *p = copy; *p; p++)
		{
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
		}
	}
	return CStringGetTextDatum(copy);
}
