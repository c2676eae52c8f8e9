/*
 * alter.c
 *		es_alter_relay(), es_seek_relay(), es_replay_relay(): relays that run are
 *		told to do something else.
 */
#include "relay/content.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "store/position.h"
#include "store/store.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(es_alter_relay);
PG_FUNCTION_INFO_V1(es_seek_relay);
PG_FUNCTION_INFO_V1(es_replay_relay);

static int64 position_at(const EsRelay *relay, TimestampTz at);
static void name_replay(Name name, const char *relay);

/*
 * es_alter_relay changes the topic or options of a relay.  What its worker
 * reads after the transaction commits goes out as they say; nothing is lost or
 * sent again.
 */
Datum
es_alter_relay(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = es_relay_own(fcinfo, "es_alter_relay()");
	const EsBrokerType *type = es_relay_check_server(NameStr(relay->server));

	if (!PG_ARGISNULL(1))
	{
		relay->topic = es_relay_topic_argument(fcinfo, 1);
		type->check_topic(relay->topic);
	}
	if (!PG_ARGISNULL(2))
		relay->options = es_content_merge(relay->options, PG_GETARG_JSONB_P(2));
	relay->content = es_content_parse(&relay->options, type, true);
	relay->delivery = es_relay_delivery(relay->content, type);

	es_relay_alter(relay);
	es_lanes_tell(relay->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_seek_relay sets where a relay goes on: after a position, or with the first
 * event that was recorded at or after a time.  It returns the position.
 */
Datum
es_seek_relay(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = es_relay_own(fcinfo, "es_seek_relay()");
	int64		position;

	if (PG_ARGISNULL(1) == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("either a position or a time is needed"),
				 errhint("es_seek_relay(name, position) goes on after a position, es_seek_relay(name, at => time) with what was recorded from then on.")));
	if (!PG_ARGISNULL(1))
		position = es_relay_check_position(PG_GETARG_INT64(1), "position");
	else
		position = position_at(relay, PG_GETARG_TIMESTAMPTZ(2));

	es_relay_seek(relay->id, position);
	es_lanes_tell(relay->id);
	es_worker_wake_at_commit();
	PG_RETURN_INT64(position);
}

/*
 * es_replay_relay sends what a relay sent for a range of positions once more,
 * to another topic: it makes a relay that ends by itself, and returns its name.
 */
Datum
es_replay_relay(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = es_relay_own(fcinfo, "es_replay_relay()");
	const EsBrokerType *type = es_relay_check_server(NameStr(relay->server));
	Name		name = palloc0(sizeof(NameData));
	char	   *problem;

	relay->topic = es_relay_topic_argument(fcinfo, 1);
	type->check_topic(relay->topic);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("from_position must not be null"),
				 errhint("0 begins with the first event.")));
	relay->position = es_relay_check_position(PG_GETARG_INT64(2), "from_position");
	relay->to_position = PG_ARGISNULL(3) ? es_position_safe() : PG_GETARG_INT64(3);
	if (relay->to_position <= relay->position)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("to_position must be greater than from_position"),
				 errdetail("They are " INT64_FORMAT " and " INT64_FORMAT ".",
						   relay->to_position, relay->position),
				 errhint("NULL for to_position sends what there is now.")));
	if (PG_ARGISNULL(4))
		name_replay(name, NameStr(relay->name));
	else
		namestrcpy(name, es_relay_name_argument(fcinfo, 4, "replay"));

	problem = es_relay_problem(relay);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("relay \"%s\" cannot send: %s", NameStr(relay->name), problem),
				 errhint("Put that right first.")));
	relay->name = *name;
	relay->retry_of = 0;
	es_relay_add(relay);
	PG_RETURN_NAME(name);
}

/*
 * position_at returns the position after which a relay begins with the first
 * event that was recorded at or after a time; it reads as the relay does, with
 * the rights of its owner.
 */
static int64
position_at(const EsRelay *relay, TimestampTz at)
{
	const char *store = quote_identifier(NameStr(relay->store));
	int64		position = es_position_safe();
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(at)};
	Oid			user;
	int			context;
	int			nest_level;
	Datum		first;
	bool		isnull;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(relay->owner, context | SECURITY_RESTRICTED_OPERATION);
	nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	SPI_connect();
	if (SPI_execute_with_args(psprintf("SELECT min(global_position) FROM %s.events WHERE recorded_at >= $1", store),
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the events of store %s", store);
	first = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

	/* what is not committed yet may lie before it */
	if (!isnull)
		position = Min(position, DatumGetInt64(first) - 1);
	SPI_finish();

	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(user, context);
	return position;
}

/*
 * name_replay finds a name that is free: that of the relay, " replay" and a
 * number.
 */
static void
name_replay(Name name, const char *relay)
{
	for (int i = 1;; i++)
	{
		char	   *suffix = psprintf(" replay %d", i);
		int			length = pg_mbcliplen(relay, strlen(relay), NAMEDATALEN - 1 - strlen(suffix));

		CHECK_FOR_INTERRUPTS();
		namestrcpy(name, psprintf("%.*s%s", length, relay, suffix));
		if (es_relay_find(NameStr(*name)) == NULL)
			return;
	}
}
