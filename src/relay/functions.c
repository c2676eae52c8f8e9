/*
 * functions.c
 *		es_create_relay(), es_drop_relay(), es_pause_relay(), es_resume_relay()
 *		and what stands behind the view es_relays.
 */
#include "relay/relay.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
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
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(es_create_relay);
PG_FUNCTION_INFO_V1(es_drop_relay);
PG_FUNCTION_INFO_V1(es_pause_relay);
PG_FUNCTION_INFO_V1(es_resume_relay);
PG_FUNCTION_INFO_V1(es_relay_report);

#define REPORT_COLUMNS	17

/* events behind are counted one by one up to here, and estimated beyond */
#define LAG_COUNTED		10000

static char *name_argument(FunctionCallInfo fcinfo, int argno, const char *what);
static const EsBrokerType *check_server(const char *name);
static char *server_names(void);
static int64 start_position(FunctionCallInfo fcinfo, int argno);
static EsRelay *own_relay(FunctionCallInfo fcinfo, const char *function);
static void report_relay(ReturnSetInfo *result, EsRelay *relay);
static const char *state_name(EsRelayState state);
static bool measure_lag(EsRelay *relay, int64 position, int64 safe, int64 *events, double *seconds);
static Datum text_datum(const char *string);

/*
 * es_create_relay makes a relay; its worker starts when the transaction
 * commits.
 */
Datum
es_create_relay(PG_FUNCTION_ARGS)
{
	char	   *name = name_argument(fcinfo, 0, "name");
	char	   *server = name_argument(fcinfo, 1, "server");
	const EsBrokerType *type;
	char	   *topic;
	int64		position;
	const char *store_name;
	EsStore    *store;

	PreventCommandIfReadOnly("es_create_relay()");

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("topic must not be null")));
	topic = text_to_cstring(PG_GETARG_TEXT_PP(2));

	type = check_server(server);
	type->check_topic(topic);
	position = start_position(fcinfo, 3);

	store_name = es_store_name_arg(fcinfo, 4);
	store = es_store_open(store_name, AccessShareLock);
	es_store_check_acl(store, ACL_SELECT);

	if (!es_relay_insert(name, server, topic, position, NameStr(store->name)))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("relay \"%s\" already exists", name),
				 errhint("Choose another name, or drop it with es_drop_relay().")));

	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_drop_relay removes a relay; its worker ends when the transaction commits.
 */
Datum
es_drop_relay(PG_FUNCTION_ARGS)
{
	es_relay_delete(own_relay(fcinfo, "es_drop_relay()")->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_pause_relay has a relay stop until it is resumed.
 */
Datum
es_pause_relay(PG_FUNCTION_ARGS)
{
	es_relay_pause(own_relay(fcinfo, "es_pause_relay()")->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * es_resume_relay has a relay run: one that is paused, one that came with a
 * copy of its database, or, at once, one that waits for its next attempt.
 */
Datum
es_resume_relay(PG_FUNCTION_ARGS)
{
	EsRelay    *relay = own_relay(fcinfo, "es_resume_relay()");

	es_relay_resume(relay->id);
	es_relay_status_nudge(relay->id);
	es_worker_wake_at_commit();
	PG_RETURN_VOID();
}

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
 * name_argument returns an argument of type name, neither null nor empty.
 */
static char *
name_argument(FunctionCallInfo fcinfo, int argno, const char *what)
{
	char	   *name;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be null", what)));
	name = NameStr(*PG_GETARG_NAME(argno));
	if (*name == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be empty", what)));
	return name;
}

/*
 * check_server raises an error unless the current user may send to a server,
 * and returns its broker type.
 */
static const EsBrokerType *
check_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ForeignDataWrapper *wrapper;
	const EsBrokerType *type;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("server \"%s\" does not exist", name),
				 errdetail_internal("%s", server_names()),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', \"bootstrap.servers\" 'host:9092');")));

	wrapper = GetForeignDataWrapper(server->fdwid);
	if (strcmp(wrapper->fdwname, "eventsrc") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("server \"%s\" is not a broker", name),
				 errdetail("It belongs to the foreign-data wrapper \"%s\".", wrapper->fdwname),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', \"bootstrap.servers\" 'host:9092');")));

	if (es_server_aclcheck(server->serverid, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", name),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s;",
						 quote_identifier(name),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));

	type = es_server_type(server->options);
	if (type == NULL)
		elog(ERROR, "server \"%s\" has no broker type", name);
	return type;
}

/*
 * server_names says which servers there are to choose from.
 */
static char *
server_names(void)
{
	Relation	servers = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(servers, InvalidOid, false, NULL, 0, NULL);
	StringInfoData names;
	HeapTuple	row;

	initStringInfo(&names);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(row);

		if (strcmp(GetForeignDataWrapper(server->srvfdw)->fdwname, "eventsrc") == 0)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "The servers are: ",
							 quote_identifier(NameStr(server->srvname)));
	}
	systable_endscan(scan);
	table_close(servers, AccessShareLock);

	if (names.len == 0)
		return "There is no server of the foreign-data wrapper eventsrc yet.";
	appendStringInfoChar(&names, '.');
	return names.data;
}

/*
 * start_position returns the position after which a new relay begins; null
 * means now.
 */
static int64
start_position(FunctionCallInfo fcinfo, int argno)
{
	int64		position;
	int64		head;

	if (PG_ARGISNULL(argno))
		return es_position_safe();

	position = PG_GETARG_INT64(argno);
	if (position < 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("from_position must not be negative"),
				 errhint("0 sends everything from the beginning, NULL what comes from now on.")));
	head = es_position_head();
	if (position > head)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NO_SUCH_VERSION),
				 errmsg("position " INT64_FORMAT " does not exist yet", position),
				 errdetail("The highest position is " INT64_FORMAT ".", head),
				 errhint("0 sends everything from the beginning, NULL what comes from now on.")));
	return position;
}

/*
 * own_relay finds the relay that the first argument names and raises an error
 * unless the user may change it.
 */
static EsRelay *
own_relay(FunctionCallInfo fcinfo, const char *function)
{
	char	   *name = name_argument(fcinfo, 0, "name");
	EsRelay    *relay;

	PreventCommandIfReadOnly(function);
	relay = es_relay_find(name);
	if (relay == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("relay \"%s\" does not exist", name),
				 errhint("The view es_relays lists them.")));
	if (!has_privs_of_role(GetUserId(), relay->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of relay %s", name)));
	return relay;
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
	int64		lag_events = 0;
	double		lag_seconds = 0;
	bool		measured = false;

	if (!relay->local)
		problem = "the relay was made in another database or server, of which this one is a copy: es_resume_relay() lets it send from here";
	else
		problem = es_relay_problem(relay);

	if (relay->paused)
		state = "paused";
	else if (problem != NULL)
		state = "stopped";
	else
		state = state_name(reported ? status.state : ES_RELAY_WAITING);
	if (es_relay_store_problem(relay) == NULL)
		measured = measure_lag(relay, position, safe, &lag_events, &lag_seconds);

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
