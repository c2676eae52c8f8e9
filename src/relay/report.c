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
PG_FUNCTION_INFO_V1(es_head_position);

#define REPORT_COLUMNS	21

/* events behind are counted one by one up to here, and estimated beyond */
#define LAG_COUNTED		10000

static void report_relay(ReturnSetInfo *result, EsRelay *relay);
static const char *state_name(EsRelayState state);
static bool measure_lag(EsRelay *relay, int64 position, int64 safe, int64 *events, double *seconds);
static Datum text_datum(const char *string);

/*
 * es_relay_report returns the rows of es_relays: the relays that the user owns,
 * all of them for members of pg_read_all_stats.
 */
Datum
es_relay_report(PG_FUNCTION_ARGS)
{
	List	   *relays;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	relays = es_relay_list(CurrentMemoryContext);
	foreach(cell, relays)
	{
		EsRelay    *relay = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (has_privs_of_role(GetUserId(), relay->owner) ||
			has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
			report_relay((ReturnSetInfo *) fcinfo->resultinfo, relay);
	}
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
 * report_relay adds a relay to the rows of es_relays.
 */
static void
report_relay(ReturnSetInfo *result, EsRelay *relay)
{
	Datum		values[REPORT_COLUMNS] = {0};
	bool		nulls[REPORT_COLUMNS] = {0};
	EsRelayStatus status = {0};
	bool		reported = es_relay_status_read(relay->id, &status);
	char	   *problem = NULL;
	const char *state;
	ForeignServer *server = GetForeignServerByName(NameStr(relay->server), true);
	const EsBrokerType *type = server ? es_server_type(server->options) : NULL;
	int64		position = status.pid != 0 ? status.position : relay->position;
	int64		safe = es_position_safe();
	int64		upto = relay->to_position > 0 ? Min(relay->to_position, safe) : safe;
	int64		lag_events = 0;
	double		lag_seconds = 0;
	bool		measured = false;

	if (!relay->local)
		problem = "the relay was made in another database or server, of which this one is a copy: es_resume_relay() lets it send from here";
	else
		problem = es_relay_problem(relay);

	if (es_relay_finished(relay))
		state = "finished";
	else if (relay->paused)
		state = "paused";
	else if (problem != NULL)
		state = "stopped";
	else
		state = state_name(reported ? status.state : ES_RELAY_WAITING);
	if (es_relay_store_problem(relay) == NULL)
		measured = measure_lag(relay, position, upto, &lag_events, &lag_seconds);

	values[0] = NameGetDatum(&relay->name);
	values[1] = NameGetDatum(&relay->store);
	values[2] = NameGetDatum(&relay->server);
	nulls[3] = type == NULL;
	if (!nulls[3])
		values[3] = text_datum(type->name);
	nulls[4] = status.address[0] == '\0';
	if (!nulls[4])
		values[4] = text_datum(status.address);
	values[5] = CStringGetTextDatum(relay->topic);
	values[6] = CStringGetTextDatum(state);
	values[7] = Int64GetDatum(position);
	values[8] = Int64GetDatum(safe);
	nulls[9] = nulls[10] = !measured;
	values[9] = Int64GetDatum(lag_events);
	values[10] = Float8GetDatum(lag_seconds);
	values[11] = Int64GetDatum(status.sent);
	values[12] = Int64GetDatum(status.retries);
	nulls[13] = problem == NULL && status.last_error[0] == '\0';
	if (!nulls[13])
		values[13] = text_datum(problem ? problem : status.last_error);
	nulls[14] = problem != NULL || status.last_error[0] == '\0';
	values[14] = TimestampTzGetDatum(status.last_error_at);
	nulls[15] = status.pid == 0;
	values[15] = Int32GetDatum((int32) status.pid);
	values[16] = ObjectIdGetDatum(relay->owner);
	values[17] = CStringGetTextDatum(relay->delivery);
	nulls[18] = relay->to_position == 0;
	values[18] = Int64GetDatum(relay->to_position);
	values[19] = Float8GetDatum(status.pid == 0 ? 0 : es_relay_status_rate(&status));
	values[20] = JsonbPGetDatum(relay->options);

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * state_name returns the name of a state as es_relays shows it.
 */
static const char *
state_name(EsRelayState state)
{
	switch (state)
	{
		case ES_RELAY_WAITING:
			return "waiting";
		case ES_RELAY_RUNNING:
			return "running";
		case ES_RELAY_RETRYING:
			return "retrying";
		case ES_RELAY_STOPPED:
			return "stopped";
	}
	pg_unreachable();
}

/*
 * measure_lag counts the events that a relay has yet to send, and the age of
 * the oldest.  It counts up to LAG_COUNTED; beyond that it takes the rest to be
 * as dense in positions as those.  It reads as the relay does, with the rights
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
	while (*events < LAG_COUNTED && (slot = es_scan_next(scan)) != NULL)
	{
		last = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
		if ((*events)++ == 0)
		{
			TimestampTz recorded_at =
				DatumGetTimestampTz(slot_getattr(slot, ES_ATT_RECORDED_AT, &isnull));

			*seconds = Max((GetCurrentTimestamp() - recorded_at) / 1000000.0, 0.0);
		}
	}
	if (slot != NULL && last < safe)
		*events += (int64) ((double) (safe - last) * LAG_COUNTED / (last - position));
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
